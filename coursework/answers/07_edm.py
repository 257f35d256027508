"""Right and wrong answers of chapter 7's coursework: the grader's tests."""

RIGHT = {
    "second-look": [
        ("without reciprocals", '''
def second_look(level, tau, sigma_data):
    s, r, t = sigma_data**2, level**2, tau**2
    total = s * t + s * r + r * t
    return s * t / total, s * r / total, (s * r * t / total).sqrt()
'''),
        ("join both looks into one of a lower level", '''
def second_look(level, tau, sigma_data):
    joint = (level * tau) ** 2 / (level**2 + tau**2)              # variance of the best mean
    skip = sigma_data**2 / (sigma_data**2 + joint)
    share = tau**2 / (level**2 + tau**2)
    out = sigma_data * joint.sqrt() / (sigma_data**2 + joint).sqrt()
    return skip * share, skip * (1 - share), out
'''),
        ("a linear system for each level", '''
def second_look(level, tau, sigma_data):
    s, rows = sigma_data**2, []
    for r in level.tolist():
        A = torch.tensor([[s + r**2, s], [s, s + tau**2]])
        a, b = torch.linalg.solve(A, torch.tensor([s, s])).tolist()
        c = ((1 - a - b) ** 2 * s + a**2 * r**2 + b**2 * tau**2) ** 0.5
        rows.append((a, b, c))
    return tuple(torch.tensor(column) for column in zip(*rows))
'''),
        ("float32", '''
def second_look(level, tau, sigma_data):
    level = level.float()
    p = sigma_data**-2 + level**-2 + tau**-2
    return level**-2 / p, tau**-2 / p, 1 / p.sqrt()
'''),
    ],
    "angle-weight": [
        ("densities over psi", '''
def angle_weight(level, sigma_data, p_mean, p_std):
    psi = torch.atan(level / sigma_data)
    log_density = torch.distributions.Normal(p_mean, p_std).log_prob(level.log())
    over_psi = log_density.exp() / (psi.sin() * psi.cos())
    return math.pi / 2 * over_psi / (sigma_data * psi.sin()) ** 2
'''),
        ("densities over rho", '''
def angle_weight(level, sigma_data, p_mean, p_std):
    z = (level.log() - p_mean) / p_std
    edm_density = (-z * z / 2).exp() / (level * p_std * (2 * math.pi) ** 0.5)
    even_density = 2 * sigma_data / (math.pi * (sigma_data**2 + level**2))
    return (1 / sigma_data**2 + 1 / level**2) * edm_density / even_density
'''),
        ("logarithms", '''
def angle_weight(level, sigma_data, p_mean, p_std):
    total = (sigma_data**2 + level**2).log()
    log_w = total - 2 * math.log(sigma_data) - 2 * level.log()
    log_p = -((level.log() - p_mean) ** 2) / (2 * p_std**2) - math.log(p_std) - math.log(2 * math.pi) / 2
    log_q = math.log(2 / math.pi * sigma_data) + level.log() - total
    return (log_w + log_p - log_q).exp()
'''),
        ("float32", '''
def angle_weight(level, sigma_data, p_mean, p_std):
    level = level.float()
    total = sigma_data**2 + level**2
    bell = torch.exp(-0.5 * ((level.log() - p_mean) / p_std) ** 2) / (2 * math.pi) ** 0.5 / p_std
    return (math.pi / 2) * total**2 * bell / (sigma_data * level) ** 3
'''),
    ],
    "angle-rate": [
        ("chain rule", '''
def angle_rate(u, guess, psi, sigma_data):
    rho = sigma_data * math.tan(psi)
    c_in = math.cos(psi) / sigma_data
    xbar = u / c_in
    clock = sigma_data / math.cos(psi) ** 2                        # d rho / d psi
    return -math.sin(psi) / sigma_data * xbar + c_in * (xbar - guess) / rho * clock
'''),
        ("minus F", '''
def angle_rate(u, guess, psi, sigma_data):
    rho = sigma_data * math.tan(psi)
    total = rho**2 + sigma_data**2
    xbar = u * total**0.5
    F = (guess - sigma_data**2 / total * xbar) / (sigma_data * rho / total**0.5)
    return -F
'''),
        ("x_0 and eps on a circle", '''
def angle_rate(u, guess, psi, sigma_data):
    data = guess / sigma_data
    eps = (u - math.cos(psi) * data) / math.sin(psi)
    return math.cos(psi) * eps - math.sin(psi) * data
'''),
    ],
    "angle-walk": [
        ("weights by a linear system", '''
def angle_walk(F, sigma_data, x, levels):
    psi = torch.atan(levels.double() / sigma_data).tolist()
    def weights(places, a, b):
        A = torch.tensor([[1.0, 1.0], places])
        return torch.linalg.solve(A, torch.tensor([a - b, (a**2 - b**2) / 2])).tolist()
    u = x * math.cos(psi[0]) / sigma_data
    first = u
    values = []
    for k, angle in enumerate(psi[:-1]):
        values.append(F(u, angle))
        if k == 0:
            u = u + (psi[0] - psi[1]) * values[0]
            continue
        if k == 1:
            p, q = weights([psi[0], psi[1]], psi[0], psi[1])
            u = first + p * values[0] + q * values[1]
        p, q = weights([psi[k - 1], psi[k]], psi[k], psi[k + 1])
        u = u + p * values[k - 1] + q * values[k]
    return u * sigma_data / math.cos(psi[-1])
'''),
        ("the first step apart, float32", '''
def angle_walk(F, sigma_data, x, levels):
    psi = torch.atan(levels / sigma_data)
    u = (x * torch.cos(psi[0]) / sigma_data).float()
    old = F(u, float(psi[0])).float()
    h_old = float(psi[0] - psi[1])
    end = u + h_old * old
    for k in range(1, len(psi) - 1):
        new = F(end, float(psi[k])).float()
        if k == 1:
            end = u + h_old * (old + new) / 2
        h = float(psi[k] - psi[k + 1])
        end = end + h * ((1 + h / (2 * h_old)) * new - h / (2 * h_old) * old)
        old, h_old = new, h
    return end * sigma_data / torch.cos(psi[-1]).float()
'''),
        ("in xbar between the steps", '''
def angle_walk(F, sigma_data, x, levels):
    r = [float(v) for v in levels]
    total = lambda v: math.sqrt(v * v + sigma_data**2)
    angle = lambda v: math.atan2(v, sigma_data)
    history, origin = [], x
    for now, then in zip(r[:-1], r[1:]):
        slope = -F(x / total(now), angle(now))                     # du / dpsi
        if len(history) == 1:
            a, s = history[0]
            x = total(now) * (origin / total(r[0]) + (angle(now) - a) * 0.5 * (s + slope))
        d = angle(then) - angle(now)
        step = d * slope
        if history:
            a, s = history[-1]
            step = step + d * d / 2 * (slope - s) / (angle(now) - a)
        history.append((angle(now), slope))
        x = total(then) * (x / total(now) + step)
    return x
'''),
    ],
    "ddim-width": [
        ("a loop over the factors", '''
def ddim_width(levels, ell):
    width = (ell**2 + float(levels[0]) ** 2) ** 0.5
    for now, then in zip(levels.tolist()[:-1], levels.tolist()[1:]):
        width *= 1 + (then - now) * now / (ell**2 + now**2)
    return width / (ell**2 + float(levels[-1]) ** 2) ** 0.5
'''),
        ("cosines without angles", '''
def ddim_width(levels, ell):
    size = (ell**2 + levels**2).sqrt()
    now, then = slice(None, -1), slice(1, None)
    inner = (ell**2 + levels[now] * levels[then]) / (size[now] * size[then])
    return inner.prod()
'''),
        ("the library's DDIM on one point", '''
def ddim_width(levels, ell):
    from diffusion_lib.exact import GaussianMixture
    data = GaussianMixture(torch.ones(1), torch.zeros(1, 1), torch.tensor([ell**2]))
    x = torch.tensor([[1.0]])
    end = final(ddim(ExactDenoiser(data, edm), edm, x, levels / 80))
    return float(end) * float(((ell**2 + levels[0] ** 2) / (ell**2 + levels[-1] ** 2)).sqrt())
'''),
    ],
    "best-levels": [
        ("a loop", '''
def best_levels(N, ell, top):
    last = math.atan2(top, ell)
    return torch.tensor([top] + [ell * math.tan(last * (N - k) / N) for k in range(1, N)] + [0.0])
'''),
        ("by complex numbers", '''
def best_levels(N, ell, top):
    turn = complex(ell, top) ** (1 / N)
    return torch.tensor([ell * (turn**k).imag / (turn**k).real for k in range(N, -1, -1)])
'''),
        ("by optimising", '''
def best_levels(N, ell, top):
    total = math.atan(top / ell)
    free = torch.zeros(N, requires_grad=True)
    optimizer = torch.optim.LBFGS([free], lr=0.5, max_iter=200, tolerance_grad=1e-12,
                                  tolerance_change=1e-15, line_search_fn="strong_wolfe")
    def loss():
        optimizer.zero_grad()
        value = -torch.cos(total * free.softmax(0)).log().sum()
        value.backward()
        return value
    optimizer.step(loss)
    with torch.no_grad():
        left = total * (1 - torch.cat([torch.zeros(1), free.softmax(0).cumsum(0)]))
    left[0], left[-1] = total, 0.0
    return ell * torch.tan(left)
'''),
    ],
    "order-from": [
        ("ratio of medians", '''
def order_from(walk, N):
    a, b, c = walk(N), walk(2 * N), walk(4 * N)
    size = lambda z: z.reshape(len(z), -1).square().sum(1).sqrt().median()
    return float(torch.log2(size(a - b) / size(b - c)))
'''),
        ("logs first, float32", '''
def order_from(walk, N):
    ends = [walk(k * N).flatten(1) for k in (1, 2, 4)]
    gaps = torch.stack([x - y for x, y in zip(ends, ends[1:])]).norm(dim=2).log().float()
    return (gaps[0] - gaps[1]).median() / math.log(2)
'''),
        ("numpy, fitted line", '''
def order_from(walk, N):
    import numpy as np
    x, y, z = (np.asarray(walk(n)) for n in (N, N + N, 4 * N))
    axes = tuple(range(1, x.ndim))
    gaps = [np.median(np.sqrt(((p - q) ** 2).sum(axis=axes))) for p, q in ((x, y), (y, z))]
    return -np.polyfit(np.log([N, 2 * N]), np.log(gaps), 1)[0]
'''),
    ],
    "orders": [
        ("numbers as printed", '''
exact_angle, network_angle, network_log = 1.85, 1.12, 1.85
'''),
        ("with fewer digits", '''
exact_angle, network_angle, network_log = 1.9, 1.1, 1.9
'''),
        ("a loop", '''
found = []
for F, size, start, grid in ((exact_F, size_M, start_M, lambda N: even_angle(N, 80, 0, size_M)),
                             (network_F, size_digits, start_80,
                              lambda N: even_angle(N, 80, 0, size_digits)),
                             (network_F, size_digits, start_5, lambda N: even_log(N, 5, 0.05))):
    found.append(order_from(lambda N: angle_walk(F, size, start, grid(N)), 24))
exact_angle, network_angle, network_log = found
'''),
    ],
}

