"""Right and wrong answers of chapter 8's coursework: the grader's tests."""

_DROPPED = '''

def dropped_nats(r, count, alpha, sigma):
    return 0.5 * count * math.log1p((r * alpha / sigma) ** 2)
'''

_PIXELS = '''
def pixel_denoiser(latent, latent_path, path, Q, b, s, r):
    def denoise(x, t):
        alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
        centred = x - alpha * b
        seen = centred @ Q
        at = latent_path.time_of_log_snr(path.log_snr(t) + math.log(s))
        z_t = latent_path.alpha(at)[:, None] * seen / (alpha * s)
        gain = alpha * r**2 / (alpha**2 * r**2 + sigma**2)
        return b + s * latent(z_t, at) @ Q.T + gain * (centred - seen @ Q.T)

    return denoise

'''

_LSGM = '''
def estimate(z0, schedule, v, tau, T, generator):
    ends = torch.tensor([tau, T], dtype=torch.float64)
    (alpha, alpha_T), (sigma, sigma_T) = schedule.alpha(ends), schedule.sigma(ends)
    first, last = (1 + v * (schedule.alpha(ends) / schedule.sigma(ends)) ** 2).log()
    y = last + (first - last) * torch.rand(len(z0), generator=generator, dtype=torch.float64)
    u = y.expm1() / v
    t = schedule.time_of_log_snr(0.5 * u.log())
    weight = (first - last) * (1 + v * u) / (2 * v * ON_X0["elbo"](schedule, t))
    D, V = z0.shape[1], alpha_T**2 * v + sigma_T**2
    square = z0.square().sum(1)
    rest = (0.5 * D * (2 * math.pi * V).log() + (alpha_T**2 * square + D * sigma_T**2) / (2 * V)
            - D * (sigma_T / sigma).log())
    return t, weight, rest
'''

_READINGS = '''
def readings(text):
    groups, found = parse(text).groups, {}
    shapes = [(g.number, g.shape) for g in groups]
    for sizes in set(itertools.permutations([g.size for g in groups])):
        for colours in set(itertools.permutations([g.colour for g in groups])):
            kinds = [(c, shape, z) for c, (_, shape), z in zip(colours, shapes, sizes)]
            if len(set(kinds)) < len(kinds):
                continue
            if any(held_out(*kind) for kind in kinds):
                continue
            meaning = frozenset((n, *kind) for (n, _), kind in zip(shapes, kinds))
            phrases = []
            for (number, shape), (colour, _, size) in zip(shapes, kinds):
                plural = "" if number == 1 else "es" if shape == "cross" else "s"
                number = ("a", "two", "three")[number - 1]
                phrases.append(f"{number} {size} {colour} {shape}{plural}")
            said = " and ".join(phrases[-2:])
            found[meaning] = said if len(phrases) < 3 else f"{phrases[0]}, {said}"
    return list(found.values())
'''

_BISECTION = '''
def best_code(variances, weights, nats):
    low, high = 0.0, float((weights * variances).max())
    for _ in range(100):
        level = (low + high) / 2
        spent = 0.5 * (weights * variances / level).log().clamp(min=0).sum()
        low, high = (level, high) if spent > nats else (low, level)
    return torch.minimum(variances, level / weights), 2 * level
'''


