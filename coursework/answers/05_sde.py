"""Right and wrong answers of chapter 5's coursework: the grader's tests. Each text replaces the whole solution cell of its task."""


def function(signature: str, body: str) -> str:
    """The source of a function; the lines of ``body`` are indented."""
    return f"\ndef {signature}:\n" + "".join(f"    {line}\n" for line in body.strip().split("\n"))


# ---- task 1 ----
def proportion(rates: str = "return 0.0, b**2 / 2, b**2", velocity: str = "return (a - b**2) * x - 0.5 * b**2 * x**2 * s",
               back: str = "return a * x - 0.5 * (1 + eta**2) * b**2 * (2 * x + x**2 * s)") -> str:
    return function("rates(b)", rates) + function("velocity(x, s, a, b)", velocity) + function("reverse_drift(x, s, a, b, eta)", back)


BY_DIVERGENCE = proportion(back='''
square, slope = b**2 * x**2, 2 * b**2 * x            # g^2 and its derivative
flow = a * x - 0.5 * (slope + square * s)
return flow - 0.5 * eta**2 * (slope + square * s)
''', velocity='''
u = torch.empty_like(x)
for i in range(len(x)):
    u[i] = x[i] * (a - b * b * (1 + 0.5 * x[i] * s[i]))
return u
''', rates="return [0, 0.5 * b * b, torch.tensor(b**2)]")
BY_LOG = proportion(velocity='''
log_score = 1 + x * s                                # log x has the constant noise b
return x * ((a - b**2 / 2) - b**2 / 2 * log_score)
''', back='''
log_score = 1 + x * s
in_log = (a - b**2 / 2) - (1 + eta**2) / 2 * b**2 * log_score
return x * (in_log - eta**2 * b**2 / 2)
''', rates='''
grows = lambda k, a: k * a + k * (k - 1) * b**2 / 2  # the rate of E[x^k]
solve = lambda k: -(k - 1) * b**2 / 2
assert all(abs(grows(k, solve(k))) < 1e-12 for k in (1, -1))
return solve(1), solve(0), solve(-1)
''')

# ---- task 2 ----
STEP = '''
rate = -drift / x - 0.5 * eta**2 * b**2
return x * torch.exp(h * rate + eta * b * h**0.5 * z)
'''


def positive(body: str) -> str:
    return function("step_back(x, drift, h, b, eta, z)", body)


# ---- task 3 ----
def bridge(sde: str = "return (y - x) / (1 - t), kappa**2", step: str = "return x0 + s / t * (x - x0), kappa**2 * s * (t - s) / t",
           denoise: str = "return (x - t * y + kappa**2 * t * (1 - t) * score) / (1 - t)") -> str:
    return (function("bridge_sde(x, t, y, kappa)", sde) + function("bridge_step(x, x0, s, t, y, kappa)", step)
            + function("bridge_denoise(x, score, t, y, kappa)", denoise))


BY_BAYES = bridge(step='''
if t == 1:                                           # x_1 = y: the path itself
    return (1 - s) * x0 + s * y, kappa**2 * s * (1 - s)
mean, var = (1 - s) * x0 + s * y, kappa**2 * s * (1 - s)
keeps = (1 - t) / (1 - s)                            # x_t = keeps x_s + (1 - keeps) y + noise
noise = kappa**2 * t * (1 - t) - keeps**2 * var
gain = var * keeps / (keeps**2 * var + noise)
return mean + gain * (x - keeps * mean - (1 - keeps) * y), var - gain * keeps * var
''', sde='''
f, c = -1 / (1 - t), 1 / (1 - t)
variance, slope = t * (1 - t), 1 - 2 * t
return f * x + c * y, (slope - 2 * f * variance) * kappa**2
''', denoise='''
centred = x - t * y
sigma = kappa * math.sqrt(t * (1 - t))
return (centred + sigma * sigma * score) / (1 - t)
''')
BY_COVARIANCE = bridge(sde='''
drift = torch.empty_like(x)
for i in range(x.shape[0]):
    drift[i] = (y - x[i]) / (1 - t)
return drift, torch.tensor(kappa) ** 2
''', step='''
far = s / t
return torch.lerp(x0, x, far), kappa * kappa * far * (t - s)
''', denoise='''
eps = -kappa * (t - t * t) ** 0.5 * score
return (x - t * y - kappa * (t - t * t) ** 0.5 * eps) / (1 - t)
''')

