"""Right and wrong answers of chapter 3's coursework: the grader's tests."""

PARTS = {
    "step": [
        ("coefficients of x_t, x_0 and y", '''
def bridge_step(x_t, x0, y, t, s, tau, eta, z):
    sigma = lambda u: tau * (u * (1 - u)) ** 0.5
    if s == 0:
        return x0.clone()
    ratio = 0.0 if t == 1 else (sigma(s) / (1 - s)) / (sigma(t) / (1 - t))
    c = sigma(s) * (1 - ratio**2) ** 0.5 * (1.0 if t == 1 else eta)
    a = 0.0 if t == 1 else max(sigma(s) ** 2 - c**2, 0.0) ** 0.5 / sigma(t)
    b, g = (1 - s) - a * (1 - t), s - a * t
    return a * x_t + b * x0 + g * y + c * z
'''),
        ("the correlation of the noises", '''
def bridge_step(x_t, x0, y, t, s, tau, eta, z):
    sigma_s = tau * math.sqrt(s * (1 - s))
    if t >= 1:
        eps_s = z
    else:
        markov = s * (1 - t) / (t * (1 - s))
        r = math.sqrt(1 - eta**2 * (1 - markov))
        eps_t = (x_t - (1 - t) * x0 - t * y) / (tau * math.sqrt(t * (1 - t)))
        eps_s = r * eps_t + math.sqrt(max(0.0, 1 - r**2)) * z
    return (1 - s) * x0 + s * y + sigma_s * eps_s
'''),
        ("tensors, float32", '''
def bridge_step(x_t, x0, y, t, s, tau, eta, z):
    x_t, x0, y, z = (v.float() for v in (x_t, x0, y, z))
    mean = torch.lerp(x0, y, s)
    if t == 1.0:
        return mean + tau * (s - s * s) ** 0.5 * z
    noise = (x_t - torch.lerp(x0, y, t)) / (tau * (t - t * t) ** 0.5)
    fresh = (eta * tau) ** 2 * s * (t - s) / t
    return mean + (tau**2 * (s - s * s) - fresh) ** 0.5 * noise + fresh**0.5 * z
'''),
        ("the scaled state", '''
def bridge_step(x_t, x0, y, t, s, tau, eta, z):
    rho = lambda u: math.inf if u == 1 else tau * math.sqrt(u / (1 - u))
    if t == 1:
        return (1 - s) * (x0 + rho(s) * z) + s * y
    xbar = (x_t - t * y) / (1 - t)
    eps = (xbar - x0) / rho(t)
    fresh = eta * rho(s) * math.sqrt(1 - (rho(s) / rho(t)) ** 2)
    return (1 - s) * (x0 + math.sqrt(rho(s) ** 2 - fresh**2) * eps + fresh * z) + s * y
'''),
    ],
    "guess": [
        ("weights of the two", '''
def guess(mixture, x_t, y, t, tau, spread):
    if t == 1:
        return denoise(mixture, y, spread)
    rho = tau * math.sqrt(t / (1 - t))
    share = spread**2 / (spread**2 + rho**2)
    m = share * (x_t - t * y) / (1 - t) + (1 - share) * y
    return denoise(mixture, m, rho * spread / math.hypot(rho, spread))
'''),
        ("the least squares of both, as one linear system", '''
def guess(mixture, x_t, y, t, tau, spread):
    # x_t - t y = (1 - t) x_0 + sigma eps and y = x_0 + spread n
    sigma_sq = tau**2 * t * (1 - t)
    gain = torch.tensor([(1 - t) / sigma_sq if t < 1 else 0.0, 1 / spread**2], dtype=torch.float64)
    precision = gain @ torch.tensor([1 - t, 1.0], dtype=torch.float64)
    m = (gain[0] * (x_t - t * y) + gain[1] * y) / precision
    return denoise(mixture, m, float(precision**-0.5))
'''),
        ("a loop over the rows", '''
def guess(mixture, x_t, y, t, tau, spread):
    rows = []
    for x_i, y_i in zip(x_t, y):
        total, weight = y_i / spread**2, spread**-2
        if t < 1.0:
            w = (1 - t) / (tau**2 * t)
            total, weight = total + w * (x_i - t * y_i) / (1 - t), weight + w
        rows.append(denoise(mixture, (total / weight)[None], weight**-0.5)[0])
    return torch.stack(rows)
'''),
    ],
    "walk": [
        ("a loop with an index", '''
def walk(mixture, y, times, tau, spread, eta, generator):
    x = y.clone()
    for i in range(len(times) - 1):
        t, s = float(times[i]), float(times[i + 1])
        z = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        x = bridge_step(x, guess(mixture, x, y, t, tau, spread), y, t, s, tau, eta, z)
    return x
'''),
        ("noise only where it is needed", '''
def walk(mixture, y, times, tau, spread, eta, generator):
    times = [float(t) for t in times]
    x = y
    for t, s in zip(times[:-1], times[1:]):
        needed = s > 0 and (eta > 0 or t == 1)
        z = torch.randn(y.shape, generator=generator, dtype=y.dtype) if needed else torch.zeros_like(y)
        x = bridge_step(x, guess(mixture, x, y, t, tau, spread), y, t, s, tau, eta, z)
    return x
'''),
        ("without the earlier tasks", '''
def walk(mixture, y, times, tau, spread, eta, generator):
    x, times = y, times.tolist()
    for t, s in zip(times, times[1:]):
        if t == 1:
            level, m = spread, y
        else:
            rho = tau * (t / (1 - t)) ** 0.5
            xbar = (x - t * y) / (1 - t)
            level = (1 / spread**2 + 1 / rho**2) ** -0.5
            m = level**2 * (y / spread**2 + xbar / rho**2)
        x0 = mixture.denoise(m, level / EDM.sigma_max, EDM)
        z = torch.randn(y.shape, generator=generator, dtype=torch.float64)
        rho_s = tau * (s / (1 - s)) ** 0.5
        if t == 1:
            bar = x0 + rho_s * z
        else:
            kappa = rho_s / rho
            c = eta * rho_s * (1 - kappa**2) ** 0.5
            bar = x0 + (rho_s**2 - c**2) ** 0.5 * (xbar - x0) / rho + c * z
        x = (1 - s) * bar + s * y
    return x
'''),
        ("recursion", '''
def walk(mixture, y, times, tau, spread, eta, generator, x=None):
    x = y if x is None else x
    if len(times) == 1:
        return x
    t, s = times[0].item(), times[1].item()
    z = torch.randn(len(y), y.shape[1], generator=generator, dtype=torch.float64)
    x = bridge_step(x, guess(mixture, x, y, t, tau, spread), y, t, s, tau, eta, z)
    return walk(mixture, y, times[1:], tau, spread, eta, generator, x)
'''),
    ],
    "kept": [
        ("a loop over angles", '''
def kept(times, tau, spread, ell):
    std = spread * ell / math.sqrt(spread**2 + ell**2)
    angles = [math.pi / 2 if t == 1 else math.atan(tau * math.sqrt(t / (1 - t)) / std) for t in times.tolist()]
    share = 1.0
    for upper, lower in zip(angles, angles[1:]):
        share *= math.cos(upper - lower) ** 2
    return share
'''),
        ("the recursion of the variance", '''
def kept(times, tau, spread, ell):
    v, V = 1 / (spread**-2 + ell**-2), 0.0
    grid = times.tolist()
    for t, s in zip(grid, grid[1:]):
        sigma_s = tau * math.sqrt(s * (1 - s))
        if t == 1:
            V = sigma_s**2
            continue
        sigma_t = tau * math.sqrt(t * (1 - t))
        gain = (1 - t) * v / ((1 - t) ** 2 * v + sigma_t**2)
        V = ((1 - s) * gain + sigma_s / sigma_t * (1 - (1 - t) * gain)) ** 2 * V
    return V / v
'''),
        ("atan2, logarithms", '''
def kept(times, tau, spread, ell):
    precision = 1 / spread**2 + 1 / ell**2
    phi = torch.atan2(tau * times.sqrt() * precision**0.5, (1 - times).sqrt())
    return torch.exp(2 * phi.diff().cos().log().sum())
'''),
    ],
    "best-times": [
        ("through the noise level", '''
def best_times(steps, tau, spread, ell):
    std = (1 / spread**2 + 1 / ell**2) ** -0.5
    times = [1.0]
    for i in range(1, steps):
        rho = std * math.tan(math.pi / 2 * (1 - i / steps))
        times.append(rho**2 / (rho**2 + tau**2))
    return torch.tensor([*times, 0.0], dtype=torch.float64)
'''),
        ("cat", '''
def best_times(steps, tau, spread, ell):
    v = spread**2 * ell**2 / (spread**2 + ell**2)
    angle = torch.linspace(math.pi / 2, 0, steps + 1, dtype=torch.float64)[1:-1]
    inner = 1 / (1 + tau**2 / (v * angle.tan() ** 2))
    return torch.cat([torch.ones(1), inner, torch.zeros(1)])
'''),
        ("bisection in t", '''
def best_times(steps, tau, spread, ell):
    v = 1 / (1 / spread**2 + 1 / ell**2)
    times = [1.0]
    for i in range(1, steps):
        low, high, wanted = 0.0, 1.0, math.pi / 2 * (1 - i / steps)
        for _ in range(60):
            t = (low + high) / 2
            low, high = (t, high) if math.atan(tau * math.sqrt(t / (1 - t) / v)) < wanted else (low, t)
        times.append(low)
    return torch.tensor([*times, 0.0], dtype=torch.float64)
'''),
    ],
    "best-tau": [
        ("the root of the variance", '''
def best_tau(spread, ell):
    return (1 / (1 / spread**2 + 1 / ell**2)) ** 0.5
'''),
        ("a search with kept", '''
def best_tau(spread, ell):
    even = torch.linspace(1, 0, 6, dtype=torch.float64)
    low, high = math.log(1e-2), math.log(1e2)
    for _ in range(100):
        a, b = low + 0.382 * (high - low), low + 0.618 * (high - low)
        if kept(even, math.exp(a), spread, ell) > kept(even, math.exp(b), spread, ell):
            high = b
        else:
            low = a
    return math.exp((low + high) / 2)
'''),
        ("a tensor", '''
def best_tau(spread, ell):
    precision = torch.tensor([spread, ell], dtype=torch.float64).pow(-2).sum()
    return precision.rsqrt()
'''),
    ],
    "encode": [
        ("a fixed number of turns", '''
def encode(net, x0, y, times, tau):
    rho = lambda t: tau * (t / (1 - t)) ** 0.5
    grid = times.tolist()[::-1]
    bar = x0
    for s, t in zip(grid[:-1], grid[1:]):
        x_up = bar
        for _ in range(300):
            eps = (x_up - net((1 - t) * x_up + t * y, y, t)) / rho(t)
            x_up = bar + (rho(t) - rho(s)) * eps
        bar = x_up
    return (1 - grid[-1]) * bar + grid[-1] * y
'''),
        ("damped turns", '''
def encode(net, x0, y, times, tau):
    grid = list(reversed(times.tolist()))
    x = x0
    for s, t in zip(grid, grid[1:]):
        lower = (x - s * y) / (1 - s)
        share = 1 - math.sqrt(s * (1 - t) / (t * (1 - s)))            # 1 - rho_s / rho_t
        upper = lower.clone()
        for _ in range(600):
            upper = 0.3 * upper + 0.7 * (lower + share * (upper - net((1 - t) * upper + t * y, y, t)))
        x = (1 - t) * upper + t * y
    return x
'''),
        ("Newton's method, entry by entry", '''
def encode(net, x0, y, times, tau):
    x, up = x0, times.flip(0).tolist()
    for s, t in zip(up, up[1:]):
        keep = math.sqrt(s * (1 - s) / (t * (1 - t)))

        def step_down(u):
            guess_of = net(u, y, t)
            return (1 - s) * guess_of + s * y + keep * (u - (1 - t) * guess_of - t * y)

        u = x.clone()
        for _ in range(50):
            gap = step_down(u) - x
            slope = (step_down(u + 1e-5) - step_down(u - 1e-5)) / 2e-5
            u = u - gap / slope
        x = u
    return x
'''),
    ],
    "noise": [
        ("computed without draws", '''
def share(tau, v=1 / (1 / 0.36 + 1 / 0.64)):
    grid, V = torch.linspace(1, 0, 11, dtype=torch.float64).tolist(), 0.0
    for t, s in zip(grid, grid[1:]):
        gain = (1 - t) * v / ((1 - t) ** 2 * v + tau**2 * t * (1 - t)) if t < 1 else 0.0
        a, b = s / t, 1 - s / t
        V = (a + b * gain) ** 2 * V + tau**2 * s * (t - s) / t
    return V / v


kept_thin, kept_wide = share(0.24), share(0.96)
'''),
        ("measured with another y and seed", '''
y = torch.full((60_000, 1), -1.0, dtype=torch.float64)
kept_thin, kept_wide = (
    (walk(normal_data(0.0, 0.6), y, torch.linspace(1, 0, 11, dtype=torch.float64), tau, 0.8, 1.0,
          torch.Generator().manual_seed(123)).var() / 0.2304).item() for tau in (0.24, 0.96))
'''),
        ("typed", '''
kept_thin = 0.68
kept_wide = 0.56
'''),
    ],
}

