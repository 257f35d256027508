"""Right and wrong answers of chapter 4's coursework: the grader's tests. Each text replaces the whole solution cell of its task."""

# ---- task 1 ----
EDGE = '''
def edge_loss(f, x):
    x = x.detach().requires_grad_()
    y = f(x)
    slope = torch.autograd.grad(y.sum(), x, create_graph=True)[0]
    w, w_dot = (x / (1 + x)) ** 2, 2 * x / (1 + x) ** 3
    return 0.5 * w * y**2 + w * slope + w_dot * y
'''
FIT = '''
def fit_gamma(x):
    w, w_dot = (x / (1 + x)) ** 2, 2 * x / (1 + x) ** 3
    m = lambda v: float(v.mean())
    matrix = torch.tensor([[m(w / x**2), -m(w / x)], [-m(w / x), m(w)]])
    a, rate = torch.linalg.solve(matrix, torch.tensor([m(w / x**2) - m(w_dot / x), m(w_dot)]))
    return 1 + float(a), float(rate)
'''
EDGE_PRODUCT = '''
def edge_loss(f, x):
    z = x.detach().clone().requires_grad_(True)
    product = z**2 / (1 + z) ** 2 * f(z)
    divergence, = torch.autograd.grad(product, z, torch.ones_like(z), create_graph=True)
    return divergence + product * f(z) / 2
'''
FIT_NEWTON = '''
def fit_gamma(x):
    loss = lambda q: edge_loss(lambda x: (q[0] - 1) / x - q[1], x).mean()
    q = torch.tensor([1.0, 1.0], requires_grad=True)
    slope = torch.autograd.grad(loss(q), q, create_graph=True)[0]
    rows = torch.stack([torch.autograd.grad(part, q, retain_graph=True)[0] for part in slope])
    return tuple((q - torch.linalg.inv(rows) @ slope).detach())
'''
FIT_TENSOR = FIT_NEWTON.replace("return tuple((q - torch.linalg.inv(rows) @ slope).detach())", "return q - torch.linalg.inv(rows) @ slope")
EDGE_IN_PLACE = '''
def edge_loss(f, x):
    x.requires_grad_()
    slope, = torch.autograd.grad((f(x) + 0 * x).sum(), x)
    w = (x / (1 + x)) ** 2
    return w * f(x) ** 2 / 2 + w * slope + 2 * w / (x * (1 + x)) * f(x)
'''
EDGE_LOOP = '''
def edge_loss(f, x):
    losses = []
    for value in x.tolist():
        point = torch.tensor([value], requires_grad=True)
        y = f(point)
        slope = torch.autograd.grad(y, point, create_graph=True)[0]
        ratio = value / (1 + value)
        losses.append(ratio**2 * (y * y / 2 + slope + 2 * y / (value * (1 + value))))
    return torch.cat(losses)
'''
FIT_GRADIENT = '''
def fit_gamma(x):
    q = torch.tensor([2.0, 1.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([q], max_iter=100, tolerance_grad=1e-12, tolerance_change=1e-15)
    x = x.double()

    def closure():
        optimizer.zero_grad()
        y, slope = (q[0] - 1) / x - q[1], -(q[0] - 1) / x**2
        w, w_dot = x**2 / (1 + x)**2, 2 * x / (1 + x)**3
        loss = (w * (y**2 / 2 + slope) + w_dot * y).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return [q[0].item(), q[1].item()]
'''


def edge(last: str, before: str = "") -> str:
    return f'''
def edge_loss(f, x):
    x = x.detach().requires_grad_()
    y = f(x)
    slope = torch.autograd.grad(y.sum(), x, create_graph=True)[0]
    w, w_dot = (x / (1 + x)) ** 2, 2 * x / (1 + x) ** 3
    {before or "pass"}
    return {last}
'''


# ---- task 2 ----
LABEL = '''
def label(x, eps, sigma):
    return -(1 + eps / sigma) / x
'''
LOG_MEAN = '''
def log_mean(x, s, sigma):
    return torch.log(x) + sigma**2 * (1 + x * s)
'''
LOG_VARIANCE = '''
def log_variance(x, s, s_dot, sigma):
    return sigma**2 + sigma**4 * (x * s + x**2 * s_dot)
'''


def label(last: str) -> str:
    return f"\ndef label(x, eps, sigma):\n    return {last}\n" + LOG_MEAN + LOG_VARIANCE


def log_mean(last: str) -> str:
    return LABEL + f"\ndef log_mean(x, s, sigma):\n    return {last}\n" + LOG_VARIANCE