_LOOK = '''
def second_look(level, tau, sigma_data):
    s, r, t = sigma_data**2, level**2, tau**2
    return %s
'''
_WEIGHT = '''
def angle_weight(level, sigma_data, p_mean, p_std):
    bell = torch.exp(-((level.log() - p_mean) ** 2) / (2 * p_std**2))
    bell = bell / (p_std * math.sqrt(2 * math.pi))
    total = sigma_data**2 + level**2
    even = 2 / math.pi * sigma_data * level / total
    inverse = total / (sigma_data * level) ** 2
    return %s
'''
_RATE = '''
def angle_rate(u, guess, psi, sigma_data):
    rho = sigma_data * math.tan(psi)
    xbar = u * sigma_data / math.cos(psi)
    slope = (xbar - guess) / rho
    return %s
'''
_WALK = '''
def angle_walk(F, sigma_data, x, levels):
    psi = [math.atan(float(level) / sigma_data) for level in levels]
    u, before = %(start)s, None
    for k in range(len(psi) - 1):
        now, h = %(sign)sF(u, %(angle)s), psi[k] - psi[k + 1]
        if k == 1 and %(again)s:
            u = first + (psi[0] - psi[1]) * (before + now) / 2
        first = u
        u = u + h * now
        if k > 0:
            u = u + %(second)s
        before = now
    return %(end)s
'''
_PARTS = {"start": "math.cos(psi[0]) / sigma_data * x", "angle": "psi[k]", "again": "True", "sign": "",
          "second": "h**2 / 2 * (now - before) / (psi[k - 1] - psi[k])", "end": "sigma_data / math.cos(psi[-1]) * u"}


