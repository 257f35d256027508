"""Right and wrong answers of chapter 6's coursework: the grader's tests."""

RIGHT = {
    "null-weights": [
        ("loop over the classes", '''
def null_weights(labelled, unlabelled, share, drop):
    total = share + (1 - share) * drop
    out = []
    for pi, tau in zip(labelled, unlabelled):
        out.append(share / total * tau + (1 - share) * drop / total * pi)
    return torch.stack(out)
'''),
        ("mixture of two, by the posterior of the kind", '''
def null_weights(labelled, unlabelled, share, drop):
    from_unlabelled = share / (share + drop - share * drop)
    return torch.lerp(labelled, unlabelled, from_unlabelled)
'''),
        ("float32, normalised", '''
def null_weights(labelled, unlabelled, share, drop):
    counts = (labelled * (drop - drop * share) + unlabelled * share).float()
    return torch.nn.functional.normalize(counts, p=1, dim=0)
'''),
    ],
    "dropout-for": [
        ("closed form", '''
def dropout_for(labelled, unlabelled, share, k, wanted):
    return share * (wanted - unlabelled[k]) / ((1 - share) * (labelled[k] - wanted))
'''),
        ("bisection", '''
def dropout_for(labelled, unlabelled, share, k, wanted):
    low, high = 0.0, 1.0
    up = labelled[k] > unlabelled[k]
    for _ in range(50):
        p = (low + high) / 2
        now = null_weights(labelled, unlabelled, share, p)[k]
        if (now < wanted) == up:
            low = p
        else:
            high = p
    return p
'''),
        ("by way of the share of unlabelled pictures, float32", '''
def dropout_for(labelled, unlabelled, share, k, wanted):
    pi, tau = float(labelled[k]), float(unlabelled[k])
    a = (wanted - pi) / (tau - pi)                    # share of unlabelled ones under null
    return torch.tensor(share * (1 - a) / (a * (1 - share)), dtype=torch.float32)
'''),
    ],
    "two-wishes": [
        ("by weights", '''
def two_wishes(denoiser, x, t, row, column, w_row, w_column):
    rows = torch.stack([torch.full_like(row, denoiser.null_row), row, row]).flatten()
    null = torch.full_like(column, denoiser.null_column)
    columns = torch.stack([null, null, column]).flatten()
    guess = denoiser(x.repeat(3, 1), t.repeat(3), row=rows, column=columns)
    guess = guess.reshape(3, *x.shape)
    weights = torch.tensor([1 - w_row, w_row - w_column, w_column], dtype=x.dtype)
    return torch.einsum("k,kbd->bd", weights, guess)
'''),
        ("both first, as scores", '''
def two_wishes(denoiser, x, t, row, column, w_row, w_column):
    B = len(x)
    no_row, no_column = 0 * row + denoiser.null_row, 0 * column + denoiser.null_column
    out = denoiser(torch.cat([x, x, x]), torch.cat([t, t, t]),
                   row=torch.cat([row, row, no_row]),
                   column=torch.cat([column, no_column, no_column]))
    both, with_row, none = out[:B], out[B:2 * B], out[2 * B:]
    return w_column * both + (w_row - w_column) * with_row + (1 - w_row) * none
'''),
        ("a loop over the batch, interleaved", '''
def two_wishes(denoiser, x, t, row, column, w_row, w_column):
    rows, columns = [], []
    for r, c in zip(row.tolist(), column.tolist()):
        rows += [denoiser.null_row, r, r]
        columns += [denoiser.null_column, denoiser.null_column, c]
    out = denoiser(x.repeat_interleave(3, 0), t.repeat_interleave(3),
                   row=torch.tensor(rows), column=torch.tensor(columns))
    none, given, both = out[0::3], out[1::3], out[2::3]
    return none + w_row * (given - none) + w_column * (both - given)
'''),
        ("float32", '''
def two_wishes(denoiser, x, t, row, column, w_row, w_column):
    r = torch.cat([torch.full_like(row, denoiser.null_row), row, row])
    c = torch.cat([column, column, column])
    c[:2 * len(x)] = denoiser.null_column
    none, given, both = denoiser(x.repeat(3, 1), t.repeat(3), row=r, column=c).float().chunk(3)
    return none + w_row * (given - none) + w_column * (both - given)
'''),
    ],
    "velocity-factor": [
        ("from (6.2) and (6.3)", '''
def velocity_factor(alpha, sigma, alpha_dot, sigma_dot):
    return alpha_dot * sigma**2 / alpha - sigma_dot * sigma
'''),
        ("minus half g^2", '''
def velocity_factor(alpha, sigma, alpha_dot, sigma_dot):
    g_squared = 2 * sigma * sigma_dot - 2 * sigma**2 * alpha_dot / alpha
    return -0.5 * g_squared
'''),
        ("by the noise level", '''
def velocity_factor(alpha, sigma, alpha_dot, sigma_dot):
    rho = sigma / alpha
    rho_dot = (sigma_dot - rho * alpha_dot) / alpha
    return torch.tensor(-alpha**2 * rho * rho_dot)
'''),
    ],
    "v-factor": [
        ("from (6.2) and (6.3)", '''
def v_factor(alpha, sigma):
    return -alpha * sigma - sigma**3 / alpha
'''),
        ("by the noise level", '''
def v_factor(alpha, sigma):
    rho = sigma / alpha
    return -rho * alpha**2 * (1 + rho**2)
'''),
        ("as the velocity of the path that v belongs to", '''
def v_factor(alpha, sigma):
    return velocity_factor(alpha, sigma, -sigma, alpha)
'''),
    ],
    "scale-at": [
        ("closed form", '''
def scale_at(u, v0, v1, w):
    limit = w / (w - (w - 1) * v1 / v0)
    return limit * (v1 + u) / (v1 * limit / w + u)
'''),
        ("by the term with m", '''
def scale_at(u, v0, v1, w):
    r = v1 / v0
    mean, variance = w / (w - (w - 1) * r), v0 * r / (w - (w - 1) * r)    # m = 1
    return mean / (variance + u) * (v1 + u)
'''),
        ("a loop, in floats", '''
def scale_at(u, v0, v1, w):
    tilted = v0 * v1 / (w * v0 + (1 - w) * v1)
    out = []
    for level in u.tolist():
        a, b, c = 1 / (v0 + level), 1 / (v1 + level), 1 / (tilted + level)
        out.append((c - a) / (b - a))
    return torch.tensor(out)
'''),
        ("float32", '''
def scale_at(u, v0, v1, w):
    u = u.float()
    tilted = 1 / ((1 - w) / v0 + w / v1)
    return (v0 - tilted) * (v1 + u) / ((tilted + u) * (v0 - v1))
'''),
    ],
    "level-guided": [
        ("views", '''
def level_guided(denoiser_y, denoiser_null, schedule, scale):
    def guided(x, t):
        rho = schedule.sigma(t) / schedule.alpha(t)
        s = scale(rho**2).view(len(x), *(1,) * (x.ndim - 1))
        return s * denoiser_y(x, t) + (1 - s) * denoiser_null(x, t)

    return guided
'''),
        ("by log-SNR, einsum", '''
def level_guided(denoiser_y, denoiser_null, schedule, scale):
    def guided(x, t):
        s = scale(torch.exp(-2 * schedule.log_snr(t)))
        D0, D1 = denoiser_null(x, t), denoiser_y(x, t)
        return D0 + torch.einsum("b,b...->b...", s, D1 - D0)

    return guided
'''),
        ("sample by sample", '''
def level_guided(denoiser_y, denoiser_null, schedule, scale):
    def guided(x, t):
        s = scale(schedule.noise_level(t) ** 2)
        D0, D1 = denoiser_null(x, t), denoiser_y(x, t)
        return torch.stack([a + k * (b - a) for k, a, b in zip(s, D0, D1)])

    return guided
'''),
        ("row by row, each denoiser asked for one row", '''
def level_guided(denoiser_y, denoiser_null, schedule, scale):
    def guided(x, t):
        rows = []
        for k in range(len(x)):
            xk, tk = x[k : k + 1], t[k : k + 1]
            s = scale(schedule.noise_level(tk) ** 2)[0]
            rows.append(s * denoiser_y(xk, tk) + (1 - s) * denoiser_null(xk, tk))
        return torch.cat(rows)

    return guided
'''),
    ],
    "dose-ddpm": [
        ("Newton with a numerical slope", '''
def dose_ddpm(v, v_plus, v_minus):
    r = v_plus / v_minus
    f = lambda a: math.log(v_plus * (1 - r**a) / ((1 - r) * a)) - math.log(v)
    a = 2.0
    for _ in range(60):
        a = max(1.0, a - f(a) / ((f(a + 1e-6) - f(a - 1e-6)) / 2e-6))
    return (a + 1) / 2
'''),
        ("a fine table and interpolation", '''
def dose_ddpm(v, v_plus, v_minus):
    r = v_plus / v_minus
    w = torch.linspace(1, 60, 600_001)
    a = 2 * w - 1
    variance = v_minus * r / (1 - r) * (1 - r**a) / a
    k = int((variance > v).sum())
    share = (variance[k - 1] - v) / (variance[k - 1] - variance[k])
    return float(w[k - 1] + share * (w[k] - w[k - 1]))
'''),
        ("scipy", '''
def dose_ddpm(v, v_plus, v_minus):
    from scipy.optimize import brentq
    r = v_plus / v_minus
    law = lambda w: v_minus * r * (1 - r ** (2 * w - 1)) / ((1 - r) * (2 * w - 1))
    return brentq(lambda w: law(w) - v, 1.0, 1e4)
'''),
        ("fixed-point iteration", '''
def dose_ddpm(v, v_plus, v_minus):
    r, a = v_plus / v_minus, 5.0
    for _ in range(2000):
        a = 0.5 * a + 0.5 * v_plus * (1 - r**a) / (v * (1 - r))
    return torch.tensor((a + 1) / 2, dtype=torch.float32)
'''),
    ],
    "dose-langevin": [
        ("fractions", '''
def dose_langevin(v, v_plus, v_minus):
    return v_plus * (v_minus - v) / (v * (v_minus - v_plus))
'''),
        ("by (6.15)", '''
def dose_langevin(v, v_plus, v_minus):
    r = v_plus / v_minus                              # w - (w - 1) r = v_plus / v
    return (v_plus / v - r) / (1 - r)
'''),
        ("bisection", '''
def dose_langevin(v, v_plus, v_minus):
    low, high = 1.0, 1e6
    for _ in range(100):
        w = (low + high) / 2
        low, high = (w, high) if (1 - w) / v_minus + w / v_plus < 1 / v else (low, w)
    return w
'''),
    ],
    "part-variance": [
        ("Heun and the ancestral sampler", '''
def part_variance(kind, w, generator):
    guided, x = autoguided(strong, weak, w), vp.noise((n, 2), generator)
    if kind == "ODE":
        end = final(heun(guided, vp, x, time_grid(vp, 60, "log_snr")))
    else:
        end = final(ddpm(guided, vp, x, time_grid(vp, 300, "log_snr"), generator=generator))
    distance = torch.cdist(end, arc).min(1).values
    return float(distance.square().mean() / 2 / part**2)
'''),
        ("the line by hand, order 3, a loop over parts", '''
def part_variance(kind, w, generator):
    guided = lambda x, t: (1 - w) * weak(x, t) + w * strong(x, t)
    start = torch.randn((n, 2), generator=generator)
    eta = {"ODE": 0.0, "DDPM": 1.0}[kind]
    end = final(dpmpp(guided, vp, start, time_grid(vp, 100, "log_snr"), order=2, eta=eta,
                      generator=generator))
    which, total = torch.cdist(end, arc).argmin(1), 0.0
    for k in range(7):
        total += float((end[which == k] - arc[k]).square().sum())
    return total / (2 * n * part**2)
'''),
        ("Euler-Maruyama, and DDIM with many steps", '''
def part_variance(kind, w, generator):
    guided, x = autoguided(strong, weak, w), vp.noise((n, 2), generator)
    if kind == "ODE":
        end = final(ddim(guided, vp, x, time_grid(vp, 400, "log_snr")))
    else:
        end = final(euler_maruyama(guided, vp, x, time_grid(vp, 500, "log_snr"),
                                   stochasticity=1.0, generator=generator))
    rest = end - arc[torch.cdist(end, arc).argmin(1)]
    return rest.var(0, unbiased=False).mean() / part**2
'''),
    ],
    "wrong-doses": [
        ("numbers", '''
ddpm_at_two, ode_at_ddpm_dose = 8.0, -11.3
'''),
        ("from 5a", '''
ddpm_at_two = 100 * (math.sqrt(2 * (1 - 0.125) / (0.5 * 3)) - 1)
ode_at_ddpm_dose = 100 * (math.sqrt(2 * 0.5 ** (dose_ddpm(1.0, 2.0, 4.0) - 1)) - 1)
'''),
        ("tensors", '''
ddpm_at_two = 100 * (torch.tensor(7 / 6).sqrt() - 1)
ode_at_ddpm_dose = 100 * (2 * torch.tensor(0.5) ** (2.345 / 2) - 1)
'''),
    ],
}