def log_variance(last: str) -> str:
    return LABEL + LOG_MEAN + f"\ndef log_variance(x, s, s_dot, sigma):\n    return {last}\n"


SPECKLE_TWO = '''
def label(x, eps, sigma):
    log_x0 = x.log() - sigma * eps
    return -1 / x - (x.log() - log_x0) / (sigma**2 * x)

def log_score(x, s):
    return x * s + 1

def log_mean(x, s, sigma):
    return x.log() + sigma * sigma * log_score(x, s)

def log_variance(x, s, s_dot, sigma):
    slope = x * (s + x * s_dot)
    return sigma**2 * (1 + sigma**2 * slope)
'''
SPECKLE_THREE = '''
def label(x, eps, sigma):
    clean = (x * torch.exp(-sigma * eps)).detach()
    z = x.detach().clone().requires_grad_()
    law = torch.distributions.LogNormal(clean.log(), sigma)
    return torch.autograd.grad(law.log_prob(z).sum(), z)[0]

def log_mean(x, s, sigma):
    out = torch.empty_like(x)
    for i in range(x.numel()):
        out[i] = math.log(x[i]) + sigma**2 + sigma**2 * x[i] * s[i]
    return out

def log_variance(x, s, s_dot, sigma):
    mean_slope = 1 / x + sigma**2 * (s + x * s_dot)          # d log_mean / dx
    return sigma**2 * x * mean_slope
'''

# ---- task 3 ----
CLEAN_STEPS = '''
def clean_mean(score, x, sigma):
    total, steps = torch.zeros_like(x), 400
    for k in range(steps):
        y = x.log() + sigma**2 * (k + 0.5) / steps
        total = total + (1 + y.exp() * score(y.exp())) * sigma**2 / steps
    return x * math.exp(sigma**2 / 2) * total.exp()
'''
CLEAN_X = '''
def clean_mean(score, x, sigma):
    """In x: p_Y(log x) = x p(x), so the ratio is e^(sigma^2) p(x e^(sigma^2)) / p(x)."""
    b = x * math.exp(sigma**2)
    u = torch.linspace(0, 1, 513)
    points = x[:, None] + u * (b - x)[:, None]
    log_ratio = torch.trapezoid(score(points) * (b - x)[:, None], u, dim=1)
    return x * torch.exp(1.5 * sigma**2 + log_ratio)
'''
CLEAN_GAUSS = '''
def clean_mean(score, x, sigma):
    """Gauss-Legendre with three nodes on each of eight pieces."""
    nodes, parts = (-0.6**0.5, 0.0, 0.6**0.5), (5 / 18, 8 / 18, 5 / 18)
    h, out = sigma**2 / 8, sigma**2 / 2 + x.log()
    for piece in range(8):
        for node, part in zip(nodes, parts):
            z = x * math.exp(h * (piece + 0.5 + node / 2))
            out = out + h * part * (z * score(z) + 1)
    return out.exp()
'''


def clean(last: str, top: str = "sigma**2") -> str:
    return f'''
def clean_mean(score, x, sigma):
    u = torch.linspace(0, {top}, 257)[:, None]
    there = x * u.exp()
    climbed = torch.trapezoid(1 + there * score(there), u, dim=0)
    bare = torch.trapezoid(there * score(there), u, dim=0)
    return {last}
'''


# ---- task 4 ----
VARIANCE = '''
def stale_variance(h, tau):
    a = h / (2 * tau**2)
    return tau**2 * 2 * (1 + a) / ((1 - a) * (2 + a))
'''
LIMIT = '''
def stale_limit(tau):
    return 2 * tau**2
'''
WALK = '''
def stale_walk(score, x, h, z):
    before = x
    for noise in z:
        x, before = x + h / 2 * score(before) + h**0.5 * noise, x
    return x
'''
STALE_MATRIX = '''
def stale_variance(h, tau):
    A = torch.tensor([[1.0, -h / (2 * tau**2)], [1.0, 0.0]])
    Q = torch.tensor([[h, 0.0], [0.0, 0.0]])
    whole = torch.eye(4) - torch.kron(A, A)
    return torch.linalg.solve(whole, Q.reshape(4))[0].item()

def stale_limit(tau):
    return float(2.0 * tau * tau)

def stale_walk(score, x, h, z):
    states = [x, x]
    for k in range(len(z)):
        states.append(states[-1] + 0.5 * h * score(states[-2]) + math.sqrt(h) * z[k])
    return states[-1]
'''
STALE_RECURSION = '''
def stale_variance(h, tau):
    a, P = h / (2 * tau**2), torch.zeros(2, 2)
    A, Q = torch.tensor([[1, -a], [1, 0]], dtype=torch.float64), torch.diag(torch.tensor([h, 0.0]))
    for _ in range(60):                      # doubling: 2^60 steps of the covariance
        Q, A = Q + A @ Q @ A.T, A @ A
    return float(Q[0, 0])

def stale_limit(tau):
    low, high = 0.0, 8.0
    for _ in range(60):
        h = (low + high) / 2
        roots = torch.linalg.eigvals(torch.tensor([[1.0, -h / 2], [1.0, 0.0]])).abs()
        low, high = (h, high) if float(roots.max()) < 1 else (low, h)
    return low * tau**2

def stale_walk(score, x, h, z):
    arrow = score(x)
    for noise in z:
        new = x + h / 2 * arrow + h**0.5 * noise
        arrow = score(x)
        x = new
    return x
'''