WRONG_PARTS = {
    "step": [
        ("the chapter's step: y is forgotten", '''
def bridge_step(x_t, x0, y, t, s, tau, eta, z):
    sigma = lambda u: tau * math.sqrt(u * (1 - u))
    if t == 1:
        return (1 - s) * x0 + s * y + sigma(s) * z
    ratio = (sigma(s) / (1 - s)) / (sigma(t) / (1 - t))
    c = eta * sigma(s) * math.sqrt(1 - ratio**2)
    eps_t = (x_t - (1 - t) * x0) / sigma(t)
    return (1 - s) * x0 + math.sqrt(sigma(s) ** 2 - c**2) * eps_t + c * z
''', "factor"),
        ("y in the mean, but not in eps_t", '''
def bridge_step(x_t, x0, y, t, s, tau, eta, z):
    sigma = lambda u: tau * math.sqrt(u * (1 - u))
    mean = (1 - s) * x0 + s * y
    if t == 1:
        return mean + sigma(s) * z
    c = eta * tau * math.sqrt(s * (t - s) / t)
    return mean + math.sqrt(sigma(s) ** 2 - c**2) * (x_t - (1 - t) * x0) / sigma(t) + c * z
''', "in eps_t"),
        ("the ratio of sigmas, not of noise levels", '''
def bridge_step(x_t, x0, y, t, s, tau, eta, z):
    sigma = lambda u: tau * math.sqrt(u * (1 - u))
    mean = (1 - s) * x0 + s * y
    if t == 1:
        return mean + sigma(s) * z
    c = eta * sigma(s) * math.sqrt(max(0.0, 1 - (sigma(s) / sigma(t)) ** 2))
    return mean + math.sqrt(sigma(s) ** 2 - c**2) * (x_t - (1 - t) * x0 - t * y) / sigma(t) + c * z
''', "way up"),
        ("all of eps_t is kept and noise added", '''
def bridge_step(x_t, x0, y, t, s, tau, eta, z):
    sigma = lambda u: tau * math.sqrt(u * (1 - u))
    mean = (1 - s) * x0 + s * y
    if t == 1:
        return mean + sigma(s) * z
    c = eta * tau * math.sqrt(s * (t - s) / t)
    return mean + sigma(s) * (x_t - (1 - t) * x0 - t * y) / sigma(t) + c * z
''', "variance"),
        ("a division by zero at t = 1", '''
def bridge_step(x_t, x0, y, t, s, tau, eta, z):
    sigma = lambda u: tau * math.sqrt(u * (1 - u))
    c = eta * tau * math.sqrt(s * (t - s) / t)
    eps_t = (x_t - (1 - t) * x0 - t * y) / torch.tensor(sigma(t), dtype=x_t.dtype)
    return (1 - s) * x0 + s * y + math.sqrt(sigma(s) ** 2 - c**2) * eps_t + c * z
''', "NaN"),
        ("a division of floats by zero at t = 1", '''
def bridge_step(x_t, x0, y, t, s, tau, eta, z):
    sigma = lambda u: tau * math.sqrt(u * (1 - u))
    ratio = (sigma(s) / (1 - s)) * (1 - t) / sigma(t)
    c = eta * sigma(s) * math.sqrt(1 - ratio**2)
    eps_t = (x_t - (1 - t) * x0 - t * y) / sigma(t)
    return (1 - s) * x0 + s * y + math.sqrt(max(0.0, sigma(s) ** 2 - c**2)) * eps_t + c * z
''', "divides by zero (t = 1)"),
        ("no noise at t = 1 for eta = 0", '''
def bridge_step(x_t, x0, y, t, s, tau, eta, z):
    sigma = lambda u: tau * math.sqrt(u * (1 - u))
    c = eta * tau * math.sqrt(s * (t - s) / t)
    mean = (1 - s) * x0 + s * y
    if t == 1:
        return mean + c * z
    return mean + math.sqrt(sigma(s) ** 2 - c**2) * (x_t - (1 - t) * x0 - t * y) / sigma(t) + c * z
''', "fresh"),
        ("eta squared: c is a variance", '''
def bridge_step(x_t, x0, y, t, s, tau, eta, z):
    sigma = lambda u: tau * math.sqrt(u * (1 - u))
    mean = (1 - s) * x0 + s * y
    if t == 1:
        return mean + sigma(s) * z
    c = math.sqrt(eta) * tau * math.sqrt(s * (t - s) / t)
    return mean + math.sqrt(sigma(s) ** 2 - c**2) * (x_t - (1 - t) * x0 - t * y) / sigma(t) + c * z
''', "eta times"),
        ("the negative root", '''
def bridge_step(x_t, x0, y, t, s, tau, eta, z):
    sigma = lambda u: tau * math.sqrt(u * (1 - u))
    mean = (1 - s) * x0 + s * y
    if t == 1:
        return mean + sigma(s) * z
    c = eta * tau * math.sqrt(s * (t - s) / t)
    return mean - math.sqrt(sigma(s) ** 2 - c**2) * (x_t - (1 - t) * x0 - t * y) / sigma(t) + c * z
''', "sign"),
        ("the variance-preserving sigma of the chapter's schedule", '''
def bridge_step(x_t, x0, y, t, s, tau, eta, z):
    sigma = lambda u: math.sqrt(1 - (1 - u) ** 2)
    mean = (1 - s) * x0 + s * y
    if t == 1:
        return mean + sigma(s) * z
    ratio = (sigma(s) / (1 - s)) / (sigma(t) / (1 - t))
    c = eta * sigma(s) * math.sqrt(1 - ratio**2)
    return mean + math.sqrt(sigma(s) ** 2 - c**2) * (x_t - (1 - t) * x0 - t * y) / sigma(t) + c * z
''', "variance"),
    ],
    "guess": [
        ("y is ignored but for the shift", '''
def guess(mixture, x_t, y, t, tau, spread):
    if t == 1:
        return denoise(mixture, y, spread)
    return denoise(mixture, (x_t - t * y) / (1 - t), tau * math.sqrt(t / (1 - t)))
''', "ignores y"),
        ("the levels added", '''
def guess(mixture, x_t, y, t, tau, spread):
    if t == 1:
        return denoise(mixture, y, spread)
    rho = tau * math.sqrt(t / (1 - t))
    share = spread**2 / (spread**2 + rho**2)
    return denoise(mixture, share * (x_t - t * y) / (1 - t) + (1 - share) * y, math.hypot(rho, spread))
''', "Bayes"),
        ("the plain mean of the two", '''
def guess(mixture, x_t, y, t, tau, spread):
    if t == 1:
        return denoise(mixture, y, spread)
    rho = tau * math.sqrt(t / (1 - t))
    return denoise(mixture, ((x_t - t * y) / (1 - t) + y) / 2, math.hypot(rho, spread) / 2)
''', "Bayes"),
        ("weights by standard deviations", '''
def guess(mixture, x_t, y, t, tau, spread):
    if t == 1:
        return denoise(mixture, y, spread)
    rho = tau * math.sqrt(t / (1 - t))
    m = ((x_t - t * y) / (1 - t) / rho + y / spread) / (1 / rho + 1 / spread)
    return denoise(mixture, m, (1 / rho**2 + 1 / spread**2) ** -0.5)
''', "Bayes"),
        ("x_t is not freed of y", '''
def guess(mixture, x_t, y, t, tau, spread):
    if t == 1:
        return denoise(mixture, y, spread)
    rho = tau * math.sqrt(t / (1 - t))
    precision = 1 / rho**2 + 1 / spread**2
    return denoise(mixture, (x_t / (1 - t) / rho**2 + y / spread**2) / precision, precision**-0.5)
''', "Bayes"),
        ("sigma for the noise level", '''
def guess(mixture, x_t, y, t, tau, spread):
    if t == 1:
        return denoise(mixture, y, spread)
    sigma = tau * math.sqrt(t * (1 - t))
    precision = 1 / sigma**2 + 1 / spread**2
    return denoise(mixture, ((x_t - t * y) / (1 - t) / sigma**2 + y / spread**2) / precision, precision**-0.5)
''', "Bayes"),
        ("a division by zero at t = 1", '''
def guess(mixture, x_t, y, t, tau, spread):
    rho_sq = tau**2 * t / (1 - t)
    precision = 1 / rho_sq + 1 / spread**2
    return denoise(mixture, ((x_t - t * y) / (1 - t) / rho_sq + y / spread**2) / precision, precision**-0.5)
''', "divides by zero (t = 1)"),
        ("infinite at t = 1", '''
def guess(mixture, x_t, y, t, tau, spread):
    t = torch.tensor(t, dtype=torch.float64)
    rho_sq = tau**2 * t / (1 - t)
    precision = 1 / rho_sq + 1 / spread**2
    return denoise(mixture, ((x_t - t * y) / (1 - t) / rho_sq + y / spread**2) / precision, float(precision**-0.5))
''', "nan at t = 1"),
        ("y alone", '''
def guess(mixture, x_t, y, t, tau, spread):
    return denoise(mixture, y, spread)
''', "ignores x_t"),
    ],
    "walk": [
        ("it starts from noise", '''
def walk(mixture, y, times, tau, spread, eta, generator):
    x, grid = torch.randn(y.shape, generator=generator, dtype=y.dtype), times.tolist()
    for t, s in zip(grid[1:], grid[2:]):
        z = torch.randn(y.shape, generator=generator, dtype=y.dtype)
        x = bridge_step(x, guess(mixture, x, y, t, tau, spread), y, t, s, tau, eta, z)
    return x
''', "your samples"),
        ("y goes into the step as the state", '''
def walk(mixture, y, times, tau, spread, eta, generator):
    x, grid = y, times.tolist()
    for t, s in zip(grid, grid[1:]):
        z = torch.randn(y.shape, generator=generator, dtype=y.dtype)
        x = bridge_step(x, guess(mixture, x, x, t, tau, spread), x, t, s, tau, eta, z)
    return x
''', "your samples"),
        ("the guess of a walk that does not know y", '''
def walk(mixture, y, times, tau, spread, eta, generator):
    x, grid = y, times.tolist()
    for t, s in zip(grid, grid[1:]):
        rho = tau * math.sqrt(t / (1 - t)) if t < 1 else 900.0
        x0_hat = denoise(mixture, (x - t * y) / (1 - t) if t < 1 else y, rho)
        z = torch.randn(y.shape, generator=generator, dtype=y.dtype)
        x = bridge_step(x, x0_hat, y, t, s, tau, eta, z)
    return x
''', "your samples"),
        ("one noise for the whole batch", '''
def walk(mixture, y, times, tau, spread, eta, generator):
    x, grid = y, times.tolist()
    for t, s in zip(grid, grid[1:]):
        z = torch.randn(1, y.shape[1], generator=generator, dtype=y.dtype).expand_as(y)
        x = bridge_step(x, guess(mixture, x, y, t, tau, spread), y, t, s, tau, eta, z)
    return x
''', "same noise"),
        ("the grid is walked to its last but one time", '''
def walk(mixture, y, times, tau, spread, eta, generator):
    x, grid = y, times.tolist()
    for t, s in zip(grid[:-1], grid[1:-1]):
        z = torch.randn(y.shape, generator=generator, dtype=y.dtype)
        x = bridge_step(x, guess(mixture, x, y, t, tau, spread), y, t, s, tau, eta, z)
    return x
''', "one point"),
        ("the guess at the lower time", '''
def walk(mixture, y, times, tau, spread, eta, generator):
    x, grid = y, times.tolist()
    for t, s in zip(grid, grid[1:]):
        z = torch.randn(y.shape, generator=generator, dtype=y.dtype)
        x = bridge_step(x, guess(mixture, x, y, max(s, 1e-6), tau, spread), y, t, s, tau, eta, z)
    return x
''', "uneven steps"),
        ("no noise at eta = 0, not even at the start", '''
def walk(mixture, y, times, tau, spread, eta, generator):
    x, grid = y, times.tolist()
    for t, s in zip(grid, grid[1:]):
        z = torch.randn(y.shape, generator=generator, dtype=y.dtype) if eta > 0 else torch.zeros_like(y)
        x = bridge_step(x, guess(mixture, x, y, t, tau, spread), y, t, s, tau, eta, z)
    return x
''', "first step needs fresh noise"),
        ("an even grid, whatever `times` is", '''
def walk(mixture, y, times, tau, spread, eta, generator):
    x, grid = y, torch.linspace(1, 0, len(times), dtype=torch.float64).tolist()
    for t, s in zip(grid, grid[1:]):
        z = torch.randn(y.shape, generator=generator, dtype=y.dtype)
        x = bridge_step(x, guess(mixture, x, y, t, tau, spread), y, t, s, tau, eta, z)
    return x
''', "uneven steps"),
        ("the global generator", '''
def walk(mixture, y, times, tau, spread, eta, generator):
    x, grid = y, times.tolist()
    for t, s in zip(grid, grid[1:]):
        z = torch.randn(y.shape, dtype=y.dtype)
        x = bridge_step(x, guess(mixture, x, y, t, tau, spread), y, t, s, tau, eta, z)
    return x
''', "same seed"),
        ("a generator of its own", '''
def walk(mixture, y, times, tau, spread, eta, generator):
    x, grid = y, times.tolist()
    own = torch.Generator().manual_seed(0)
    for t, s in zip(grid, grid[1:]):
        z = torch.randn(y.shape, generator=own, dtype=y.dtype)
        x = bridge_step(x, guess(mixture, x, y, t, tau, spread), y, t, s, tau, eta, z)
    return x
''', "different seeds"),
        ("the grid and the generator are both ignored", '''
def walk(mixture, y, times, tau, spread, eta, generator):
    x, grid = y, torch.linspace(1, 0, len(times), dtype=torch.float64).tolist()
    for t, s in zip(grid, grid[1:]):
        z = torch.randn(y.shape, dtype=y.dtype)
        x = bridge_step(x, guess(mixture, x, y, t, tau, spread), y, t, s, tau, eta, z)
    return x
''', "same seed"),
        ("eta is rounded up", '''
def walk(mixture, y, times, tau, spread, eta, generator):
    x, grid = y, times.tolist()
    for t, s in zip(grid, grid[1:]):
        z = torch.randn(y.shape, generator=generator, dtype=y.dtype)
        x = bridge_step(x, guess(mixture, x, y, t, tau, spread), y, t, s, tau, math.ceil(eta), z)
    return x
''', "uneven steps"),
        ("the square root of eta", '''
def walk(mixture, y, times, tau, spread, eta, generator):
    x, grid = y, times.tolist()
    for t, s in zip(grid, grid[1:]):
        z = torch.randn(y.shape, generator=generator, dtype=y.dtype)
        x = bridge_step(x, guess(mixture, x, y, t, tau, spread), y, t, s, tau, eta**0.5, z)
    return x
''', "uneven steps"),
        ("eta is not used", '''
def walk(mixture, y, times, tau, spread, eta, generator):
    x, grid = y, times.tolist()
    for t, s in zip(grid, grid[1:]):
        z = torch.randn(y.shape, generator=generator, dtype=y.dtype)
        x = bridge_step(x, guess(mixture, x, y, t, tau, spread), y, t, s, tau, 0.0, z)
    return x
''', "eta"),
    ],
    "kept": [
        ("the chapter's formula with the spread of the data", '''
def kept(times, tau, spread, ell):
    angle = torch.atan(tau * (times / (1 - times)).sqrt() / ell)
    return float((angle[:-1] - angle[1:]).cos().square().prod())
''', "measurement"),
        ("variances added", '''
def kept(times, tau, spread, ell):
    angle = torch.atan(tau * (times / (1 - times)).sqrt() / math.hypot(spread, ell))
    return float((angle[:-1] - angle[1:]).cos().square().prod())
''', "useless"),
        ("the variance where a standard deviation belongs", '''
def kept(times, tau, spread, ell):
    variance = 1 / (1 / ell**2 + 1 / spread**2)
    angle = torch.atan(tau * (times / (1 - times)).sqrt() / variance)
    return float((angle[:-1] - angle[1:]).cos().square().prod())
''', "useless"),
        ("cos, not its square", '''
def kept(times, tau, spread, ell):
    variance = 1 / (1 / ell**2 + 1 / spread**2)
    angle = torch.atan(tau * (times / (1 - times) / variance).sqrt())
    return float((angle[:-1] - angle[1:]).cos().prod())
''', "useless"),
        ("the first step is left out", '''
def kept(times, tau, spread, ell):
    variance = 1 / (1 / ell**2 + 1 / spread**2)
    angle = torch.atan(tau * (times[1:] / (1 - times[1:]) / variance).sqrt())
    return float((angle[:-1] - angle[1:]).cos().square().prod())
''', "useless"),
        ("sigma for the noise level", '''
def kept(times, tau, spread, ell):
    variance = 1 / (1 / ell**2 + 1 / spread**2)
    angle = torch.atan(tau * (times * (1 - times) / variance).sqrt())
    return float((angle[:-1] - angle[1:]).cos().square().prod())
''', "useless"),
        ("the smaller of the two spreads", '''
def kept(times, tau, spread, ell):
    angle = torch.atan(tau * (times / (1 - times)).sqrt() / min(spread, ell))
    return float((angle[:-1] - angle[1:]).cos().square().prod())
''', "halves"),
        ("what is lost", '''
def kept(times, tau, spread, ell):
    variance = 1 / (1 / ell**2 + 1 / spread**2)
    angle = torch.atan(tau * (times / (1 - times) / variance).sqrt())
    return 1 - float((angle[:-1] - angle[1:]).cos().square().prod())
''', "useless"),
    ],
    "best-times": [
        ("even times", '''
def best_times(steps, tau, spread, ell):
    return torch.linspace(1, 0, steps + 1, dtype=torch.float64)
''', "best one keeps"),
        ("the angles of the data's spread", '''
def best_times(steps, tau, spread, ell):
    angle = math.pi / 2 * torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    times = (ell * angle.sin()) ** 2 / ((ell * angle.sin()) ** 2 + (tau * angle.cos()) ** 2)
    times[0], times[-1] = 1, 0
    return times
''', "best one keeps"),
        ("rising", '''
def best_times(steps, tau, spread, ell):
    v = 1 / (1 / ell**2 + 1 / spread**2)
    angle = math.pi / 2 * torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    times = v * angle.sin() ** 2 / (v * angle.sin() ** 2 + (tau * angle.cos()) ** 2)
    times[0], times[-1] = 0, 1
    return times
''', "begin at 1"),
        ("one time too few", '''
def best_times(steps, tau, spread, ell):
    v = 1 / (1 / ell**2 + 1 / spread**2)
    angle = math.pi / 2 * torch.linspace(1, 0, steps, dtype=torch.float64)
    times = v * angle.sin() ** 2 / (v * angle.sin() ** 2 + (tau * angle.cos()) ** 2)
    times[0], times[-1] = 1, 0
    return times
''', "shape"),
        ("even noise levels up to a cut", '''
def best_times(steps, tau, spread, ell):
    rho = torch.linspace(50, 0, steps + 1, dtype=torch.float64)
    times = rho**2 / (rho**2 + tau**2)
    times[0] = 1
    return times
''', "best one keeps"),
        ("times for squared noise levels", '''
def best_times(steps, tau, spread, ell):
    std = (1 / ell**2 + 1 / spread**2) ** -0.5
    angle = math.pi / 2 * torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    times = std * angle.sin() / (std * angle.sin() + tau * angle.cos())
    times[0], times[-1] = 1, 0
    return times
''', "best one keeps"),
        ("the upper end is 1 but for rounding", '''
def best_times(steps, tau, spread, ell):
    v = 1 / (1 / ell**2 + 1 / spread**2)
    angle = math.pi / 2 * torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    times = v * angle.sin() ** 2 / (v * angle.sin() ** 2 + (tau * angle.cos()) ** 2)
    times[0], times[-1] = 1 - 1e-9, 0
    return times
''', "1.0e-09"),
        ("the ends are not exact", '''
def best_times(steps, tau, spread, ell):
    v = 1 / (1 / ell**2 + 1 / spread**2)
    angle = math.pi / 2 * torch.linspace(0.999, 0.001, steps + 1, dtype=torch.float64)
    return v * angle.sin() ** 2 / (v * angle.sin() ** 2 + (tau * angle.cos()) ** 2)
''', "exactly"),
    ],
    "best-tau": [
        ("the spread of the data", '''
def best_tau(spread, ell):
    return ell
''', "smaller tau"),
        ("the variance", '''
def best_tau(spread, ell):
    return 1 / (1 / ell**2 + 1 / spread**2)
''', "tau keeps more"),
        ("the spread of y", '''
def best_tau(spread, ell):
    return math.hypot(spread, ell)
''', "smaller tau"),
        ("twice as wide", '''
def best_tau(spread, ell):
    return 2 * spread * ell / math.hypot(spread, ell)
''', "smaller tau"),
        ("the mean of the spreads", '''
def best_tau(spread, ell):
    return spread * ell / (spread + ell)
''', "larger tau"),
        ("as small as can be", '''
def best_tau(spread, ell):
    return 1e-3
''', "larger tau"),
    ],
    "encode": [
        ("the chapter's approximation, noise from the lower end", '''
def encode(net, x0, y, times, tau):
    rho = lambda t: tau * math.sqrt(t / (1 - t))
    up, bar = times.flip(0).tolist(), x0
    for s, t in zip(up, up[1:]):
        look = max(s, up[1])
        eps = (bar - net((1 - look) * bar + look * y, y, look)) / rho(look)
        bar = bar + (rho(t) - rho(s)) * eps
    return (1 - t) * bar + t * y
''', "error"),
        ("the time of the upper end, the state of the lower one", '''
def encode(net, x0, y, times, tau):
    rho = lambda t: tau * math.sqrt(t / (1 - t))
    up, bar = times.flip(0).tolist(), x0
    for s, t in zip(up, up[1:]):
        eps = (bar - net((1 - t) * bar + t * y, y, t)) / rho(t)
        bar = bar + (rho(t) - rho(s)) * eps
    return (1 - t) * bar + t * y
''', "error"),
        ("two turns are too few", '''
def encode(net, x0, y, times, tau):
    rho = lambda t: tau * math.sqrt(t / (1 - t))
    up, bar = times.flip(0).tolist(), x0
    for s, t in zip(up, up[1:]):
        upper = bar
        for _ in range(2):
            upper = bar + (rho(t) - rho(s)) * (upper - net((1 - t) * upper + t * y, y, t)) / rho(t)
        bar = upper
    return (1 - t) * bar + t * y
''', "error"),
        ("y is forgotten in the state", '''
def encode(net, x0, y, times, tau):
    rho = lambda t: tau * math.sqrt(t / (1 - t))
    up, bar = times.flip(0).tolist(), x0
    for s, t in zip(up, up[1:]):
        upper = bar
        for _ in range(300):
            upper = bar + (rho(t) - rho(s)) * (upper - net((1 - t) * upper, y, t)) / rho(t)
        bar = upper
    return (1 - t) * bar
''', "part of y is missing"),
        ("the scaled state is returned", '''
def encode(net, x0, y, times, tau):
    rho = lambda t: tau * math.sqrt(t / (1 - t))
    up, bar = times.flip(0).tolist(), x0
    for s, t in zip(up, up[1:]):
        upper = bar
        for _ in range(300):
            upper = bar + (rho(t) - rho(s)) * (upper - net((1 - t) * upper + t * y, y, t)) / rho(t)
        bar = upper
    return bar
''', "part of y is missing"),
        ("t y is left out of what is returned", '''
def encode(net, x0, y, times, tau):
    rho = lambda t: tau * math.sqrt(t / (1 - t))
    up, bar = times.flip(0).tolist(), x0
    for s, t in zip(up, up[1:]):
        upper = bar
        for _ in range(300):
            upper = bar + (rho(t) - rho(s)) * (upper - net((1 - t) * upper + t * y, y, t)) / rho(t)
        bar = upper
    return (1 - t) * bar
''', "part of y is missing"),
        ("the sign of the step", '''
def encode(net, x0, y, times, tau):
    rho = lambda t: tau * math.sqrt(t / (1 - t))
    up, bar = times.flip(0).tolist(), x0
    for s, t in zip(up, up[1:]):
        upper = bar
        for _ in range(300):
            upper = bar - (rho(t) - rho(s)) * (upper - net((1 - t) * upper + t * y, y, t)) / rho(t)
        bar = upper
    return (1 - t) * bar + t * y
''', "error"),
        ("noise is added: no inverse at all", '''
def encode(net, x0, y, times, tau):
    t = float(times[0])
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0), dtype=x0.dtype)
    return (1 - t) * x0 + t * y + tau * math.sqrt(t * (1 - t)) * eps
''', "error"),
    ],
    "noise": [
        ("the shares at eta = 0", '''
kept_thin = kept_wide = 0.611
''', "thin (0.611) and wide (0.611)"),
        ("exchanged", '''
kept_thin, kept_wide = 0.562, 0.683
''', "thin"),
        ("over the variance of the data, not given y", '''
kept_thin, kept_wide = 0.437, 0.36
''', "thin"),
        ("what is lost", '''
kept_thin, kept_wide = 0.317, 0.438
''', "thin"),
        ("standard deviations", '''
kept_thin, kept_wide = 0.826, 0.75
''', "thin"),
        ("the chapter's claim: noise always keeps less", '''
kept_thin, kept_wide = 0.562, 0.562
''', "thin"),
        ("y drawn anew for each walk: the spread of y is in it", '''
y = 0.6 * torch.randn(40_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
y = y + 0.8 * torch.randn(40_000, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
kept_thin, kept_wide = (
    min(0.99, walk(normal_data(0.0, 0.6), y, torch.linspace(1, 0, 11, dtype=torch.float64), tau, 0.8, 1.0,
                   torch.Generator().manual_seed(2)).var().item() / 0.36) for tau in (0.24, 0.96))
''', "thin"),
    ],
}

# A task of several parts is one cell: right ones of the other parts stand beside each answer.
CELLS = {"step": ("step",), "guess": ("guess",), "walk": ("walk",), "grid": ("kept", "best-times", "best-tau"),
         "encode": ("encode",), "noise": ("noise",)}


def right(parts):
    """Every right answer of each part at least once, the parts of a cell side by side."""
    most = max(len(PARTS[part]) for part in parts)
    chosen = [[PARTS[part][i % len(PARTS[part])] for part in parts] for i in range(most)]
    return [("; ".join(name for name, _ in row), "".join(code for _, code in row)) for row in chosen]


def wrong(parts):
    """Each wrong answer of a part, beside the first right ones of the other parts."""
    answers = []
    for part in parts:
        for name, code, word in WRONG_PARTS[part]:
            answers.append((name, "".join(code if p == part else PARTS[p][0][1] for p in parts), word))
    return answers


RIGHT = {cell: right(parts) for cell, parts in CELLS.items()}
WRONG = {cell: wrong(parts) for cell, parts in CELLS.items()}