# ---- task 4 ----
ENDS = '''
variance = 0.0
for t, s in zip(times[:-1].tolist(), times[1:].tolist()):
    slope = v / ((1 - t) * v + kappa**2 * t)
    kept = s / t + (1 - s / t) * slope
    variance = kept**2 * variance + kappa**2 * s * (t - s) / t
return variance
'''


def strength(times: str = "return 1 / (1 + kappa**2 / levels**2)", ends: str = ENDS, best: str = "return 0.695 * v**0.5") -> str:
    return function("bridge_times(levels, kappa)", times) + function("end_variance(kappa, times, v)", ends) + function("best_kappa(v)", best)


BY_WEIGHTS = strength(times='''
square = levels**2
t = square / (square + kappa**2)
t[levels == float("inf")] = 1.0
return t
''', ends='''
later, total = 1.0, 0.0                              # what becomes of a step's noise later on
for i in range(len(times) - 2, -1, -1):
    t, s = float(times[i]), float(times[i + 1])
    total += later**2 * kappa**2 * s * (1 - s / t)
    later *= s / t + (1 - s / t) * (1 - t) * v / ((1 - t) ** 2 * v + kappa**2 * t * (1 - t) + 1e-300 * (t == 1))
return total
''', best='''
times = torch.linspace(1, 0, 21)
return max((v**0.5 * 0.2 * 1.02**i for i in range(140)), key=lambda kappa: end_variance(kappa, times, v))
''')
BY_PROBING = strength(times='''
out = []
for level in levels.tolist():
    low, high = 0.0, 1.0
    for _ in range(100):
        t = (low + high) / 2
        low, high = (t, high) if kappa * math.sqrt(t) < level * math.sqrt(1 - t) else (low, t)
    out.append(1.0 if level == math.inf else 0.0 if level == 0 else low)
return torch.tensor(out)
''', ends='''
C = torch.zeros(1, 1)                                # the covariance of x, by bridge_step itself
for t, s in zip(times[:-1].tolist(), times[1:].tolist()):
    def mean(x):
        var = (1 - t) ** 2 * v + kappa**2 * t * (1 - t)
        x0 = torch.zeros_like(x) if t == 1 else (1 - t) * v / var * x
        return bridge_step(x, x0, s, t, 0.0, kappa)
    A = mean(torch.ones(1, 1))[0] - mean(torch.zeros(1, 1))[0]
    C = A @ C @ A.T + mean(torch.zeros(1, 1))[1]
return C.sum()
''', best='''
low, high, golden, times = 0.1, 3.0, (5**0.5 - 1) / 2, torch.linspace(1, 0, 21)
f = lambda q: -float(end_variance(math.exp(q) * math.sqrt(v), times, v))
low, high = math.log(low), math.log(high)
while high - low > 0.01:
    p, q = high - golden * (high - low), low + golden * (high - low)
    low, high = (low, q) if f(p) < f(q) else (p, high)
return math.exp((low + high) / 2) * math.sqrt(v)
''')


# ---- task 5 ----
def sphere(body: str) -> str:
    return function("sphere_variance(J)", body)