def variance(last: str) -> str:
    return f"\ndef stale_variance(h, tau):\n    a = h / (2 * tau**2)\n    return {last}\n" + LIMIT + WALK


def walk(body: str) -> str:
    return VARIANCE + LIMIT + f'''
def stale_walk(score, x, h, z):
    before = x
    for noise in z:
        {body}
    return x
'''


# ---- task 5 ----
BEST = '''
def best_level():
    total = lambda s: sum((spread(s, which, 0.6, 0.2) / truth) ** 2
                          for which, truth in (("w", 0.6), ("tau", 0.2)))
    return min((0.3 * 1.01**i for i in range(120)), key=total)
'''


def spread(label_noise: str = "1 / sigma**2 + by_x", last: str = "float(noise.sqrt() / signal)", which: str = "which",
           p: str = "log_density(x, sigma, w, tau).exp()", more: str = "") -> str:
    return f'''
def spread(sigma, which, w, tau):
    reach = 1 + 10 * (tau**2 + sigma**2) ** 0.5
    x = torch.linspace(-reach, reach, 12_001).requires_grad_()
    by_x = torch.autograd.grad(noisy_score(x, sigma, w, tau).sum(), x)[0]
    x, values, small = x.detach(), {{"w": w, "tau": tau}}, 1e-5
    up, down = ({{**values, {which}: values[{which}] + change}} for change in (small, -small))
    by_theta = (noisy_score(x, sigma, **up) - noisy_score(x, sigma, **down)) / (2 * small)
    {more or "pass"}
    p = {p}
    noise = torch.trapezoid(p * by_theta**2 * ({label_noise}), x)
    signal = torch.trapezoid(p * by_theta**2, x)
    return {last}
'''


SPREAD_JVP = '''
def spread(sigma, which, w, tau):
    """Derivatives by torch.func, the posterior variance of x_0 by hand, the rectangle rule."""
    one, true = torch.ones(()), {"w": torch.tensor(float(w)), "tau": torch.tensor(float(tau))}
    step = (tau**2 + sigma**2) ** 0.5 / 300
    x = torch.arange(-4000, 4001) * step
    x = x[(x.abs() < 1 + 9 * (tau**2 + sigma**2) ** 0.5)]
    model = lambda theta: noisy_score(x, sigma, **{**true, which: theta})
    _, by_theta = torch.func.jvp(model, (true[which],), (one,))
    total = tau**2 + sigma**2
    right = torch.sigmoid(math.log(w / (1 - w)) + 2 * x / total)
    gain = tau**2 / total
    means = [m + gain * (x - m) for m in (-1.0, 1.0)]
    mean = (1 - right) * means[0] + right * means[1]
    var_x0 = (1 - right) * means[0] ** 2 + right * means[1] ** 2 - mean**2 + gain * sigma**2
    p = log_density(x, sigma, w, tau).exp() * step
    return math.sqrt(float((p * by_theta**2 * var_x0).sum())) / sigma**2 / float((p * by_theta**2).sum())

def best_level():
    low, high, g = 0.25, 1.0, (5**0.5 - 1) / 2
    f = lambda s: spread(s, "w", 0.6, 0.2) ** 2 / 0.36 + spread(s, "tau", 0.6, 0.2) ** 2 / 0.04
    while high - low > 1e-3:
        a, b = high - g * (high - low), low + g * (high - low)
        low, high = (low, b) if f(a) < f(b) else (a, high)
    return torch.tensor((low + high) / 2)
'''
SPREAD_TWO = '''
def spread(sigma, which, w, tau):
    """A grid over x_0 and eps: no formula for the noise of the label."""
    z = torch.linspace(-7, 7, 161)
    gauss = torch.exp(-z**2 / 2) / torch.exp(-z**2 / 2).sum()
    fine = torch.linspace(-7, 7, 801)
    noise_p = torch.exp(-fine**2 / 2) / torch.exp(-fine**2 / 2).sum()
    values = {"w": w, "tau": tau}
    first = second = 0.0
    for share, centre in ((1 - w, -1.0), (w, 1.0)):
        x = (centre + tau * z)[:, None] + sigma * fine                        # (x_0, eps)
        flat, h = x.reshape(-1), 1e-5
        s = noisy_score(flat, sigma, w, tau).view(x.shape)
        a, b = (noisy_score(flat, sigma, **{**values, which: values[which] + d}) for d in (h, -h))
        slope = ((a - b) / (2 * h)).view(x.shape)
        p = share * gauss[:, None] * noise_p
        first = first + (p * ((s + fine / sigma) * slope) ** 2).sum()
        second = second + (p * slope**2).sum()
    return (first.sqrt() / second).item()
''' + BEST.replace("1.01**i for i in range(120)", "1.03**i for i in range(40)")