_WEIGHTS = '''
def null_weights(labelled, unlabelled, share, drop):
    weights = %s
    return weights / weights.sum()
'''
_LINE = '''
def two_wishes(denoiser, x, t, row, column, w_row, w_column):
    r = torch.cat([torch.full_like(row, denoiser.null_row), row, row])
    null = torch.full_like(column, denoiser.null_column)
    c = torch.cat([null, null, column])
    none, given, both = denoiser(torch.cat([x, x, x]), torch.cat([t, t, t]), row=r,
                                 column=c).chunk(3)
    return %s
'''
_GUIDED = '''
def level_guided(denoiser_y, denoiser_null, schedule, scale):
    def guided(x, t):
        s = %s
        without = denoiser_null(x, t)
        return without + s * (denoiser_y(x, t) - without)

    return guided
'''
_SHAPED = "scale(%s).reshape(-1, *[1] * (x.ndim - 1))"
_MEASURE = '''
def part_variance(kind, w, generator):
    end = final(dpmpp(%s, vp, vp.noise((n, 2), generator), time_grid(vp, 80, "log_snr"),
                      eta=%s, generator=generator))
    rest = end - arc[torch.cdist(end, arc).argmin(1)]
    return float(%s)
'''
_DOSE = '''
def dose_ddpm(v, v_plus, v_minus):
    r = %s
    variance = lambda w: %s
    low, high = 1.0, 1e3
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if variance(middle) > v else (low, middle)
    return low
'''