RIGHT = {
    "proportion": [("formulas", proportion()), ("rates as a tensor", proportion(rates="return torch.tensor([0.0, b**2 / 2, b**2])")),
                   ("rates as an array", proportion(rates="import numpy as np\nreturn np.array([0.0, b**2 / 2, b**2])")),
                   ("by the divergence, in a loop", BY_DIVERGENCE), ("through log x", BY_LOG)],
    "positive": [("the factor exp", positive(STEP)), ("in y, with the flow and the noise apart", positive('''
y, noise = x.log(), eta * b * math.sqrt(h) * z
kick = noise - (eta * b) ** 2 * h / 2                # E[exp(kick)] = 1
return (y - h * drift / x + kick).exp()
''')), ("in a loop, by Itô's formula for log", positive('''
out = []
for x_i, B, z_i in zip(x.tolist(), drift.tolist(), z.tolist()):
    g = eta * b * x_i
    move = (-B) * (1 / x_i) + 0.5 * g**2 * (-1 / x_i**2)
    out.append(math.exp(math.log(x_i) + move * h + g / x_i * math.sqrt(h) * z_i))
return torch.tensor(out)
'''))],
    "bridge": [("what is left of it", bridge()), ("by Bayes' rule", BY_BAYES), ("in a loop, through eps", BY_COVARIANCE)],
    "strength": [("the recursion", strength()), ("backwards, with a search", BY_WEIGHTS), ("by bridge_step, golden section", BY_PROBING)],
    "sphere": [("closed form", sphere('''
D, S = len(J), (J + J.T) / 2
return float(2 * D / (D + 2) * (S.square().sum() - S.trace() ** 2 / D))
''')), ("from the moments, in loops", sphere('''
D = J.shape[0]
q, r = 3 * D / (D + 2), D / (D + 2)
S, second = 0.5 * J + 0.5 * J.T, 0.0
for i in range(D):
    second += q * S[i, i] ** 2
    for j in range(D):
        if i != j:
            second += r * (S[i, i] * S[j, j] + 2 * S[i, j] ** 2)
return second - torch.trace(J) ** 2
''')), ("from the eigenvalues", sphere('''
values = torch.linalg.eigvalsh((J + J.T) / 2)
n = values.numel()
return (values.var(correction=0) * 2 * n**2 / (n + 2)).item()
'''))],
}