RIGHT = {
    "edge": [("by parts, a linear system", EDGE + FIT), ("derivative of the product, Newton", EDGE_PRODUCT + FIT_NEWTON),
             ("a loop, L-BFGS", EDGE_LOOP + FIT_GRADIENT),
             ("a tensor of shape (2,), with its graph", EDGE_PRODUCT + FIT_TENSOR), ("x itself requires a gradient", EDGE_IN_PLACE + FIT)],
    "speckle": [("formulas", LABEL + LOG_MEAN + LOG_VARIANCE), ("through the score of log x", SPECKLE_TWO), ("autograd and loops", SPECKLE_THREE)],
    "clean-mean": [("midpoints in log x", CLEAN_STEPS), ("a straight line in x", CLEAN_X), ("Gauss-Legendre", CLEAN_GAUSS),
                   ("trapezoid", clean("x * torch.exp(sigma**2 / 2 + climbed)"))],
    "stale": [("closed form", VARIANCE + LIMIT + WALK), ("a linear system, a list", STALE_MATRIX), ("doubling, bisection", STALE_RECURSION)],
    "level": [("autograd in x", spread() + BEST), ("torch.func, posterior by hand, golden section", SPREAD_JVP), ("two-dimensional quadrature", SPREAD_TWO)],
}