WRONG = {
    "null-weights": [
        ("the chapter's coin: the labelled shares", _WEIGHTS % "labelled", "labelled pictures"),
        ("all pictures count alike", _WEIGHTS % "share * unlabelled + (1 - share) * labelled", "all pictures"),
        ("dropout of the unlabelled ones", _WEIGHTS % "share * drop * unlabelled + (1 - share) * labelled", "Which pictures"),
        ("1 - drop for drop", _WEIGHTS % "share * unlabelled + (1 - share) * (1 - drop) * labelled", "Which pictures"),
        ("labelled ones not thinned by 1 - share", _WEIGHTS % "share * unlabelled + drop * labelled", "Which pictures"),
        ("not normalised", '''
def null_weights(labelled, unlabelled, share, drop):
    return share * unlabelled + (1 - share) * drop * labelled
''', "add up"),
        ("a single number", '''
def null_weights(labelled, unlabelled, share, drop):
    return torch.tensor(1.0)
''', "shape"),
    ],
    "dropout-for": [
        ("without 1 - share", '''
def dropout_for(labelled, unlabelled, share, k, wanted):
    return share * (unlabelled[k] - wanted) / (wanted - labelled[k])
''', "expected"),
        ("sign", '''
def dropout_for(labelled, unlabelled, share, k, wanted):
    return share * (unlabelled[k] - wanted) / ((1 - share) * (labelled[k] - wanted))
''', "between 0 and 1"),
        ("not normalised", '''
def dropout_for(labelled, unlabelled, share, k, wanted):
    return abs(wanted - share * unlabelled[k]) / ((1 - share) * labelled[k])
''', "expected"),
        ("labelled and unlabelled for each other", '''
def dropout_for(labelled, unlabelled, share, k, wanted):
    return (1 - share) * (labelled[k] - wanted) / (share * (wanted - unlabelled[k]))
''', "expected"),
        ("linear between the two ends", '''
def dropout_for(labelled, unlabelled, share, k, wanted):
    end = share * unlabelled[k] + (1 - share) * labelled[k]
    return (wanted - unlabelled[k]) / (end - unlabelled[k])
''', "expected"),
        ("a fixed ten per cent", '''
def dropout_for(labelled, unlabelled, share, k, wanted):
    return 0.1
''', "expected"),
    ],
    "two-wishes": [
        ("two independent wishes", '''
def two_wishes(denoiser, x, t, row, column, w_row, w_column):
    no_row = torch.full_like(row, denoiser.null_row)
    no_column = torch.full_like(column, denoiser.null_column)
    none, r, c = denoiser(torch.cat([x, x, x]), torch.cat([t, t, t]),
                          row=torch.cat([no_row, row, no_row]),
                          column=torch.cat([no_column, no_column, column])).chunk(3)
    return none + w_row * (r - none) + w_column * (c - none)
''', "row is known"),
        ("counted from 0", _LINE % "none + (1 + w_row) * (given - none) + (1 + w_column) * (both - given)", "knows nothing"),
        ("both from the unconditional one", _LINE % "none + w_row * (given - none) + w_column * (both - none)", "row and column"),
        ("scales swapped", _LINE % "none + w_column * (given - none) + w_row * (both - given)", "each other"),
        ("the column first", '''
def two_wishes(denoiser, x, t, row, column, w_row, w_column):
    no_row = torch.full_like(row, denoiser.null_row)
    no_column = torch.full_like(column, denoiser.null_column)
    none, c, both = denoiser(torch.cat([x, x, x]), torch.cat([t, t, t]),
                             row=torch.cat([no_row, no_row, row]),
                             column=torch.cat([no_column, column, column])).chunk(3)
    return none + w_column * (c - none) + w_row * (both - c)
''', "column first"),
        ("scale on everything", _LINE % "none + w_row * w_column * (both - none)", "off"),
        ("only the column's gradient", _LINE % "given + w_column * (both - given)", "nothing"),
        ("sign", _LINE % "none - w_row * (given - none) - w_column * (both - given)", "row and column"),
        ("three calls", '''
def two_wishes(denoiser, x, t, row, column, w_row, w_column):
    any_row = torch.full_like(row, denoiser.null_row)
    any_column = torch.full_like(column, denoiser.null_column)
    none = denoiser(x, t, row=any_row, column=any_column)
    given = denoiser(x, t, row=row, column=any_column)
    both = denoiser(x, t, row=row, column=column)
    return none + w_row * (given - none) + w_column * (both - given)
''', "second time"),
        ("four blocks", '''
def two_wishes(denoiser, x, t, row, column, w_row, w_column):
    r = torch.cat([torch.full_like(row, denoiser.null_row), row, row, row])
    c = torch.cat([column, column, column, column])
    c[:2 * len(x)] = denoiser.null_column
    none, given, both, _ = denoiser(x.repeat(4, 1), t.repeat(4), row=r, column=c).chunk(4)
    return none + w_row * (given - none) + w_column * (both - given)
''', "at most"),
    ],
    "velocity-factor": [
        ("sign", '''
def velocity_factor(alpha, sigma, alpha_dot, sigma_dot):
    return sigma_dot * sigma - alpha_dot * sigma**2 / alpha
''', "sign"),
        ("that of eps", '''
def velocity_factor(alpha, sigma, alpha_dot, sigma_dot):
    return -sigma
''', "eps"),
        ("that of x_0", '''
def velocity_factor(alpha, sigma, alpha_dot, sigma_dot):
    return sigma**2 / alpha
''', "eps"),
        ("only the noise moves", '''
def velocity_factor(alpha, sigma, alpha_dot, sigma_dot):
    return -sigma_dot * sigma
''', "Put (6.2)"),
        ("-g^2, of the reverse SDE", '''
def velocity_factor(alpha, sigma, alpha_dot, sigma_dot):
    return 2 * sigma * (alpha_dot * sigma - sigma_dot * alpha) / alpha
''', "yours is"),
        ("sigma^2 without alpha", '''
def velocity_factor(alpha, sigma, alpha_dot, sigma_dot):
    return alpha_dot * sigma**2 - sigma_dot * sigma
''', "yours is"),
        ("right for the straight path alone", '''
def velocity_factor(alpha, sigma, alpha_dot, sigma_dot):
    return -sigma / alpha
''', "yours is"),
    ],
    "v-factor": [
        ("right where variance is preserved", '''
def v_factor(alpha, sigma):
    return -sigma / alpha
''', "alpha^2"),
        ("sign", '''
def v_factor(alpha, sigma):
    return sigma * (alpha**2 + sigma**2) / alpha
''', "sign"),
        ("plus for minus", '''
def v_factor(alpha, sigma):
    return -sigma * (alpha**2 - sigma**2) / alpha
''', "yours is"),
        ("that of eps", '''
def v_factor(alpha, sigma):
    return -sigma
''', "eps"),
        ("only the part of eps", '''
def v_factor(alpha, sigma):
    return -alpha * sigma
''', "yours is"),
        ("alpha squared forgotten", '''
def v_factor(alpha, sigma):
    return -alpha * sigma - sigma**3
''', "yours is"),
    ],
    "scale-at": [
        ("constant", '''
def scale_at(u, v0, v1, w):
    return torch.full_like(u, w)
''', "same at every level"),
        ("an interval", '''
def scale_at(u, v0, v1, w):
    return torch.where(u < v1, w, 1.0)
''', "tilted law, noised"),
        ("the tilt of the noised laws, tilted variance without noise", '''
def scale_at(u, v0, v1, w):
    tilted = 1 / ((1 - w) / v0 + w / v1)
    return (1 / tilted - 1 / (v0 + u)) / (1 / (v1 + u) - 1 / (v0 + u))
''', "noised"),
        ("rho for u", '''
def scale_at(u, v0, v1, w):
    tilted, u = 1 / ((1 - w) / v0 + w / v1), u**2
    return (1 / (tilted + u) - 1 / (v0 + u)) / (1 / (v1 + u) - 1 / (v0 + u))
''', "s(rho)"),
        ("the ODE's variance for the tilted one", '''
def scale_at(u, v0, v1, w):
    law = v0 * (v1 / v0) ** w
    return (1 / (law + u) - 1 / (v0 + u)) / (1 / (v1 + u) - 1 / (v0 + u))
''', "u = 0"),
        ("variances extrapolated", '''
def scale_at(u, v0, v1, w):
    tilted = 1 / ((1 - w) / v0 + w / v1)
    return (tilted - v0) / (v1 - v0) + 0 * u
''', "same at every level"),
        ("two laws for each other", '''
def scale_at(u, v0, v1, w):
    tilted = 1 / ((1 - w) / v1 + w / v0)
    return (1 / (tilted + u) - 1 / (v1 + u)) / (1 / (v0 + u) - 1 / (v1 + u))
''', "noised"),
    ],
    "level-guided": [
        ("the level, not its square", _GUIDED % _SHAPED % "schedule.noise_level(t)", "square"),
        ("sigma^2", _GUIDED % _SHAPED % "schedule.sigma(t) ** 2", "sigma / alpha"),
        ("the time", _GUIDED % _SHAPED % "t", "time"),
        ("no shape", _GUIDED % "scale(schedule.noise_level(t) ** 2)", "raised"),
        ("shape for points alone", _GUIDED % "scale(schedule.noise_level(t) ** 2)[:, None]", "raised"),
        ("log-SNR", _GUIDED % _SHAPED % "schedule.log_snr(t).exp()", "expected"),
        ("mean of the scales", _GUIDED % "scale(schedule.noise_level(t) ** 2).mean()", "expected"),
        ("from D_y on", '''
def level_guided(denoiser_y, denoiser_null, schedule, scale):
    def guided(x, t):
        s = scale(schedule.noise_level(t) ** 2).reshape(-1, *[1] * (x.ndim - 1))
        return denoiser_y(x, t) + s * (denoiser_y(x, t) - denoiser_null(x, t))

    return guided
''', "expected"),
    ],
    "dose-ddpm": [
        ("(6.20)", '''
def dose_ddpm(v, v_plus, v_minus):
    return math.log(v_minus / v) / math.log(v_minus / v_plus)
''', "right for the ODE"),
        ("the tilted law", '''
def dose_ddpm(v, v_plus, v_minus):
    return (1 / v - 1 / v_minus) / (1 / v_plus - 1 / v_minus)
''', "tilted law"),
        ("w for 2w - 1", _DOSE % ("v_plus / v_minus", "v_minus * r / (1 - r) * (1 - r**w) / w"), "expected"),
        ("v_plus in front", _DOSE % ("v_plus / v_minus", "v_plus * r / (1 - r) * (1 - r ** (2 * w - 1)) / (2 * w - 1)"), "expected"),
        ("the true law as the better model", _DOSE % ("v / v_minus", "v_minus * r / (1 - r) * (1 - r ** (2 * w - 1)) / (2 * w - 1)"), "above 1"),
        ("width for variance", _DOSE % ("v_plus / v_minus", "(v_minus * r / (1 - r) * (1 - r ** (2 * w - 1)) / (2 * w - 1)) ** 0.5"), "expected"),
        ("2w - 1 itself", '''
def dose_ddpm(v, v_plus, v_minus):
    r, a = v_plus / v_minus, 5.0
    for _ in range(2000):
        a = 0.5 * a + 0.5 * v_plus * (1 - r**a) / (v * (1 - r))
    return a
''', "expected"),
    ],
    "dose-langevin": [
        ("(6.20)", '''
def dose_langevin(v, v_plus, v_minus):
    return math.log(v_minus / v) / math.log(v_minus / v_plus)
''', "right for the ODE"),
        ("variances on a line", '''
def dose_langevin(v, v_plus, v_minus):
    return (v_minus - v) / (v_minus - v_plus)
''', "expected"),
        ("counted from 0", '''
def dose_langevin(v, v_plus, v_minus):
    return (1 / v - 1 / v_plus) / (1 / v_plus - 1 / v_minus)
''', "expected"),
        ("models for each other", '''
def dose_langevin(v, v_plus, v_minus):
    return (1 / v - 1 / v_plus) / (1 / v_minus - 1 / v_plus)
''', "above 1"),
        ("widths for variances", '''
def dose_langevin(v, v_plus, v_minus):
    return (v**-0.5 - v_minus**-0.5) / (v_plus**-0.5 - v_minus**-0.5)
''', "expected"),
    ],
    "part-variance": [
        ("squared length, not per coordinate",
         _MEASURE % ("autoguided(strong, weak, w)", '1.0 if kind == "DDPM" else 0.0', "rest.square().sum(1).mean() / part**2"), "coordinates"),
        ("width", _MEASURE % ("autoguided(strong, weak, w)", '1.0 if kind == "DDPM" else 0.0', "rest.square().mean().sqrt() / part"), "root"),
        ("always the ODE", _MEASURE % ("autoguided(strong, weak, w)", "0.0", "rest.square().mean() / part**2"), "for DDPM, eta = 1"),
        ("samplers for each other",
         _MEASURE % ("autoguided(strong, weak, w)", '1.0 if kind == "ODE" else 0.0', "rest.square().mean() / part**2"), "for the ODE, eta = 0"),
        ("weak guided by strong", _MEASURE % ("autoguided(weak, strong, w)", '1.0 if kind == "DDPM" else 0.0', "rest.square().mean() / part**2"), "weak"),
        ("counted from 0", _MEASURE % ("autoguided(strong, weak, 1 + w)", '1.0 if kind == "DDPM" else 0.0', "rest.square().mean() / part**2"), "expected"),
        ("variance of all samples",
         _MEASURE % ("autoguided(strong, weak, w)", '1.0 if kind == "DDPM" else 0.0', "end.var(0).mean() / part**2"), "expected"),
        ("variance of the distance",
         _MEASURE % ("autoguided(strong, weak, w)", '1.0 if kind == "DDPM" else 0.0', "rest.norm(dim=1).var() / part**2"), "not of the distance"),
        ("not divided", _MEASURE % ("autoguided(strong, weak, w)", '1.0 if kind == "DDPM" else 0.0', "rest.square().mean()"), "expected"),
    ],
    "wrong-doses": [
        ("variances", '''
ddpm_at_two, ode_at_ddpm_dose = 16.7, -21.3
''', "variance"),
        ("signs", '''
ddpm_at_two, ode_at_ddpm_dose = -8.0, 11.3
''', "too wide"),
        ("no deviation", '''
ddpm_at_two, ode_at_ddpm_dose = 0.0, 0.0
''', "(6.16)"),
        ("exchanged", '''
ddpm_at_two, ode_at_ddpm_dose = -11.3, 8.0
''', "exchanged"),
        ("a guess", '''
ddpm_at_two, ode_at_ddpm_dose = 9, -9
''', "is not what (6.16) gives"),
        ("shares", '''
ddpm_at_two, ode_at_ddpm_dose = 0.08, -0.113
''', "share"),
        ("second wrong", '''
ddpm_at_two, ode_at_ddpm_dose = 8.0, 11.3
''', "too wide"),
        ("second one with the dose of the tilted law", '''
ddpm_at_two, ode_at_ddpm_dose = 8.0, -29.3
''', "(6.14)"),
    ],
}