def _change(source: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert source.count(old) == 1, (source.count(old), old)
        source = source.replace(old, new)
    return source


RIGHT = {
    "water": [
        ("the active set, exactly", '''
def best_code(variances, weights, nats):
    worth, order = (weights * variances).sort(descending=True)
    for k in range(1, len(worth) + 1):
        log_level = (worth[:k].log().sum() - 2 * nats) / k
        if k == len(worth) or worth[k].log() <= log_level:
            break
    level = log_level.exp()
    return torch.where(weights * variances > level, level / weights, variances), 2 * level
'''),
        ("the source of an eye: scale each direction by sqrt(w), then (8.4)", '''
def best_code(variances, weights, nats):
    scaled = variances * weights
    low, high = -60.0, math.log(float(scaled.max()))
    while high - low > 1e-12:
        middle = 0.5 * (low + high)
        rate = sum(max(0.0, 0.5 * (math.log(v) - middle)) for v in scaled.tolist())
        if rate > nats:
            low = middle
        else:
            high = middle
    theta = math.exp(low)
    return [min(v, theta) / w for v, w in zip(scaled.tolist(), weights.tolist())], 2 * theta
'''),
        ("greedy: many small portions of rate, each where it saves most", '''
def best_code(variances, weights, nats):
    import heapq
    portion = nats / 30_000
    cost = [(-float(w * v), i) for i, (w, v) in enumerate(zip(weights, variances))]
    heapq.heapify(cost)
    keep = math.exp(-2 * portion)
    for _ in range(30_000):
        error, i = cost[0]
        heapq.heapreplace(cost, (error * keep, i))
    saved = -cost[0][0] * (1 - keep) / portion
    d = torch.empty_like(variances)
    for error, i in cost:
        d[i] = -error / weights[i]
    return d, saved
'''),
        ("float32 and a descending beta", '''
def best_code(variances, weights, nats):
    beta = torch.logspace(3, -6, 200_001)
    worth = (weights * variances).float()
    rate = sum(0.5 * (w / (beta / 2)).log().clamp(min=0) for w in worth)
    at = int(torch.searchsorted(rate, torch.tensor(float(nats))))
    return torch.minimum(variances, (beta[at] / 2) / weights), beta[at]
'''),
    ],
    "codebook": [
        ("sums of a geometric series", '''
def follow(decay, every, n):
    q = decay**every
    mean_age = q / (1 - q)
    squares = (1 - q) ** 2 / (1 - q**2)
    peak = (1 - decay) * n / (1 - q)
    return every * mean_age, squares, peak * q / decay
'''),
        ("hyperbolic", '''
def follow(decay, every, n):
    x = -every * math.log(decay)
    return (every / math.expm1(x), math.tanh(x / 2),
            n * (1 - decay) / decay / math.expm1(x))
'''),
        ("tensors", '''
def follow(decay, every, n):
    decay = torch.tensor(decay, dtype=torch.float64)
    q = decay**every
    return every / (1 / q - 1), (1 - q) / (1 + q), (1 - decay) * n * decay**(every - 1) / (1 - q)
'''),
    ],
    "pixels": [
        ("by the noise level, with matrices", '''
def pixel_denoiser(latent, latent_path, path, Q, b, s, r):
    P = torch.eye(len(b), dtype=Q.dtype) - Q @ Q.T

    def denoise(x, t):
        y = x / path.alpha(t)[:, None] - b                     # x_0 - b and noise of this level
        level = path.noise_level(t)
        at = latent_path.time_of_log_snr(-(level / s).log())
        z = latent(latent_path.alpha(at)[:, None] * (y @ Q) / s, at)
        wiener = (r**2 / (r**2 + level**2))[:, None]
        return b + s * (z @ Q.T) + wiener * (y @ P)

    return denoise


def dropped_nats(r, count, alpha, sigma):
    return count * math.log(math.hypot(sigma, r * alpha) / sigma)
'''),
        ("row by row", '''
def pixel_denoiser(latent, latent_path, path, Q, b, s, r):
    def denoise(x, t):
        rows = []
        for row, time in zip(x, t):
            alpha, sigma = path.alpha(time), path.sigma(time)
            coordinates = Q.T @ (row - alpha * b)
            moved = latent_path.time_of_log_snr((s * alpha / sigma).log())
            z_t = coordinates * latent_path.sigma(moved) / sigma
            z = latent(z_t[None], moved[None])[0]
            rest = row - alpha * b - Q @ coordinates
            rows.append(b + s * Q @ z + rest * alpha / (alpha**2 + (sigma / r) ** 2))
        return torch.stack(rows)
    return denoise


def dropped_nats(r, count, alpha, sigma):
    before, after = 1 / r**2, 1 / r**2 + alpha**2 / sigma**2
    return torch.tensor(count / 2 * math.log(after / before))
'''),
        ("the entropy of x_t less that of its noise", _PIXELS + '''
def dropped_nats(r, count, alpha, sigma):
    entropy = lambda variance: 0.5 * count * math.log(2 * math.pi * math.e * variance)
    return entropy(alpha**2 * r**2 + sigma**2) - entropy(sigma**2)
'''),
    ],
    "lsgm": [
        ("the variance of z_t over that of its noise; the prior's own density at T", '''
def estimate(z0, schedule, v, tau, T, generator):
    from diffusion_lib.exact import GaussianMixture

    def level(t):
        t = torch.as_tensor(t, dtype=torch.float64)
        return ((schedule.alpha(t) ** 2 * v + schedule.sigma(t) ** 2) / schedule.sigma(t) ** 2).log()

    share = torch.rand(len(z0), generator=generator, dtype=torch.float64)
    wanted = level(tau) + share * (level(T) - level(tau))
    low, high = torch.full_like(share, tau), torch.full_like(share, T)
    for _ in range(60):
        t = (low + high) / 2
        high, low = torch.where(level(t) < wanted, t, high), torch.where(level(t) < wanted, low, t)
    total = schedule.alpha(t) ** 2 * v + schedule.sigma(t) ** 2
    h = schedule.diffusion_sq(t) * schedule.alpha(t) ** 2 * v / (2 * schedule.sigma(t) ** 2 * total)
    weight = 0.5 * (level(tau) - level(T)) / h

    one, D = torch.ones(1, dtype=torch.float64), z0.shape[1]
    at_T = GaussianMixture(one, torch.zeros(1, D, dtype=torch.float64), v * one).marginal(schedule, T)
    alpha, sigma = (f(torch.tensor([tau, T], dtype=torch.float64)) for f in (schedule.alpha, schedule.sigma))
    V = alpha[1] ** 2 * v + sigma[1] ** 2
    rest = -at_T.log_prob(alpha[1] * z0) + 0.5 * D * sigma[1] ** 2 / V + D * (sigma[0].log() - sigma[1].log())
    return t, weight, rest
'''),
        ("KL and entropy at T", '''
def estimate(z0, schedule, v, tau, T, generator):
    import torch.distributions as laws
    time = lambda x: torch.tensor(x, dtype=torch.float64)
    snr = lambda x: torch.exp(2 * schedule.log_snr(time(x)))
    a, b = torch.log1p(v * snr(tau)), torch.log1p(v * snr(T))
    y = a - (a - b) * torch.rand(len(z0), generator=generator, dtype=torch.float64)
    t = schedule.time_of_log_snr((torch.expm1(y) / v).log() / 2)
    f, g2 = schedule.alpha(t), schedule.diffusion_sq(t)
    slope = v * g2 * f**2 / schedule.sigma(t) ** 4 / torch.exp(y)      # -d log(1 + v u) / dt
    q = laws.Normal(schedule.alpha(time(T)) * z0, schedule.sigma(time(T)))
    p = laws.Normal(torch.zeros_like(z0), (snr(T) * v + 1).sqrt() * schedule.sigma(time(T)))
    ce = laws.kl_divergence(q, p).sum(1) + q.entropy().expand_as(z0).sum(1)
    return t, (a - b) / slope, ce - z0.shape[1] * (schedule.sigma(time(T)) / schedule.sigma(time(tau))).log()
'''),
        ("times by a table, float32 times; loops for the rest", '''
def estimate(z0, schedule, v, tau, T, generator):
    grid = torch.linspace(math.log(tau), math.log(T), 400_001, dtype=torch.float64).exp().clamp(tau, T)
    y = torch.log1p(v * (schedule.alpha(grid) / schedule.sigma(grid)) ** 2).flip(0)      # rising
    wanted = y[0] + (y[-1] - y[0]) * torch.rand(len(z0), generator=generator, dtype=torch.float64)
    at = torch.searchsorted(y, wanted).clamp(1, len(y) - 1)
    share = (wanted - y[at - 1]) / (y[at] - y[at - 1])
    back = grid.flip(0)
    t = back[at - 1] + share * (back[at] - back[at - 1])
    error = v * schedule.sigma(t) ** 2 / (v * schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2)
    h = ON_X0["elbo"](schedule, t) * error
    weight = (y[-1] - y[0]) / 2 / h
    ends = torch.tensor([tau, T], dtype=torch.float64)
    a, s = float(schedule.alpha(ends)[1]), schedule.sigma(ends).tolist()
    V, rest = a * a * v + s[1] ** 2, []
    for row in z0.tolist():
        rest.append(sum(0.5 * math.log(2 * math.pi * V) + (a * a * z * z + s[1] ** 2) / (2 * V)
                        + math.log(s[0] / s[1]) for z in row))
    return t.float(), weight.float(), torch.tensor(rest)
'''),
    ],
    "readings": [
        ("put other words in their places", '''
def readings(text):
    found, said = words(text), {}
    where = {kind: [i for i, word in enumerate(found) if word in options]
             for kind, options in (("size", SIZES), ("colour", ("red green blue yellow purple "
                                                                "cyan white black").split()))}
    for p in itertools.permutations(where["size"]):
        for q in itertools.permutations(where["colour"]):
            new = list(found)
            for i, j in zip(where["size"] + where["colour"], p + q):
                new[i] = found[j]
            new = " ".join(new).replace(" ,", ",")
            groups = parse(new).groups
            kinds = {(g.colour, g.shape, g.size) for g in groups}
            if len(kinds) == len(groups) and all(held_out(*kind) is None for kind in kinds):
                said[frozenset(groups)] = new
    return list(said.values())
'''),
        ("all scenes of the right things, and those whose caption has the words", '''
def readings(text):
    groups = parse(text).groups
    numbers = sorted(g.number for g in groups)
    kinds = [kind for kind in itertools.product(sorted({g.colour for g in groups}),
             sorted({g.shape for g in groups}), sorted({g.size for g in groups}))
             if held_out(*kind) is None]
    found = {}
    for chosen in itertools.permutations(kinds, len(groups)):
        things = [Thing(*kind, 0.5, 0.5) for k, kind in zip(numbers, chosen) for _ in range(k)]
        said = captions([Scene(tuple(things))], plain=True)[0]
        if sorted(words(said)) == sorted(words(text)):
            found[frozenset(zip(numbers, chosen))] = said
    return tuple(found.values())
'''),
        ("permute the nouns as well, then drop what is the same", '''
def readings(text):
    groups = parse(text).groups
    seen, out = [], []
    for a in itertools.permutations(groups):
        for b in itertools.permutations(groups):
            for c in itertools.permutations(groups):
                new = {(x.number, x.shape, y.colour, z.size) for x, y, z in zip(a, b, c)}
                plain = {row[1:] for row in new}
                if len(plain) < len(groups) or new in seen:
                    continue
                if any(held_out(colour, shape, size) for shape, colour, size in plain):
                    continue
                seen.append(new)
                said = []
                for number, shape, colour, size in new:
                    noun = shape + {1: ""}.get(number, "es" if shape == "cross" else "s")
                    said.append(f"{['a', 'two', 'three'][number - 1]} {colour} {size} {noun}")
                out.append(", ".join(said[:-2] + [" and ".join(said[-2:])]))
    return out
'''),
    ],
    "paired": [
        ("variances and covariance", '''
def paired(a, b, gap):
    a, b = a.mean(1), b.mean(1)
    n = len(a)
    joint = torch.cov(torch.stack([a, b]))
    variance = (joint[0, 0] + joint[1, 1] - 2 * joint[0, 1]) / n
    return a.mean() - b.mean(), variance.clamp(min=0).sqrt(), math.ceil(9 * n * variance / gap**2)
'''),
        ("leave one caption out", '''
def paired(a, b, gap):
    d = (a - b).mean(1)
    n = len(d)
    without = (d.sum() - d) / (n - 1)
    se = ((n - 1) / n * (without - without.mean()).square().sum()).sqrt().item()
    return d.mean().item(), se, int(math.ceil((3 * se / gap) ** 2 * n))
'''),
        ("bootstrap of captions", '''
def paired(a, b, gap):
    d = (a - b).mean(1)
    rows = torch.randint(len(d), (400, len(d)), generator=torch.Generator().manual_seed(0))
    se = float(d[rows].mean(1).std())
    return float(d.mean()), se, math.ceil(len(d) * 9 * se**2 / gap**2)
'''),
        ("lists", '''
def paired(a, b, gap):
    d = [sum(x) / len(x) - sum(y) / len(y) for x, y in zip(a.tolist(), b.tolist())]
    m = sum(d) / len(d)
    s2 = sum((x - m) ** 2 for x in d) / (len(d) - 1)
    return m, (s2 / len(d)) ** 0.5, math.ceil(s2 / (gap / 3) ** 2)
'''),
    ],
}

WRONG = {
    "water": [
        ("(8.4) as it stands: one water level for all", _change(
            _BISECTION, ("(weights * variances / level)", "(variances / level)"), ("level / weights", "torch.full_like(weights, level)"),
            ("float((weights * variances).max())", "float(variances.max())")), "not the least weighted error"),
        ("multiplied by the weight", _change(
            _BISECTION, ("(weights * variances / level)", "(variances / weights / level)"), ("level / weights", "level * weights"),
            ("float((weights * variances).max())", "float((variances / weights).max())")), "not the least weighted error"),
        ("beta is the level", _change(_BISECTION, ("2 * level", "level")), "half"),
        ("rate in bits", _change(_BISECTION, (".log()", ".log2()")), "bits"),
        ("all directions are coded", '''
def best_code(variances, weights, nats):
    level = ((weights * variances).log().mean() - 2 * nats / len(weights)).exp()
    return level / weights, 2 * level
''', "larger than its direction's variance"),
        ("cut to the variance afterwards", '''
def best_code(variances, weights, nats):
    level = ((weights * variances).log().mean() - 2 * nats / len(weights)).exp()
    return torch.minimum(variances, level / weights), 2 * level
''', "the budget was"),
        ("log(variance / error) without its half", _change(_BISECTION, ("0.5 * (", "1.0 * (")), "the budget was"),
        ("the weight as a standard deviation", _change(
            _BISECTION, ("(weights * variances / level)", "(weights**2 * variances / level)"), ("level / weights", "level / weights**2"),
            ("float((weights * variances).max())", "float((weights**2 * variances).max())")), "not the least weighted error"),
    ],
    "codebook": [
        ("as if chosen in every batch", '''
def follow(decay, every, n):
    return decay / (1 - decay), (1 - decay) / (1 + decay), n
''', "every batch"),
        ("the lag in choices", '''
def follow(decay, every, n):
    q = decay**every
    return q / (1 - q), (1 - q) / (1 + q), (1 - decay) * n * q / decay / (1 - q)
''', "count all batches"),
        ("the newest batch is one round old", '''
def follow(decay, every, n):
    q = decay**every
    return every / (1 - q), (1 - q) / (1 + q), (1 - decay) * n * q / decay / (1 - q)
''', "0 batches old"),
        ("squares not divided by the sum", '''
def follow(decay, every, n):
    q = decay**every
    return every * q / (1 - q), 1 / (1 - q**2), (1 - decay) * n * q / decay / (1 - q)
''', "divided by their sum"),
        ("the newest weight alone", '''
def follow(decay, every, n):
    q = decay**every
    return every * q / (1 - q), 1 - q, (1 - decay) * n * q / decay / (1 - q)
''', "squares"),
        ("the peak of N", '''
def follow(decay, every, n):
    q = decay**every
    return every * q / (1 - q), (1 - q) / (1 + q), (1 - decay) * n / (1 - q)
''', "largest N"),
        ("the mean of N", '''
def follow(decay, every, n):
    q = decay**every
    return every * q / (1 - q), (1 - q) / (1 + q), n / every
''', "mean number"),
        ("N without the factor 1 - decay", '''
def follow(decay, every, n):
    q = decay**every
    return every * q / (1 - q), (1 - q) / (1 + q), n * q / decay / (1 - q)
''', "expected"),
        ("a wait too many", '''
def follow(decay, every, n):
    q = decay**every
    return every * q / (1 - q), (1 - q) / (1 + q), (1 - decay) * n * q / (1 - q)
''', "one batch too many"),
        ("the decay of 1 / decay rounds: p for the lag of one step", '''
def follow(decay, every, n):
    q = decay**every
    return every * decay / (1 - decay), (1 - q) / (1 + q), (1 - decay) * n * q / decay / (1 - q)
''', "lag at decay"),
    ],
    "pixels": [
        ("the time is not moved", _change(_PIXELS, (" + math.log(s)", "")) + _DROPPED, "With s = 2.5"),
        ("moved the other way", _change(_PIXELS, (" + math.log(s)", " - math.log(s)")) + _DROPPED, "With s = 2.5"),
        ("twice the shift: the full log-SNR", _change(_PIXELS, (" + math.log(s)", " + 2 * math.log(s)")) + _DROPPED, "With s = 2.5"),
        ("b without alpha", _change(_PIXELS, ("x - alpha * b", "x - b")) + _DROPPED, "how much of b"),
        ("dropped directions set to zero", _change(_PIXELS, (" + gain * (centred - seen @ Q.T)", "")) + _DROPPED, "set to zero"),
        ("dropped directions left as they came", _change(_PIXELS, (" + gain * (", " + (")) + _DROPPED, "outside the decoder's range is wrong"),
        ("dropped directions without alpha", _change(_PIXELS, ("gain = alpha * r**2", "gain = r**2")) + _DROPPED,
         "outside the decoder's range is wrong"),
        ("the pixels' time for the latents", _change(
            _PIXELS, ("latent_path.time_of_log_snr(path.log_snr(t) + math.log(s))", "path.time_of_log_snr(path.log_snr(t) + math.log(s))")) + _DROPPED,
         "straight line"),
        ("the pixels' alpha at the latents' time", _change(_PIXELS, ("latent_path.alpha(at)", "path.alpha(at)")) + _DROPPED, "straight line"),
        ("the latent is not scaled", _change(_PIXELS, ("seen / (alpha * s)", "seen / alpha")) + _DROPPED, "With s = 2.5"),
        ("not scaled to the latents' alpha", _change(_PIXELS, ("latent_path.alpha(at)[:, None] * seen / (alpha * s)", "seen / s")) + _DROPPED,
         "With s = 2.5"),
        ("the guess is not scaled", _change(_PIXELS, ("b + s * latent", "b + latent")) + _DROPPED, "is the guess multiplied by s?"),
        ("the rate of (8.4)", _PIXELS + '''
def dropped_nats(r, count, alpha, sigma):
    return 0.5 * count * math.log(max((r * alpha / sigma) ** 2, 1e-30))
''', "water"),
        ("log-SNR for half", _PIXELS + '''
def dropped_nats(r, count, alpha, sigma):
    return count * math.log1p((r * alpha / sigma) ** 2)
''', "twice"),
        ("in bits", _PIXELS + '''
def dropped_nats(r, count, alpha, sigma):
    return 0.5 * count * math.log2(1 + (r * alpha / sigma) ** 2)
''', "bits"),
        ("one direction", _PIXELS + '''
def dropped_nats(r, count, alpha, sigma):
    return 0.5 * math.log1p((r * alpha / sigma) ** 2)
''', "count"),
        ("alpha taken for 1", _PIXELS + '''
def dropped_nats(r, count, alpha, sigma):
    return 0.5 * count * math.log1p((r / sigma) ** 2)
''', "expected"),
        ("the signal's scale not squared", _PIXELS + '''
def dropped_nats(r, count, alpha, sigma):
    return 0.5 * count * math.log1p(r * alpha / sigma)
''', "expected"),
        ("the integral's other end: minus what is still to come", _PIXELS + '''
def dropped_nats(r, count, alpha, sigma):
    return -0.5 * count * math.log1p((r * alpha / sigma) ** 2)
''', "sign"),
    ],
    "lsgm": [
        ("(8.19): log sigma^2 uniform", '''
def estimate(z0, schedule, v, tau, T, generator):
    ends = torch.tensor([tau, T], dtype=torch.float64)
    low, high = schedule.sigma(ends).log()
    y = low + (high - low) * torch.rand(len(z0), generator=generator, dtype=torch.float64)
    a, b = torch.full_like(y, tau), torch.full_like(y, T)
    for _ in range(60):
        t = (a + b) / 2
        a, b = torch.where(schedule.sigma(t).log() < y, t, a), torch.where(schedule.sigma(t).log() < y, b, t)
    weight = (high - low) * schedule.sigma(t) / schedule.sigma_dot(t)
    return t, weight, _rest(z0, schedule, v, tau, T)


def _rest(z0, schedule, v, tau, T):
''' + _LSGM.split("\n", 2)[2].replace("torch.rand(len(z0), generator=generator, dtype=torch.float64)", "0.5").replace(
            "return t, weight, rest", "return rest"), "vary by"),
        ("log-SNR uniform", _change(_LSGM, (".log()\n    y = last", ".log()\n    first, last = 2 * schedule.log_snr(ends)\n    y = last"),
                                    ("u = y.expm1() / v", "u = y.exp()"), ("(first - last) * (1 + v * u) / (2 * v *", "(first - last) * u / (2 *")), "vary by"),
        ("v left out", _change(_LSGM, ("(1 + v * (schedule.alpha(ends)", "(1 + 1 * (schedule.alpha(ends)"), ("u = y.expm1() / v", "u = y.expm1()"),
                               ("(1 + v * u) / (2 * v * ON", "(1 + u) / (2 * ON")), "vary by"),
        ("v as a standard deviation", _change(
            _LSGM, ("(1 + v * (schedule.alpha(ends)", "(1 + v**2 * (schedule.alpha(ends)"), ("u = y.expm1() / v", "u = y.expm1() / v**2"),
            ("(1 + v * u) / (2 * v * ON", "(1 + v**2 * u) / (2 * v**2 * ON")), "vary by"),
        ("uniform times", _change(_LSGM, ("    t = schedule.time_of_log_snr(0.5 * u.log())\n",
                                          "    t = tau + (T - tau) * torch.rand(len(z0), generator=generator, dtype=torch.float64)\n"),
                                  ("(first - last) * (1 + v * u) / (2 * v * ON_X0[\"elbo\"](schedule, t))", "torch.full_like(t, T - tau)")), "vary by"),
        ("the library's convention of weights", _change(
            _LSGM, ("weight = (first - last)", "weight = 1 / (T - tau) * (first - last)")), "length of the range"),
        ("the density for the weight", _change(_LSGM, ("weight = (first - last) * (1 + v * u) / (2 * v * ON_X0[\"elbo\"](schedule, t))",
                                                       "weight = 2 * v * ON_X0[\"elbo\"](schedule, t) / ((first - last) * (1 + v * u))")), "1 over the density"),
        ("log_snr taken for the full log-SNR", _change(_LSGM, ("0.5 * u.log()", "u.log()")), "density"),
        ("the ends of (8.16)", _change(_LSGM, (
            "    return t, weight, rest\n", '''    rest = 0.5 * (alpha_T**2 * square + D * (sigma_T**2 - 1 - 2 * sigma_T.log()))
    rest = rest + 0.5 * D * (2 * math.pi * math.e * sigma**2).log()
    return t, weight, rest
''')), "N(0, I)"),
        ("the prior at T is the prior at 0", _change(_LSGM, ("V = z0.shape[1], alpha_T**2 * v + sigma_T**2", "V = z0.shape[1], torch.tensor(v)")), "integral + rest"),
        ("the noise of q at T left out", _change(_LSGM, ("alpha_T**2 * square + D * sigma_T**2", "alpha_T**2 * square")), "the same"),
        ("the logarithm of the ends turned round", _change(_LSGM, ("- D * (sigma_T / sigma).log()", "+ D * (sigma_T / sigma).log()")), "the same"),
        ("one dimension's logarithm", _change(_LSGM, ("- D * (sigma_T / sigma)", "- (sigma_T / sigma)")), "the same"),
        ("2 pi forgotten", _change(_LSGM, ("(2 * math.pi * V)", "V")), "the same"),
        ("z_0 without alpha", _change(_LSGM, ("(alpha_T**2 * square", "(square")), "term with z_0"),
    ],
    "readings": [
        ("what is held out is forgotten", _change(
            _READINGS, ("            if any(held_out(*kind) for kind in kinds):\n                continue\n", "")), "held out"),
        ("equal things twice", _change(
            _READINGS, ("            if len(set(kinds)) < len(kinds):\n                continue\n", "")), "equal things twice"),
        ("colours alone change places", _change(
            _READINGS, ("set(itertools.permutations([g.size for g in groups]))", "[[g.size for g in groups]]")), "expected"),
        ("sizes go with their colours", '''
def readings(text):
    groups, found = parse(text).groups, {}
    for order in itertools.permutations(groups):
        new = [(g.number, o.size, o.colour, g.shape) for g, o in zip(groups, order)]
        kinds = {row[1:] for row in new}
        if len(kinds) < len(new) or any(held_out(c, s, z) for z, c, s in kinds):
            continue
        said = [f"{('a', 'two', 'three')[n - 1]} {z} {c} {s}"
                + ("" if n == 1 else "es" if s == "cross" else "s") for n, z, c, s in new]
        found[frozenset(new)] = ", ".join(said[:-2] + [" and ".join(said[-2:])])
    return list(found.values())
''', "expected"),
        ("the order of the phrases counts", '''
def readings(text):
    groups, out = parse(text).groups, []
    for z in set(itertools.permutations([g.size for g in groups])):
        for c in set(itertools.permutations([g.colour for g in groups])):
            for g in set(itertools.permutations([(g.number, g.shape) for g in groups])):
                new = list(zip(g, c, z))
                kinds = {(cc, s, zz) for (_, s), cc, zz in new}
                if len(kinds) < len(new) or any(held_out(*kind) for kind in kinds):
                    continue
                said = [f"{('a', 'two', 'three')[n - 1]} {zz} {cc} {s}"
                        + ("" if n == 1 else "es" if s == "cross" else "s") for (n, s), cc, zz in new]
                out.append(", ".join(said[:-2] + [" and ".join(said[-2:])]))
    return out
''', "mean the same"),
        ("the same reading several times", '''
def readings(text):
    groups, out = parse(text).groups, []
    for z in itertools.permutations([g.size for g in groups]):
        for c in itertools.permutations([g.colour for g in groups]):
            new = list(zip(groups, c, z))
            kinds = {(cc, g.shape, zz) for g, cc, zz in new}
            if len(kinds) < len(new) or any(held_out(*kind) for kind in kinds):
                continue
            said = [f"{('a', 'two', 'three')[g.number - 1]} {zz} {cc} {g.shape}"
                    + ("" if g.number == 1 else "es" if g.shape == "cross" else "s") for g, cc, zz in new]
            out.append(", ".join(said[:-2] + [" and ".join(said[-2:])]))
    return out
''', "mean the same"),
        ("the number leaves its noun", '''
def readings(text):
    groups, found = parse(text).groups, {}
    for n in set(itertools.permutations([g.number for g in groups])):
        for z in set(itertools.permutations([g.size for g in groups])):
            for c in set(itertools.permutations([g.colour for g in groups])):
                new = [(k, zz, cc, g.shape) for k, zz, cc, g in zip(n, z, c, groups)]
                kinds = {row[1:] for row in new}
                if len(kinds) < len(new) or any(held_out(cc, s, zz) for zz, cc, s in kinds):
                    continue
                said = [f"{('a', 'two', 'three')[k - 1]} {zz} {cc} {s}"
                        + ("" if k == 1 else "es" if s == "cross" else "s") for k, zz, cc, s in new]
                found[frozenset(new)] = ", ".join(said[:-2] + [" and ".join(said[-2:])])
    return list(found.values())
''', "has not the words"),
        ("the caption itself is left out", _change(
            _READINGS, ("    return list(found.values())", "    own = frozenset((g.number, g.colour, g.shape, g.size) for g in groups)\n"
                        "    return [said for meaning, said in found.items() if meaning != own]")), "missing"),
        ("their number", _change(_READINGS, ("    return list(found.values())", "    return len(found)")), "expected a list"),
    ],
    "paired": [
        ("all pictures independent", '''
def paired(a, b, gap):
    d = (a - b).flatten()
    se = float(d.std()) / len(d) ** 0.5
    return float(d.mean()), se, math.ceil(len(a) * 9 * se**2 / gap**2)
''', "too small"),
        ("binomial, of all pictures", '''
def paired(a, b, gap):
    p, q, n = a.mean(), b.mean(), a.numel()
    se = float((p * (1 - p) + q * (1 - q)) / n) ** 0.5
    return float(p - q), se, math.ceil(len(a) * 9 * se**2 / gap**2)
''', "too small"),
        ("by caption, and not paired", '''
def paired(a, b, gap):
    a, b = a.mean(1), b.mean(1)
    se = float((a.var() + b.var()) / len(a)) ** 0.5
    return float(a.mean() - b.mean()), se, math.ceil(len(a) * 9 * se**2 / gap**2)
''', "too large"),
        ("paired, over the draws", '''
def paired(a, b, gap):
    d = (a - b).mean(0)
    se = float(d.std()) / len(d) ** 0.5
    return float(d.mean()), se, math.ceil(len(a) * 9 * se**2 / gap**2)
''', "too small"),
        ("the first draw alone", '''
def paired(a, b, gap):
    d = (a - b)[:, 0]
    se = float(d.std()) / len(d) ** 0.5
    return float((a - b).mean()), se, math.ceil(len(d) * 9 * se**2 / gap**2)
''', "too large"),
        ("the standard deviation", '''
def paired(a, b, gap):
    d = (a - b).mean(1)
    se = float(d.std())
    return float(d.mean()), se, math.ceil(len(d) * 9 * se**2 / gap**2)
''', "too large"),
        ("b minus a", '''
def paired(a, b, gap):
    d = (b - a).mean(1)
    se = float(d.std()) / len(d) ** 0.5
    return float(d.mean()), se, math.ceil(len(d) * 9 * se**2 / gap**2)
''', "sign"),
        ("an error that falls as 1 / N", '''
def paired(a, b, gap):
    d = (a - b).mean(1)
    se = float(d.std()) / len(d) ** 0.5
    return float(d.mean()), se, math.ceil(len(d) * 3 * se / gap)
''', "3 was asked"),
        ("an error of the gap itself", '''
def paired(a, b, gap):
    d = (a - b).mean(1)
    se = float(d.std()) / len(d) ** 0.5
    return float(d.mean()), se, math.ceil(len(d) * (se / gap) ** 2)
''', "3 was asked"),
        ("pictures for captions", '''
def paired(a, b, gap):
    d = (a - b).mean(1)
    se = float(d.std()) / len(d) ** 0.5
    return float(d.mean()), se, math.ceil(a.numel() * 9 * se**2 / gap**2)
''', "3 was asked"),
        ("rounded down", '''
def paired(a, b, gap):
    d = (a - b).mean(1)
    se = float(d.std()) / len(d) ** 0.5
    return float(d.mean()), se, len(d) * 9 * se**2 / gap**2
''', "whole number"),
    ],
}