def _walk(**change):
    return _WALK % (_PARTS | change)


_WIDTH = '''
def ddim_width(levels, ell):
    psi = torch.atan(levels / ell)
    return float(%s)
'''
_GRID = '''
def best_levels(N, ell, top):
    return %s
'''
_ORDER = '''
def order_from(walk, N):
    a, b, c = (walk(n).flatten(1) for n in (N, 2 * N, 4 * N))
    return float(%s)
'''

WRONG = {
    "second-look": [
        ("(7.7), the second look unused", _LOOK % "s / (s + r), 0 * level, (s * r / (s + r)).sqrt()", "not used"),
        ("two times (7.7)", _LOOK % "s / (s + r), s / (s + t) + 0 * level, (s * r / (s + r)).sqrt()", "mean square"),
        ("half and half", _LOOK % "0.5 * s / (s + r), 0.5 * s / (s + t) + 0 * level, ((1 - 0.5 * s / (s + r) - 0.5 * s / (s + t)) ** 2 * s"
         " + (0.5 * s / (s + r)) ** 2 * r + (0.5 * s / (s + t)) ** 2 * t).sqrt()", "principle 3"),
        ("c_out squared", _LOOK % "s * t / (s * t + s * r + r * t), s * r / (s * t + s * r + r * t), s * r * t / (s * t + s * r + r * t)", "its square"),
        ("the two looks for each other", _LOOK % "s * r / (s * t + s * r + r * t), s * t / (s * t + s * r + r * t), "
         "(s * r * t / (s * t + s * r + r * t)).sqrt()", "mean square"),
        ("unbiased: the weights add up to 1", _LOOK % "t / (r + t), r / (r + t), (r * t / (r + t)).sqrt()", "principle 3"),
        ("levels for variances", _LOOK % "s * tau / (s * tau + s * level + level * tau), s * level / (s * tau + s * level + level * tau), "
         "(s * level * tau / (s * tau + s * level + level * tau)).sqrt()", "mean square"),
        ("two of three", _LOOK % "s * t / (s * t + s * r + r * t), s * r / (s * t + s * r + r * t)", "three tensors"),
    ],
    "angle-weight": [
        ("(7.9) as it is", _WEIGHT % "inverse", "expected once"),
        ("no preconditioning in it", _WEIGHT % "bell / even", "1 / c_out^2"),
        ("bell over rho", _WEIGHT % "inverse * bell / level / even", "factor of rho"),
        ("no density of the angle", _WEIGHT % "inverse * bell", "even angles"),
        ("densities upside down", _WEIGHT % "inverse * even / bell", "expected once"),
        ("2 / pi forgotten", _WEIGHT % "inverse * bell / even * 2 / math.pi", "right one at every level"),
        ("bell not normalised", _WEIGHT % "inverse * bell * p_std * math.sqrt(2 * math.pi) / even", "right one at every level"),
        ("sigma_data = 1 in the angle", _WEIGHT % "inverse * bell * math.pi / 2 * (1 + level**2) / level", "expected once"),
    ],
    "angle-rate": [
        ("sign", _RATE % "(guess - math.cos(psi) * sigma_data * u) / (sigma_data * math.sin(psi))", "sign"),
        ("d xbar / d rho", _RATE % "slope", "d xbar / d rho"),
        ("c_in held fixed", _RATE % "math.cos(psi) / sigma_data * slope * sigma_data / math.cos(psi) ** 2", "c_in"),
        ("no d rho / d psi", _RATE % "-math.sin(psi) / sigma_data * xbar * math.cos(psi) ** 2 / sigma_data + math.cos(psi) / sigma_data * slope", "clock"),
        ("sigma_data forgotten", _RATE % "(math.cos(psi) * u - guess) / math.sin(psi)", "yours is"),
        ("skip path forgotten", _RATE % "-guess / (sigma_data * math.sin(psi))", "yours is"),
        ("x / alpha for u", _RATE % "(math.cos(psi) ** 2 * u - guess) / (sigma_data * math.sin(psi))", "yours is"),
    ],
    "angle-walk": [
        ("sign", _walk(sign="-"), "wrong way"),
        ("Euler", _walk(second="0", again="False"), "Euler"),
        ("first step of order 1", _walk(again="False"), "first step of order 1"),
        ("weights of equal steps", _walk(second="h / 2 * (now - before)"), "lengths"),
        ("lengths upside down", _walk(second="(psi[k - 1] - psi[k]) / 2 * (now - before)"), "lengths"),
        ("returns u", _walk(end="u"), "ends in u"),
        ("starts from xbar", _walk(start="x"), "Start from"),
        ("angle of the step's end", _walk(angle="psi[k + 1]"), "linear"),
        ("the level for the angle", _walk(angle="sigma_data * math.tan(psi[k])"), "linear"),
        ("Heun: two calls a step", '''
def angle_walk(F, sigma_data, x, levels):
    psi = [math.atan(float(level) / sigma_data) for level in levels]
    u = math.cos(psi[0]) / sigma_data * x
    for a, b in zip(psi[:-1], psi[1:]):
        first = F(u, a)
        u = u + (a - b) / 2 * (first + F(u + (a - b) * first, max(b, 1e-6)))
    return sigma_data / math.cos(psi[-1]) * u
''', "one call a step"),
        ("F frozen in u: right for F of psi alone", '''
def angle_walk(F, sigma_data, x, levels):
    psi = [math.atan(float(level) / sigma_data) for level in levels]
    u = begin = math.cos(psi[0]) / sigma_data * x
    values = []
    for k in range(len(psi) - 1):
        values.append(F(begin, psi[k]))
        h = psi[k] - psi[k + 1]
        if k == 0:
            u = u + h * values[0]
        else:
            g = psi[k - 1] - psi[k]
            if k == 1:
                u = begin + g * (values[0] + values[1]) / 2
            u = u + h * (values[k] + h / (2 * g) * (values[k] - values[k - 1]))
    return sigma_data / math.cos(psi[-1]) * u
''', "Gaussian"),
    ],
    "ddim-width": [
        ("variance", _WIDTH % "psi.diff().cos().prod() ** 2", "variance"),
        ("upside down", _WIDTH % "1 / psi.diff().cos().prod()", "upside down"),
        ("DDIM's own factor alone", _WIDTH % "(1 + levels.diff() * levels[:-1] / (ell**2 + levels[:-1] ** 2)).prod()", "exact flow"),
        ("exact: 1", _WIDTH % "1.0", "exact flow"),
        ("one step over the whole way", _WIDTH % "(psi[0] - psi[-1]).cos()", "exact flow"),
        ("sines", _WIDTH % "psi.diff().sin().abs().prod()", "exact flow"),
        ("angle for data of size 1", _WIDTH % "torch.atan(levels).diff().cos().prod()", "exact flow"),
        ("slope at the step's end", '''
def ddim_width(levels, ell):
    now, then = levels[:-1], levels[1:]
    factor = (1 + (then - now) * then / (ell**2 + then**2)).prod()
    return float(factor * ((ell**2 + levels[0] ** 2) / (ell**2 + levels[-1] ** 2)) ** 0.5)
''', "exact flow"),
    ],
    "best-levels": [
        ("even levels", _GRID % "torch.linspace(top, 0.0, N + 1)", "nearer to 1"),
        ("even in the logarithm, then 0", _GRID % "torch.cat([torch.logspace(math.log10(top), math.log10(0.002), N), torch.zeros(1)])", "nearer to 1"),
        ("EDM's grid", _GRID % "80 * time_grid(edm, N, 'karras', noise_max=top)", "nearer to 1"),
        ("asinh", _GRID % "ell * torch.sinh(torch.linspace(math.asinh(top / ell), 0.0, N + 1))", "nearer to 1"),
        ("angles of data of size 1", _GRID % "torch.tan(torch.linspace(math.atan(top), 0.0, N + 1))", "nearer to 1"),
        ("the angles themselves", _GRID % "torch.linspace(math.atan(top / ell), 0.0, N + 1)", "expected from"),
        ("N levels", _GRID % "ell * torch.tan(torch.linspace(math.atan(top / ell), 0.0, N))", "shape"),
        ("upwards", _GRID % "ell * torch.tan(torch.linspace(0.0, math.atan(top / ell), N + 1))", "goes from"),
    ],
    "order-from": [
        ("mean over the paths", _ORDER % "((a - b).norm(dim=1).mean() / (b - c).norm(dim=1).mean()).log2()", "median"),
        ("mean of the log ratios", _ORDER % "((a - b).norm(dim=1) / (b - c).norm(dim=1)).log2().mean()", "median"),
        ("norm of the whole batch", _ORDER % "((a - b).norm() / (b - c).norm()).log2()", "median"),
        ("median of the ends", _ORDER % "((a.median(0).values - b.median(0).values).norm() / "
         "(b.median(0).values - c.median(0).values).norm()).log2()", "for each path"),
        ("4N for the truth", _ORDER % "((a - c).norm(dim=1) / (b - c).norm(dim=1)).median().log2()", "taken for the truth"),
        ("natural logarithm", _ORDER % "((a - b).norm(dim=1) / (b - c).norm(dim=1)).median().log()", "base 2"),
        ("sign", _ORDER % "((b - c).norm(dim=1) / (a - b).norm(dim=1)).median().log2()", "sign"),
        ("squares", _ORDER % "((a - b).square().sum(1) / (b - c).square().sum(1)).median().log2()", "for each path"),
        ("wide differences", _ORDER % "((a - b).norm(dim=1) / (a - c).norm(dim=1)).median().log2()", "you find"),
        ("N for the truth", _ORDER % "((a - b).norm(dim=1) / (a - c).norm(dim=1)).median().log2().abs()", "you find"),
    ],
    "orders": [
        ("what the method promises", '''
exact_angle, network_angle, network_log = 2.0, 2.0, 2.0
''', "network_angle"),
        ("Euler's", '''
exact_angle, network_angle, network_log = 1.0, 1.0, 1.0
''', "exact_angle"),
        ("grids for each other", '''
exact_angle, network_angle, network_log = 1.85, 1.85, 1.12
''', "network_angle"),
        ("natural logarithms", '''
exact_angle, network_angle, network_log = 1.28, 0.78, 1.28
''', "exact_angle"),
        ("signs", '''
exact_angle, network_angle, network_log = -1.85, -1.12, -1.85
''', "exact_angle"),
    ],
}