WRONG = {
    "proportion": [
        ("no Itô term: all three zero", proportion(rates="return 0.0, 0.0, 0.0"), "second-order term"),
        ("the median's sign", proportion(rates="return 0.0, -(b**2) / 2, b**2"), "median"),
        ("in another order", proportion(rates="return b**2 / 2, 0.0, b**2"), "in the order mean, median, 1/x"),
        ("two numbers", proportion(rates="return 0.0, b**2 / 2"), "something else than three numbers"),
        ("half of the inverse's", proportion(rates="return 0.0, b**2 / 2, b**2 / 2"), "mean of 1/x"),
        ("b for b^2", proportion(rates="return 0.0, b / 2, b"), "median"),
        ("(5.14) as it stands", proportion(velocity="return a * x - 0.5 * b**2 * x**2 * s"), "derivative, too"),
        ("half of the derivative", proportion(velocity="return (a - b**2 / 2) * x - 0.5 * b**2 * x**2 * s"), "derivative, too"),
        ("the derivative with the wrong sign", proportion(velocity="return (a + b**2) * x - 0.5 * b**2 * x**2 * s"), "derivative, too"),
        ("no half in front of the score", proportion(velocity="return (a - b**2) * x - b**2 * x**2 * s"), "score looks wrong"),
        ("g for g^2", proportion(velocity="return (a - b**2) * x - 0.5 * b * x * s"), "score looks wrong"),
        ("(5.16) as it stands", proportion(back="return a * x - 0.5 * (1 + eta**2) * b**2 * x**2 * s"), "velocity of the flow"),
        ("the derivative for the flow alone", proportion(back="return (a - b**2) * x - 0.5 * (1 + eta**2) * b**2 * x**2 * s"), "derivative of g^2 included"),
        ("eta for eta^2", proportion(back="return a * x - 0.5 * (1 + eta) * b**2 * (2 * x + x**2 * s)"), "derivative of g^2 included"),
        ("Anderson for every eta", proportion(back="return a * x - b**2 * (2 * x + x**2 * s)"), "velocity of the flow"),
        ("the forward member of the family", proportion(back="return a * x - 0.5 * (1 - eta**2) * b**2 * (2 * x + x**2 * s)"), "cancel the diffusion"),
    ],
    "positive": [
        ("no Itô term", positive("return x * torch.exp(-h * drift / x + eta * b * h**0.5 * z)"), "second-order term"),
        ("the Itô term with the sign of the way back", positive(STEP.replace("- 0.5 * eta", "+ 0.5 * eta")), "second-order term"),
        ("the Itô term without eta", positive(STEP.replace("0.5 * eta**2 * b**2", "0.5 * b**2")), "second-order term"),
        ("a step in x", positive("return x - h * drift + eta * b * x * h**0.5 * z"), "positive"),
        ("a step in x, cut off at zero", positive("return (x - h * drift + eta * b * x * h**0.5 * z).clamp_min(1e-9)"),
         "linear in z"),
        ("time in the wrong direction", positive(STEP.replace("-drift", "drift")), "first order"),
        ("the drift not divided by x", positive(STEP.replace(" / x", "")), "first order"),
        ("noise without eta", positive(STEP.replace("+ eta * b", "+ b")), "factor of the noise"),
        ("noise h in the place of its root", positive(STEP.replace("h**0.5", "h")), "factor of the noise"),
    ],
    "bridge": [
        ("(5.9): no pull from y", bridge(sde="return -x / (1 - t), kappa**2"), "without x"),
        ("the noise of the marginal", bridge(sde="return (y - x) / (1 - t), kappa**2 * t * (1 - t)"), "g_sq is g squared"),
        ("the derivative of the variance for g^2", bridge(sde="return (y - x) / (1 - t), kappa**2 * (1 - 2 * t)"), "slope of the drift"),
        ("g for g^2", bridge(sde="return (y - x) / (1 - t), kappa"), "g_sq is g squared"),
        ("the pull divided by t", bridge(sde="return (y - x) / t, kappa**2"), "for every x_0"),
        ("away from y", bridge(sde="return (x - y) / (1 - t), kappa**2"), "sign is wrong"),
        ("the path's velocity, which knows no x", bridge(sde="return (y - 0 * x), kappa**2"), "for every x_0"),
        ("Bayes' rule with 0/0 at t = 1", BY_BAYES.replace("if t == 1:", "if False:"), "At t = 1"),
        ("DDIM's step without y", bridge(step='''
keep = 0.0 if t == 1 else (s * (1 - s) / (t * (1 - t))) ** 0.5
return (1 - s) * x0 + keep * (x - (1 - t) * x0), 0.0
'''), "for 0 at the far end"),
        ("DDPM's step of (5.20), which breaks where it starts", bridge(step='''
sigma = lambda r: kappa * (r * (1 - r)) ** 0.5
eps = (x - (1 - t) * x0) / max(sigma(t), 1e-12)
left = kappa**2 * s * (t - s) / t
return (1 - s) * x0 + max(sigma(s) ** 2 - left, 0.0) ** 0.5 * eps, left
'''), "first step"),
        ("a fresh draw of the marginal", bridge(step="return (1 - s) * x0 + s * y + 0 * x, kappa**2 * s * (1 - s)"), "covariance"),
        ("the ODE's step: no noise", bridge(step='''
keep = 0.0 if t == 1 else (s * (1 - s) / (t * (1 - t))) ** 0.5
return (1 - s) * x0 + s * y + keep * (x - (1 - t) * x0 - t * y), 0.0
'''), "covariance"),
        ("a standard deviation for the variance", bridge(step="return x0 + s / t * (x - x0), kappa * (s * (t - s) / t) ** 0.5"), "the variance is"),
        ("the forward variance", bridge(step="return x0 + s / t * (x - x0), kappa**2 * (t - s)"), "the variance is"),
        ("Tweedie as it stands", bridge(denoise="return (x + kappa**2 * t * (1 - t) * score) / (1 - t)"), "comes from y"),
        ("Tweedie with a standard deviation", bridge(denoise="return (x - t * y + kappa * (t * (1 - t)) ** 0.5 * score) / (1 - t)"), "VARIANCE"),
        ("Tweedie without the scale", bridge(denoise="return x - t * y + kappa**2 * t * (1 - t) * score"), "divides"),
        ("against the arrow", bridge(denoise="return (x - t * y - kappa**2 * t * (1 - t) * score) / (1 - t)"), "along the score"),
    ],
    "strength": [
        ("levels that are variances", strength(times="return 1 / (1 + kappa**2 / levels)"), "noise level"),
        ("the standard deviation alone", strength(times="return 0.5 + (0.25 - (levels / kappa).clamp_max(0.5) ** 2).sqrt()"), "noise level"),
        ("kappa forgotten", strength(times="return 1 / (1 + 1 / levels**2 + 0 * kappa)"), "noise level"),
        ("NaN at the level infinity", strength(times="return levels**2 / (levels**2 + kappa**2)"), "expected exactly 1 and 0"),
        ("the time of the other end", strength(times="return 1 / (1 + levels**2 / kappa**2)"), "noise level"),
        ("the noise of the marginal at each step", strength(ends=ENDS.replace("kappa**2 * s * (t - s) / t\n", "kappa**2 * s * (1 - s)\n")), "expected"),
        ("kept once, not squared", strength(ends=ENDS.replace("kept**2", "kept")), "expected"),
        ("the denoiser's gain without its scale", strength(ends=ENDS.replace("((1 - t) * v + kappa**2 * t)", "(v + kappa**2 * t * (1 - t))")), "expected"),
        ("the denoiser of x_0 known", strength(ends=ENDS.replace("kept = s / t + (1 - s / t) * slope", "kept = s / t")), "expected"),
        ("a standard deviation", strength(ends=ENDS.replace("return variance", "return variance**0.5")), "standard deviation"),
        ("begins with the variance of the noise", strength(ends=ENDS.replace("variance = 0.0", "variance = kappa**2")), "tells nothing"),
        ("one strength for all data", strength(best="return 0.695"), "far too large"),
        ("proportional to v", strength(best="return 0.695 * v"), "does not leave the largest"),
        ("as large as the data", strength(best="return v**0.5"), "which is larger"),
        ("a tenth too small", strength(best="return 0.62 * v**0.5"), "which is larger"),
        ("any kappa, with an end_variance that likes all", strength(ends="return 0.5", best="return 1.0"), "which is larger"),
    ],
    "sphere": [
        ("(5.29) with the sphere's fourth moment", sphere('''
D, S = len(J), (J + J.T) / 2
diagonal = S.diagonal().square().sum()
return 2 * (S.square().sum() - diagonal) + (3 * D / (D + 2) - 1) * diagonal
'''), "expected 0"),
        ("Gaussian probes", sphere("S = (J + J.T) / 2\nreturn 2 * S.square().sum()"), "expected 0"),
        ("signs", sphere("S = (J + J.T) / 2\nreturn 2 * (S.square().sum() - S.diagonal().square().sum())"), "turning the axes"),
        ("J not made symmetric", sphere("D = len(J)\nreturn 2 * D / (D + 2) * (J.square().sum() - J.trace() ** 2 / D)"), "expected 0"),
        ("the factor of a unit sphere", sphere("D, S = len(J), (J + J.T) / 2\nreturn 2 / D / (D + 2) * (S.square().sum() - S.trace() ** 2 / D)"),
         "100,000 probes"),
        ("no factor D / (D + 2)", sphere("D, S = len(J), (J + J.T) / 2\nreturn 2 * (S.square().sum() - S.trace() ** 2 / D)"), "100,000 probes"),
        ("a standard deviation", sphere("D, S = len(J), (J + J.T) / 2\nreturn (2 * D / (D + 2) * (S.square().sum() - S.trace() ** 2 / D).clamp_min(0)) ** 0.5"),
         "100,000 probes"),
        ("an estimate from samples", sphere('''
v = torch.randn(20_000, len(J), generator=torch.Generator().manual_seed(0))
v = len(J) ** 0.5 * v / v.norm(dim=1, keepdim=True)
return torch.einsum("ni,ij,nj->n", v, J, v).var()
'''), "did you sample"),
    ],
}