WRONG = {
    "edge": [
        ("the chapter's implicit loss", edge("0.5 * y**2 + slope") + FIT, "weight multiplies"),
        ("weights put on both terms, none differentiated", edge("w * (0.5 * y**2 + slope)") + FIT, "derivative falls on all"),
        ("the derivative of the weight alone", edge("0.5 * w * y**2 + w_dot * y") + FIT, "field to field"),
        ("wrong sign of the divergence", edge("0.5 * w * y**2 - w * slope - w_dot * y") + FIT, "derivative falls on all"),
        ("no half", edge("w * y**2 + w * slope + w_dot * y") + FIT, "half the mean"),
        ("the root of the weight", edge("0.5 * w * y**2 + w * slope + w_dot * y", "w, w_dot = x / (1 + x), 1 / (1 + x) ** 2") + FIT, "weight multiplies"),
        ("a mean instead of one loss a sample", edge("(0.5 * w * y**2 + w * slope + w_dot * y).mean()") + FIT, "shape"),
        ("the fit by moments", EDGE + '''
def fit_gamma(x):
    return float(x.mean() ** 2 / x.var()), float(x.mean() / x.var())
''', "minimiser of the weighted loss"),
        ("the fit returns shape - 1", EDGE + FIT.replace("1 + float(a)", "float(a)"), "score of a gamma"),
        ("a wrong loss, fitted faithfully", edge("0.5 * w * y**2 + w * slope") + FIT_NEWTON, "derivative falls on all"),
        ("the fit alone minimises another loss", EDGE + FIT.replace("m(w / x**2) - m(w_dot / x), m(w_dot)", "m(w / x**2), 0.0"), "is cw4.1 correct?"),
        ("three numbers", EDGE + FIT.replace("return 1 + float(a), float(rate)", "return torch.stack([1 + a, rate, rate])"), "pair"),
        ("the fit by maximum likelihood", EDGE + '''
def fit_gamma(x):
    gap, low, high = float(x.mean().log() - x.log().mean()), 0.01, 100.0
    for _ in range(60):
        k = (low * high) ** 0.5
        low, high = (k, high) if math.log(k) - float(torch.digamma(torch.tensor(k))) > gap else (low, k)
    return k, k / float(x.mean())
''', "minimiser of the weighted loss"),
    ],
    "speckle": [
        ("the chapter's label", label("-eps / sigma"), "differentiate in x"),
        ("the factor 1/x of the density forgotten", label("-eps / (sigma * x)"), "which has a derivative, too"),
        ("the wrong sign", label("(1 + eps / sigma) / x"), "wrong sign"),
        ("sigma^2 for sigma", label("-(1 + eps / sigma**2) / x"), "expected"),
        ("the change of variables in the wrong direction", label("-(1 + eps / sigma) * x"), "expected"),
        ("Tweedie as it stands", log_mean("x + sigma**2 * s"), "as it stands"),
        ("the score of log x taken to be x s", log_mean("x.log() + sigma**2 * x * s"), "off by sigma^2"),
        ("the score of x taken for that of log x", log_mean("x.log() + sigma**2 * s"), "that of log x is 1 + x s"),
        ("against the arrow", log_mean("x.log() - sigma**2 * (1 + x * s)"), "against"),
        ("sigma for sigma^2", log_mean("x.log() + sigma * (1 + x * s)"), "expected"),
        ("the mean of x_0 instead of its logarithm", log_mean("x * (sigma**2 * (1 + x * s)).exp()"), "exponential"),
        ("second-order Tweedie as it stands", log_variance("sigma**2 * (1 + sigma**2 * s_dot)"), "as it stands"),
        ("the product rule forgotten", log_variance("sigma**2 + sigma**4 * x**2 * s_dot"), "product rule"),
        ("a standard deviation", log_variance("(sigma**2 + sigma**4 * (x * s + x**2 * s_dot)).sqrt()"), "square root"),
        ("sigma^2 in front of the derivative", log_variance("sigma**2 + sigma**2 * (x * s + x**2 * s_dot)"), "expected"),
        ("one x too few", log_variance("sigma**2 + sigma**4 * (s + x * s_dot)"), "expected"),
    ],
    "clean-mean": [
        ("the exponential of the mean logarithm", clean("log_mean(x, score(x), sigma).exp()"), "exponential of a mean"),
        ("log x_0 taken for Gaussian", '''
def clean_mean(score, x, sigma):
    h = 1e-5
    s, s_dot = score(x), (score(x + h * x) - score(x - h * x)) / (2 * h * x)
    return (log_mean(x, s, sigma) + log_variance(x, s, s_dot, sigma) / 2).exp()
''', "mixture it is not"),
        ("Tweedie as it stands", clean("x + sigma**2 * score(x)"), "as it stands"),
        ("no factor from the square", clean("x * climbed.exp()"), "completes the square"),
        ("the score of log x taken to be x s", clean("x * torch.exp(sigma**2 / 2 + bare)"), "taken to be x s"),
        ("up to sigma, not to sigma^2", clean("x * torch.exp(sigma**2 / 2 + climbed)", "sigma"), "expected"),
        ("the ratio upside down", clean("x * torch.exp(sigma**2 / 2 - climbed)"), "expected"),
        ("one look instead of an integral", clean("x * torch.exp(sigma**2 / 2 + sigma**2 * (1 + x * score(x)))"), "expected"),
        ("the square completed with the wrong sign", clean("x * torch.exp(climbed - sigma**2 / 2)"), "with the wrong sign"),
    ],
    "stale": [
        ("(4.17)", variance("tau**2 / (1 - a / 2)"), "(4.17)"),
        ("h not in units of tau^2", variance("2 * (1 + h / 2) / ((1 - h / 2) * (2 + h / 2))"), "expected"),
        ("tau^2 forgotten in front", variance("2 * (1 + a) / ((1 - a) * (2 + a))"), "units of tau^2"),
        ("a standard deviation", variance("(tau**2 * 2 * (1 + a) / ((1 - a) * (2 + a))) ** 0.5"), "standard deviation"),
        ("the covariance solved with the wrong sign", variance("h / (2 * a / (1 - a) - a**2)"), "hint of task 4"),
        ("the covariance taken for V (1 - a)", variance("h / (2 * a * (1 - a) - a**2)"), "hint of task 4"),
        ("the expansion instead of the formula", variance("tau**2 * (1 + 1.5 * a)"), "See the hint"),
        ("the covariance forgotten", variance("-h / a**2"), "C was left out"),
        ("the covariance added", variance("-h / (a**2 + 2 * a / (1 + a))"), "added, not taken away"),
        ("the limit of ULA, without tau^2", VARIANCE + LIMIT.replace("2 * tau**2", "4") + WALK, "fresh arrow"),
        ("the limit of ULA", VARIANCE + LIMIT.replace("2 * tau", "4 * tau") + WALK, "fresh arrow"),
        ("the limit without tau^2", VARIANCE + LIMIT.replace("2 * tau**2", "2.0") + WALK, "counts in units"),
        ("where the roots become complex", VARIANCE + LIMIT.replace("2 * tau", "0.5 * tau") + WALK, "complex"),
        ("fresh arrows", walk("x = x + h / 2 * score(x) + h**0.5 * noise"), "(4.14)"),
        ("arrows of the start", walk("x = x + h / 2 * score(before) + h**0.5 * noise"), "one step old"),
        ("h for h / 2", walk("x, before = x + h * score(before) + h**0.5 * noise, x"), "first step"),
        ("noise without its root", walk("x, before = x + h / 2 * score(before) + h * noise, x"), "first step"),
        ("the stale state kept, not the stale arrow alone", walk("x, before = before + h / 2 * score(before) + h**0.5 * noise, x"), "one step old"),
    ],
    "level": [
        ("the variance of the label, not given x", spread("1 / sigma**2 + 0 * by_x") + BEST, "Given x"),
        ("a variance instead of a standard deviation", spread(last="float(noise / signal**2)") + BEST, "square"),
        ("the other parameter", spread(which='("tau" if which == "w" else "w")') + BEST, "other parameter"),
        ("the information alone, as for a noiseless label", spread(last="float(1 / signal.sqrt())") + BEST, "noise of the label left out"),
        ("maximum likelihood", spread(more="by_theta = (log_density(x, sigma, **up) - log_density(x, sigma, **down)) / (2 * small)",
                                      last="float(1 / signal.sqrt())") + BEST, "maximum likelihood"),
        ("a factor sigma: the noise of eps, not of the label", spread("1 + sigma**2 * by_x") + BEST, "a factor sigma is too much"),
        ("a factor sigma^2: the noise of x_0, not of the label", spread("sigma**2 + sigma**4 * by_x") + BEST, "a factor sigma^2 is too much"),
        ("the noise of x_0 over its variance once too often", spread("(1 / sigma**2 + by_x) / sigma**2") + BEST, "a factor sigma is missing"),
        ("the density of the clean data", spread(p="log_density(x, 0.0, w, tau).exp()") + BEST, "expected"),
        ("the derivative of the log-density instead of the score", spread(more="by_theta = (log_density(x, sigma, **up) - log_density(x, sigma, **down)) "
                                                                          "/ (2 * small)") + BEST, "expected"),
        ("the sign of (4.13)", spread("1 / sigma**2 - by_x") + BEST, "sign in (4.13)"),
        ("samples in the place of the integral", '''
def spread(sigma, which, w, tau):
    g, n = torch.Generator().manual_seed(0), 20_000
    k = torch.rand(n, generator=g) < w
    x0 = torch.where(k, 1.0, -1.0) + tau * torch.randn(n, generator=g)
    eps = torch.randn(n, generator=g)
    x, values, h = x0 + sigma * eps, {"w": w, "tau": tau}, 1e-5
    a, b = (noisy_score(x, sigma, **{**values, which: values[which] + d}) for d in (h, -h))
    slope = (a - b) / (2 * h)
    psi = (noisy_score(x, sigma, w, tau) + eps / sigma) * slope
    return float(psi.std() / slope.square().mean())
''' + BEST, "did you sample"),
        ("other samples in each call", spread(last="float(noise.sqrt() / signal * (1 + 0.02 * torch.randn(())))") + BEST, "two values"),
        ("too coarse a grid", spread().replace("12_001", "61") + BEST, "too coarse"),
        ("the level that is best for the width", spread() + "\ndef best_level():\n    return 0.18\n", "relative"),
        ("too coarse a table", spread() + "\ndef best_level():\n    return 0.5\n", "fine enough"),
        ("absolute errors", spread() + '''
def best_level():
    total = lambda s: sum(spread(s, which, 0.6, 0.2) ** 2 for which in ("w", "tau"))
    return min((0.2 * 1.01**i for i in range(250)), key=total)
''', "relative"),
    ],
}
