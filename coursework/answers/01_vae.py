"""Right and wrong answers of chapter 1's coursework: the grader's tests."""

PARTS = {
    "weights": [
        ("torch.distributions", '''
from torch.distributions import Exponential, Poisson


def log_weight(x, z, gain, rate):
    joint = Exponential(torch.ones_like(z)).log_prob(z) + Poisson(gain * z).log_prob(x[:, None])
    return joint - Exponential(rate[:, None]).log_prob(z)
'''),
        ("a loop over the counts", '''
def log_weight(x, z, gain, rate):
    rows = []
    for k, draws, r in zip(x.tolist(), z, rate.tolist()):
        likelihood = k * math.log(gain) + k * draws.log() - gain * draws - math.lgamma(k + 1)
        rows.append(likelihood - draws - (math.log(r) - r * draws))
    return torch.stack(rows)
'''),
        ("collected terms, float32 out", '''
def log_weight(x, z, gain, rate):
    k, r = x.unsqueeze(1), rate.unsqueeze(1)
    value = (r - 1 - gain) * z + k * torch.log(z) + k * math.log(gain) - torch.lgamma(k + 1) - r.log()
    return value.float()
'''),
        ("xlogy and the factorial by a product", '''
def log_weight(x, z, gain, rate):
    factorial = torch.tensor([math.factorial(round(k)) for k in x.tolist()], dtype=z.dtype)
    log_likelihood = torch.xlogy(x[:, None], gain * z) - gain * z - factorial.log()[:, None]
    return log_likelihood - z - rate[:, None].log() + rate[:, None] * z
'''),
    ],
    "bound": [
        ("one line", '''
def bound(x, gain, rate, beta):
    return (x * (math.log(gain / rate) - EULER) - gain / rate - math.log(math.factorial(x))
            - beta * (math.log(rate) + 1 / rate - 1))
'''),
        ("through the mean of z", '''
def bound(x, gain, rate, beta):
    mean = 1 / rate
    log_factorial = sum(math.log(k) for k in range(1, x + 1))
    likelihood = x * (math.log(gain * mean) - EULER) - gain * mean - log_factorial
    kl = mean - 1 - math.log(mean)
    return likelihood - beta * kl
'''),
        ("tensors and the digamma function", '''
def bound(x, gain, rate, beta):
    rate, gain, x = (torch.tensor(float(v), dtype=torch.float64) for v in (rate, gain, x))
    mean_log = torch.digamma(torch.ones((), dtype=torch.float64)) - rate.log()
    entropy = 1 - rate.log()
    price = -entropy + 1 / rate
    return x * (gain.log() + mean_log) - gain / rate - torch.lgamma(x + 1) - beta * price
'''),
        ("the library of torch for the price", '''
from torch.distributions import Exponential, kl_divergence


def bound(x, gain, rate, beta):
    q, p = (Exponential(torch.tensor(r, dtype=torch.float64)) for r in (rate, 1.0))
    rebuild = x * math.log(gain) + x * (-EULER - math.log(rate)) - gain * q.mean - math.lgamma(x + 1)
    return float(rebuild - beta * kl_divergence(q, p))
'''),
    ],
    "best-rate": [
        ("one over the best mean", '''
def best_rate(x, gain, beta):
    mean = (x + beta) / (gain + beta)
    return 1 / mean
'''),
        ("a tensor", '''
def best_rate(x, gain, beta):
    return torch.tensor(gain + beta, dtype=torch.float64) / torch.tensor(x + beta, dtype=torch.float64)
'''),
        ("divided by beta", '''
def best_rate(x, gain, beta):
    return (1 + gain / beta) / (1 + x / beta)
'''),
        ("the root of the slope, by bisection", '''
def best_rate(x, gain, beta):
    low, high = 1e-6, 1e6
    for _ in range(200):
        r = (low * high) ** 0.5
        slope = -(x + beta) / r + (gain + beta) / r**2
        low, high = (r, high) if slope > 0 else (low, r)
    return r
'''),
    ],
    "pathwise": [
        ("exponential_ and autograd", '''
def pathwise(f, rate, n, generator):
    noise = torch.empty(n, dtype=torch.float64).exponential_(generator=generator)
    log_rate = torch.full((n,), math.log(rate), dtype=torch.float64, requires_grad=True)
    f(noise * torch.exp(-log_rate)).sum().backward()
    return log_rate.grad
'''),
        ("a central difference of f", '''
def pathwise(f, rate, n, generator):
    noise = -torch.log(1 - torch.rand(n, generator=generator, dtype=torch.float64))
    h = 1e-5
    up, down = noise / (rate * math.exp(h)), noise / (rate * math.exp(-h))
    return (f(up) - f(down)) / (2 * h)
'''),
        ("a loop over the draws", '''
def pathwise(f, rate, n, generator):
    u = torch.rand(n, generator=generator, dtype=torch.float64)
    z = (-(1 - u).log() / rate).requires_grad_()
    value = f(z)
    slope = torch.autograd.grad(value, z, grad_outputs=torch.ones_like(value))[0]
    return torch.tensor([-a * b for a, b in zip(z.tolist(), slope.tolist())], dtype=torch.float64)
'''),
        ("half a squared radius of two Gaussians", '''
def pathwise(f, rate, n, generator):
    pair = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    z = pair.square().sum(1) / 2 / rate
    z.requires_grad_(True)
    f(z).sum().backward()
    return -z.grad * z.detach()
'''),
        ("a difference with one step for every draw", '''
def pathwise(f, rate, n, generator):
    z = -torch.log1p(-torch.rand(n, generator=generator, dtype=torch.float64)) / rate
    h = 1e-6 * z.clamp(min=1e-3)
    return -z * (f(z + h) - f(z - h)) / (2 * h)
'''),
    ],
    "baseline": [
        ("moments summed", '''
def baseline(rate):
    m = [math.factorial(k) / rate**k for k in range(5)]          # E z^k
    a = m[2] - 2 * rate * m[3] + rate**2 * m[4]                  # E z^2 (1 - r z)^2
    b = m[1] - 2 * rate * m[2] + rate**2 * m[3]                  # E z (1 - r z)^2
    c = 1 - 2 * rate * m[1] + rate**2 * m[2]                     # E (1 - r z)^2
    slope = m[1] - rate * m[2]
    best = b / c
    return a - slope**2, best, a - 2 * best * b + best**2 * c - slope**2
'''),
        ("scaled from rate 1", '''
def baseline(rate):
    scale = 1 / rate
    return 13 * scale**2, 3 * scale, (14 - 9 - 1) * scale**2
'''),
        ("tensors", '''
def baseline(rate):
    r = torch.tensor(rate, dtype=torch.float64)
    variance = lambda b: 14 / r**2 - 6 * b / r + b**2 - 1 / r**2
    best = 3 / r
    return variance(torch.zeros_like(r)), best, variance(best)
'''),
        ("a list", '''
def baseline(rate):
    return [13 / rate**2, 3 / rate, 4 / rate**2]
'''),
        ("one tensor of three, float32", '''
def baseline(rate):
    return torch.tensor([13 / rate**2, 3 / rate, 4 / rate**2])
'''),
    ],
    "chi-sq": [
        ("factorials", '''
def chi_sq(x, gain, rate):
    c = 2 * (1 + gain) - rate
    if c <= 0:
        return math.inf
    binomial = math.factorial(2 * x) / math.factorial(x) ** 2
    return binomial * (1 + gain) ** (2 * x + 2) / (rate * c ** (2 * x + 1)) - 1
'''),
        ("math.comb, infinity as a float", '''
def chi_sq(x, gain, rate):
    tail = 2 + 2 * gain - rate
    ratio = (1 + gain) / tail if tail > 0 else float("inf")
    return math.comb(2 * x, x) * (1 + gain) / rate * ratio ** (2 * x + 1) - 1
'''),
        ("logarithms in torch", '''
def chi_sq(x, gain, rate):
    x, gain, rate = (torch.tensor(float(v), dtype=torch.float64) for v in (x, gain, rate))
    tail = 2 * (1 + gain) - rate
    if not tail > 0:
        return torch.tensor(math.inf)
    log_norm = 2 * (x + 1) * torch.log1p(gain) - 2 * torch.lgamma(x + 1) - rate.log()
    return torch.expm1(log_norm + torch.lgamma(2 * x + 1) - (2 * x + 1) * tail.log())
'''),
    ],
    "many-draws": [
        ("the best rate at beta = 1", '''
def best_rate_many(x, gain):
    return best_rate(x, gain, 1.0)
'''),
        ("one over the posterior's mean", '''
def best_rate_many(x, gain):
    mean = (x + 1) / (gain + 1)
    return mean**-1
'''),
        ("from the slope", '''
def best_rate_many(x, gain):
    # 1 / r = (2 x + 1) / (2 (1 + g) - r)
    return 2 * (1 + gain) / (2 * x + 2)
'''),
        ("a search", '''
def best_rate_many(x, gain):
    low, high = 1e-6, 2 * (1 + gain) - 1e-9
    for _ in range(200):
        r = (low + high) / 2
        slope = 1 / r - (2 * x + 1) / (2 * (1 + gain) - r)
        low, high = (r, high) if slope > 0 else (low, r)
    return low
'''),
    ],
    "best-decoder": [
        ("singular values", '''
def best_decoder(S, noise, beta, latents):
    root = torch.diag(noise.sqrt())
    white = torch.linalg.inv(root) @ S @ torch.linalg.inv(root)
    U, s, _ = torch.linalg.svd(white)
    lengths = torch.relu(s[:latents] - beta).sqrt()
    return root @ U[:, :latents] @ torch.diag(lengths)
'''),
        ("noise beta * N, then beta = 1, column by column", '''
def best_decoder(S, noise, beta, latents):
    n = beta * noise
    values, vectors = torch.linalg.eigh(S / (n[:, None] * n[None]).sqrt())
    W = torch.zeros(len(S), latents, dtype=S.dtype)
    for j in range(latents):
        value, vector = values[-1 - j], vectors[:, -1 - j]
        if value > 1:
            W[:, j] = n.sqrt() * vector * (value - 1).sqrt()
    return W
'''),
        ("a random rotation of the latents", '''
def best_decoder(S, noise, beta, latents):
    values, vectors = torch.linalg.eigh(S / noise.sqrt()[:, None] / noise.sqrt()[None])
    values, vectors = values[-latents:], vectors[:, -latents:]
    W = noise.sqrt()[:, None] * (vectors * (values - beta).clamp_min(0).sqrt())
    turn = torch.linalg.qr(torch.randn(latents, latents, generator=torch.Generator().manual_seed(0), dtype=S.dtype))[0]
    return W @ turn
'''),
        ("numpy, one eigenvector at a time", '''
import numpy as np


def best_decoder(S, noise, beta, latents):
    n = noise.numpy()
    values, vectors = np.linalg.eigh(S.numpy() / np.sqrt(np.outer(n, n)))
    order = np.argsort(-values)[:latents]
    columns = [np.sqrt(n) * vectors[:, j] * np.sqrt(max(values[j] - beta, 0.0)) for j in order]
    return torch.from_numpy(np.stack(columns, 1))
'''),
    ],
    "survivors": [
        ("from W", '''
alive_camera = int((best_decoder(S, noise_camera, 4.0, 8).norm(dim=0) > 1e-6).sum())
alive_flat = int((best_decoder(S, noise_flat, 4.0, 8).norm(dim=0) > 1e-6).sum())
W = best_decoder(S, noise_camera, 4.0, 8)
C = W @ W.T + 4 * torch.diag(noise_camera)
told_camera = 0.5 * (torch.logdet(C) - (4 * noise_camera).log().sum()).item()
'''),
        ("through the encoder and (1.6)", '''
def told(noise):
    W = best_decoder(S, noise, 4.0, 8)
    B = W.T @ torch.diag(1 / (4 * noise)) @ W + torch.eye(8, dtype=S.dtype)
    V = torch.linalg.solve(B, W.T / (4 * noise))
    s_sq = torch.linalg.inv(B).diagonal()
    kl = 0.5 * ((V @ S @ V.T).diagonal() + s_sq - 1 - s_sq.log())
    return kl


alive_camera, alive_flat = (int((told(n) > 1e-9).sum()) for n in (noise_camera, noise_flat))
told_camera = float(told(noise_camera).sum())
'''),
        ("inertia, and numbers typed", '''
alive_camera = (torch.linalg.eigvalsh(S - 4 * torch.diag(noise_camera)) > 0).sum().item()
alive_flat = 3
told_camera = 2.873
'''),
        ("tensors without an axis", '''
levels = torch.linalg.eigvalsh(S / noise_camera.sqrt()[:, None] / noise_camera.sqrt()).flip(0)[:8]
alive_camera = (levels > 4).sum()
alive_flat = (torch.linalg.eigvalsh(S) > 4 * noise_flat[0]).sum()
told_camera = 0.5 * (levels / 4).log().clamp(min=0).sum()
'''),
    ],
}

WRONG_PARTS = {
    "weights": [
        ("log x! is left out", '''
def log_weight(x, z, gain, rate):
    x, rate = x[:, None], rate[:, None]
    return x * (gain * z).log() - gain * z - z - rate.log() + rate * z
''', "log x!"),
        ("the Gaussian prior of the chapter", '''
def log_weight(x, z, gain, rate):
    x, rate = x[:, None], rate[:, None]
    prior = -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
    return prior + x * (gain * z).log() - gain * z - torch.lgamma(x + 1) - rate.log() + rate * z
''', "log p(z)"),
        ("the sign of log q", '''
def log_weight(x, z, gain, rate):
    x, rate = x[:, None], rate[:, None]
    return x * (gain * z).log() - gain * z - torch.lgamma(x + 1) - z + rate.log() - rate * z
''', "sign"),
        ("the rate as the mean", '''
def log_weight(x, z, gain, rate):
    x, mean = x[:, None], rate[:, None]
    return x * (gain * z).log() - gain * z - torch.lgamma(x + 1) - z + mean.log() + z / mean
''', "one over the mean"),
        ("the log(rate) of q is left out", '''
def log_weight(x, z, gain, rate):
    x, rate = x[:, None], rate[:, None]
    return x * (gain * z).log() - gain * z - torch.lgamma(x + 1) - z + rate * z
''', "log(rate)"),
        ("the gain inside the logarithm is left out", '''
def log_weight(x, z, gain, rate):
    x, rate = x[:, None], rate[:, None]
    return x * z.log() - gain * z - torch.lgamma(x + 1) - z - rate.log() + rate * z
''', "log(gain)"),
        ("averaged over the draws", '''
def log_weight(x, z, gain, rate):
    x, rate = x[:, None], rate[:, None]
    return (x * (gain * z).log() - gain * z - torch.lgamma(x + 1) - z - rate.log() + rate * z).mean(1)
''', "nothing is averaged"),
        ("the posterior's normalised density instead of the joint", '''
def log_weight(x, z, gain, rate):
    x, rate = x[:, None], rate[:, None]
    post = (x + 1) * math.log(1 + gain) + x * z.log() - (1 + gain) * z - torch.lgamma(x + 1)
    return post - rate.log() + rate * z
''', "p(x)"),
        ("the weights and not their logarithm", '''
def log_weight(x, z, gain, rate):
    x, rate = x[:, None], rate[:, None]
    return (x * (gain * z).log() - gain * z - torch.lgamma(x + 1) - z - rate.log() + rate * z).exp()
''', "log w is asked"),
        ("the weights, float32", '''
def log_weight(x, z, gain, rate):
    x, rate = x[:, None], rate[:, None]
    return (x * (gain * z).log() - gain * z - torch.lgamma(x + 1) - z - rate.log() + rate * z).float().exp()
''', "log w is asked"),
    ],
    "bound": [
        ("log of the mean for the mean of the log", '''
def bound(x, gain, rate, beta):
    return x * math.log(gain / rate) - gain / rate - math.lgamma(x + 1) - beta * (math.log(rate) + 1 / rate - 1)
''', "E log z"),
        ("the KL the other way round", '''
def bound(x, gain, rate, beta):
    rebuild = x * (math.log(gain / rate) - EULER) - gain / rate - math.lgamma(x + 1)
    return rebuild - beta * (rate - 1 - math.log(rate))
''', "other way round"),
        ("the rate as the mean", '''
def bound(x, gain, rate, beta):
    rebuild = x * (math.log(gain * rate) - EULER) - gain * rate - math.lgamma(x + 1)
    return rebuild - beta * (rate - 1 - math.log(rate))
''', "mean of z"),
        ("the chapter's Gaussian KL (1.6)", '''
def bound(x, gain, rate, beta):
    rebuild = x * (math.log(gain / rate) - EULER) - gain / rate - math.lgamma(x + 1)
    mean, variance = 1 / rate, 1 / rate**2
    return rebuild - beta * 0.5 * (mean**2 + variance - 1 - math.log(variance))
''', "expected"),
        ("no beta", '''
def bound(x, gain, rate, beta):
    rebuild = x * (math.log(gain / rate) - EULER) - gain / rate - math.lgamma(x + 1)
    return rebuild - (math.log(rate) + 1 / rate - 1)
''', "beta is not used"),
        ("no log x!", '''
def bound(x, gain, rate, beta):
    rebuild = x * (math.log(gain / rate) - EULER) - gain / rate
    return rebuild - beta * (math.log(rate) + 1 / rate - 1)
''', "log x!"),
        ("the price added", '''
def bound(x, gain, rate, beta):
    rebuild = x * (math.log(gain / rate) - EULER) - gain / rate - math.lgamma(x + 1)
    return rebuild + beta * (math.log(rate) + 1 / rate - 1)
''', "sign"),
        ("only right at beta = 1", '''
def bound(x, gain, rate, beta):
    rebuild = x * (math.log(gain / rate) - EULER) - gain / rate - math.lgamma(x + 1)
    return rebuild - beta * math.log(rate) - 1 / rate + 1
''', "expected"),
        ("E log z of the prior", '''
def bound(x, gain, rate, beta):
    rebuild = x * (math.log(gain) - EULER) - gain / rate - math.lgamma(x + 1)
    return rebuild - beta * (math.log(rate) + 1 / rate - 1)
''', "-gamma for q as well"),
    ],
    "best-rate": [
        ("one over the posterior's mean, whatever beta", '''
def best_rate(x, gain, beta):
    return (gain + 1) / (x + 1)
''', "not the top"),
        ("the mean", '''
def best_rate(x, gain, beta):
    return (x + beta) / (gain + beta)
''', "reciprocal"),
        ("the posterior's own rate", '''
def best_rate(x, gain, beta):
    return 1 + gain / beta
''', "not the top"),
        ("beta on the other side", '''
def best_rate(x, gain, beta):
    return (1 + beta * gain) / (1 + beta * x)
''', "not the top"),
        ("no prior", '''
def best_rate(x, gain, beta):
    return gain / max(x, 0.5)
''', "not the top"),
        ("the prior counted once only", '''
def best_rate(x, gain, beta):
    return (gain + beta) / (x + 1)
''', "not the top"),
    ],
    "pathwise": [
        ("the slope in rate", '''
def pathwise(f, rate, n, generator):
    z = (-torch.log1p(-torch.rand(n, generator=generator, dtype=torch.float64)) / rate).requires_grad_()
    slope, = torch.autograd.grad(f(z).sum(), z)
    return -(z * slope).detach() / rate
''', "slope in rate"),
        ("the sign", '''
def pathwise(f, rate, n, generator):
    z = (-torch.log1p(-torch.rand(n, generator=generator, dtype=torch.float64)) / rate).requires_grad_()
    slope, = torch.autograd.grad(f(z).sum(), z)
    return (z * slope).detach()
''', "sign"),
        ("through the density", '''
def pathwise(f, rate, n, generator):
    z = -torch.log1p(-torch.rand(n, generator=generator, dtype=torch.float64)) / rate
    return f(z) * (1 - rate * z)
''', "every single slope"),
        ("the chapter's Gaussian draw", '''
def pathwise(f, rate, n, generator):
    eps = torch.randn(n, generator=generator, dtype=torch.float64)
    z = (1 / rate + eps / rate).abs().requires_grad_()
    slope, = torch.autograd.grad(f(z).sum(), z)
    return (0.5 * eps / rate * slope).detach()
''', "every single slope"),
        ("the rate as the mean of the draw", '''
def pathwise(f, rate, n, generator):
    z = (-torch.log1p(-torch.rand(n, generator=generator, dtype=torch.float64)) * rate).requires_grad_()
    slope, = torch.autograd.grad(f(z).sum(), z)
    return -(z * slope).detach()
''', "mean for f(z) = z"),
        ("their mean", '''
def pathwise(f, rate, n, generator):
    z = (-torch.log1p(-torch.rand(n, generator=generator, dtype=torch.float64)) / rate).requires_grad_()
    slope, = torch.autograd.grad(f(z).sum(), z)
    return -(z * slope).detach().mean()
''', "shape"),
        ("uniform noise without the logarithm: the right form, the wrong law", '''
def pathwise(f, rate, n, generator):
    z = (2 * torch.rand(n, generator=generator, dtype=torch.float64) / rate).requires_grad_()
    slope, = torch.autograd.grad(f(z).sum(), z)
    return -(z * slope).detach()
''', "variance for f(z) = z"),
        ("the global generator", '''
def pathwise(f, rate, n, generator):
    z = torch.distributions.Exponential(torch.tensor(rate).double()).rsample((n,)).requires_grad_()
    slope, = torch.autograd.grad(f(z).sum(), z)
    return -(z * slope).detach()
''', "equal generators"),
        ("a Gaussian of the right mean and variance, scaled by the rate", '''
def pathwise(f, rate, n, generator):
    z = ((1 + torch.randn(n, generator=generator, dtype=torch.float64)) / rate).requires_grad_()
    slope, = torch.autograd.grad(f(z).sum(), z)
    return -(z * slope).detach()
''', "z < 0"),
        ("a uniform of the right mean and variance", '''
def pathwise(f, rate, n, generator):
    u = torch.rand(n, generator=generator, dtype=torch.float64)
    z = ((1 + 3**0.5 * (2 * u - 1)) / rate).requires_grad_()
    slope, = torch.autograd.grad(f(z).sum(), z)
    return -(z * slope).detach()
''', "z < 0"),
        ("a log-normal of the right mean and variance, positive", '''
def pathwise(f, rate, n, generator):
    s = math.log(2) ** 0.5
    eps = torch.randn(n, generator=generator, dtype=torch.float64)
    z = ((s * eps - s**2 / 2).exp() / rate).requires_grad_()
    slope, = torch.autograd.grad(f(z).sum(), z)
    return -(z * slope).detach()
''', "exp(-z)"),
        ("no noise at all", '''
def pathwise(f, rate, n, generator):
    z = torch.full((n,), 1 / rate, dtype=torch.float64).requires_grad_()
    slope, = torch.autograd.grad(f(z).sum(), z)
    return -(z * slope).detach()
''', "where is the noise"),
    ],
    "baseline": [
        ("the mean of f, as in the chapter", '''
def baseline(rate):
    return 13 / rate**2, 1 / rate, 8 / rate**2
''', "mean of f"),
        ("the square of the mean slope is left in", '''
def baseline(rate):
    return 14 / rate**2, 3 / rate, 5 / rate**2
''', "not subtracted"),
        ("the slope in rate", '''
def baseline(rate):
    return 13 / rate**4, 3 / rate, 4 / rate**4
''', "not in log(rate)"),
        ("the sign of b", '''
def baseline(rate):
    return 13 / rate**2, -3 / rate, 4 / rate**2
''', "larger baseline"),
        ("the baseline is forgotten in the last number", '''
def baseline(rate):
    return 13 / rate**2, 3 / rate, 13 / rate**2
''', "expected"),
        ("the variance of the slope through the draw", '''
def baseline(rate):
    return 1 / rate**2, 3 / rate, 1 / rate**2
''', "3a"),
        ("right at rate 1 alone", '''
def baseline(rate):
    return 13.0, 3.0, 4.0
''', "expected"),
    ],
    "chi-sq": [
        ("the Gaussian formula (1.21), with mean and width of the posterior", '''
def chi_sq(x, gain, rate):
    mean, std = (x + 1) / (1 + gain), (x + 1) ** 0.5 / (1 + gain)
    a, b = (1 / rate - mean) / std, 1 / rate / std
    if 2 * b**2 <= 1:
        return math.inf
    return b**2 / (2 * b**2 - 1) ** 0.5 * math.exp(a**2 / (2 * b**2 - 1)) - 1
''', "chi_sq"),
        ("the 1 is left out", '''
def chi_sq(x, gain, rate):
    c = 2 * (1 + gain) - rate
    return math.inf if c <= 0 else math.comb(2 * x, x) * (1 + gain) ** (2 * x + 2) / (rate * c ** (2 * x + 1))
''', "1 is not subtracted"),
        ("never infinite", '''
def chi_sq(x, gain, rate):
    c = abs(2 * (1 + gain) - rate)
    return math.comb(2 * x, x) * (1 + gain) ** (2 * x + 2) / (rate * c ** (2 * x + 1)) - 1
''', "math.inf"),
        ("infinite already at the posterior's own tail", '''
def chi_sq(x, gain, rate):
    c = 2 * (1 + gain) - rate
    if rate > 1 + gain:
        return math.inf
    return math.comb(2 * x, x) * (1 + gain) ** (2 * x + 2) / (rate * c ** (2 * x + 1)) - 1
''', "is infinite; expected"),
        ("x! once and not squared", '''
def chi_sq(x, gain, rate):
    c = 2 * (1 + gain) - rate
    if c <= 0:
        return math.inf
    return math.factorial(2 * x) / math.factorial(x) * (1 + gain) ** (2 * x + 2) / (rate * c ** (2 * x + 1)) - 1
''', "chi_sq"),
        ("one power too few", '''
def chi_sq(x, gain, rate):
    c = 2 * (1 + gain) - rate
    return math.inf if c <= 0 else math.comb(2 * x, x) * (1 + gain) ** (2 * x + 1) / (rate * c ** (2 * x)) - 1
''', "chi_sq"),
        ("NaN on the far side of the border", '''
def chi_sq(x, gain, rate):
    c = torch.tensor(2 * (1 + gain) - rate).double()
    log = (2 * x + 2) * math.log(1 + gain) + math.lgamma(2 * x + 1) - 2 * math.lgamma(x + 1)
    return torch.exp(log - math.log(rate) - (2 * x + 1) * c.log()) - 1
''', "math.inf"),
        ("posterior and q exchanged", '''
def chi_sq(x, gain, rate):
    grid = torch.linspace(-40, 7, 8000, dtype=torch.float64)
    z, step = grid.exp(), 47 / 7999
    post = (x + 1) * math.log(1 + gain) + x * grid - (1 + gain) * z - math.lgamma(x + 1)
    return float(((2 * (math.log(rate) - rate * z) - post).exp() * z * step).sum()) - 1
''', "chi"),
        ("the border divides by zero", '''
def chi_sq(x, gain, rate):
    c = 2 * (1 + gain) - rate
    if c < 0:
        return math.inf
    return math.comb(2 * x, x) * (1 + gain) ** (2 * x + 2) / (rate * c ** (2 * x + 1)) - 1
''', "exactly chi_sq raised ZeroDivisionError"),
    ],
    "many-draws": [
        ("a little wider, as the chapter advises", '''
def best_rate_many(x, gain):
    return 0.8 * (1 + gain) / (1 + x)
''', "larger rate"),
        ("a factor 2 from the square", '''
def best_rate_many(x, gain):
    return 2 * (1 + gain) / (2 * x + 1)
''', "smaller rate"),
        ("the width of the posterior", '''
def best_rate_many(x, gain):
    return (1 + gain) / (x + 1) ** 0.5
''', "smaller rate"),
        ("the posterior's tail", '''
def best_rate_many(x, gain):
    return 1 + gain
''', "smaller rate"),
        ("the mean", '''
def best_rate_many(x, gain):
    return (1 + x) / (1 + gain)
''', "rate"),
        ("the likelihood's own peak", '''
def best_rate_many(x, gain):
    return (1 + gain) / (x + 0.5)
''', "smaller rate"),
    ],
    "best-decoder": [
        ("the chapter's formula with the mean noise", '''
def best_decoder(S, noise, beta, latents):
    values, vectors = torch.linalg.eigh(S)
    values, vectors = values.flip(0)[:latents], vectors.flip(1)[:, :latents]
    return vectors * (values - beta * noise.mean()).clamp(min=0).sqrt()
''', "flat noise"),
        ("not scaled back", '''
def best_decoder(S, noise, beta, latents):
    values, vectors = torch.linalg.eigh(S / noise.sqrt()[:, None] / noise.sqrt())
    return vectors.flip(1)[:, :latents] * (values.flip(0)[:latents] - beta).clamp(min=0).sqrt()
''', "scale W back"),
        ("the columns of zeros are dropped", '''
def best_decoder(S, noise, beta, latents):
    values, vectors = torch.linalg.eigh(S / noise.sqrt()[:, None] / noise.sqrt())
    W = vectors.flip(1)[:, :latents] * (values.flip(0)[:latents] - beta).clamp(min=0).sqrt()
    return (noise.sqrt()[:, None] * W)[:, values.flip(0)[:latents] > beta]
''', "keeps a column of zeros"),
        ("no beta", '''
def best_decoder(S, noise, beta, latents):
    values, vectors = torch.linalg.eigh(S / noise.sqrt()[:, None] / noise.sqrt())
    W = vectors.flip(1)[:, :latents] * (values.flip(0)[:latents] - 1).clamp(min=0).sqrt()
    return noise.sqrt()[:, None] * W
''', "beta * noise"),
        ("the root of a negative number", '''
def best_decoder(S, noise, beta, latents):
    values, vectors = torch.linalg.eigh(S / noise.sqrt()[:, None] / noise.sqrt())
    W = vectors.flip(1)[:, :latents] * (values.flip(0)[:latents] - beta).sqrt()
    return noise.sqrt()[:, None] * W
''', "NaN"),
        ("variances for standard deviations", '''
def best_decoder(S, noise, beta, latents):
    values, vectors = torch.linalg.eigh(S / noise[:, None] / noise)
    return noise[:, None] * vectors.flip(1)[:, :latents] * (values.flip(0)[:latents] - beta).clamp(min=0).sqrt()
''', "falls short"),
        ("the smallest directions", '''
def best_decoder(S, noise, beta, latents):
    values, vectors = torch.linalg.eigh(S / noise.sqrt()[:, None] / noise.sqrt())
    return noise.sqrt()[:, None] * vectors[:, :latents] * (values[:latents] - beta).clamp(min=0).sqrt()
''', "falls short"),
        ("nothing subtracted: the data's own lengths", '''
def best_decoder(S, noise, beta, latents):
    values, vectors = torch.linalg.eigh(S / noise.sqrt()[:, None] / noise.sqrt())
    W = vectors.flip(1)[:, :latents] * torch.where(values > beta, values, 0 * values).flip(0)[:latents].sqrt()
    return noise.sqrt()[:, None] * W
''', "falls short"),
        ("transposed", '''
def best_decoder(S, noise, beta, latents):
    values, vectors = torch.linalg.eigh(S / noise.sqrt()[:, None] / noise.sqrt())
    W = vectors.flip(1)[:, :latents] * (values.flip(0)[:latents] - beta).clamp(min=0).sqrt()
    return (noise.sqrt()[:, None] * W).T
''', "shape"),
    ],
    "survivors": [
        ("the mean noise for both cameras", '''
values = torch.linalg.eigvalsh(S).flip(0)[:8]
alive_camera = alive_flat = int((values > 4 * 0.5).sum())
told_camera = float(0.5 * (values / 2).log().clamp(min=0).sum())
''', "alive_camera"),
        ("beta is left out", '''
values = torch.linalg.eigvalsh(S / noise_camera.sqrt()[:, None] / noise_camera.sqrt()).flip(0)[:8]
alive_camera = int((values > 1).sum())
alive_flat = int((torch.linalg.eigvalsh(S).flip(0)[:8] > 0.5).sum())
told_camera = float(0.5 * values.log().clamp(min=0).sum())
''', "alive_camera"),
        ("no factor one half in the nats", '''
values = torch.linalg.eigvalsh(S / noise_camera.sqrt()[:, None] / noise_camera.sqrt()).flip(0)[:8]
alive_camera, alive_flat = int((values > 4).sum()), 3
told_camera = float((values / 4).log().clamp(min=0).sum())
''', "told_camera"),
        ("nats above one instead of above beta", '''
values = torch.linalg.eigvalsh(S / noise_camera.sqrt()[:, None] / noise_camera.sqrt()).flip(0)[:8]
alive_camera, alive_flat = int((values > 4).sum()), 3
told_camera = float(0.5 * values[:alive_camera].log().sum())
''', "told_camera"),
        ("the pixels are counted, not the directions", '''
alive_camera = min(8, int((S.diagonal() > 4 * noise_camera).sum()))
alive_flat = min(8, int((S.diagonal() > 4 * noise_flat).sum()))
told_camera = 0.0
''', "alive_"),
        ("the sum over all 64 directions, clipped, is not asked; and the flat camera is beta-free", '''
values = torch.linalg.eigvalsh(S / noise_camera.sqrt()[:, None] / noise_camera.sqrt()).flip(0)[:8]
alive_camera, alive_flat = int((values > 4).sum()), 8
told_camera = float(0.5 * (values / 4).log().clamp(min=0).sum())
''', "alive_flat"),
        ("bits for nats", '''
values = torch.linalg.eigvalsh(S / noise_camera.sqrt()[:, None] / noise_camera.sqrt()).flip(0)[:8]
alive_camera, alive_flat = int((values > 4).sum()), 3
told_camera = float(0.5 * (values / 4).log2().clamp(min=0).sum())
''', "told_camera"),
        ("beta times the price", '''
values = torch.linalg.eigvalsh(S / noise_camera.sqrt()[:, None] / noise_camera.sqrt()).flip(0)[:8]
alive_camera, alive_flat = int((values > 4).sum()), 3
told_camera = float(2 * (values / 4).log().clamp(min=0).sum())
''', "beta times the price"),
        ("no numbers", '''
alive_camera, alive_flat, told_camera = "6", [3], 2.873
''', "whole number"),
    ],
}


# A task of two parts is one cell: a right one of the other part stands beside each answer.
CELLS = {"weights": ("weights",), "encoder": ("bound", "best-rate"), "slopes": ("pathwise", "baseline"),
         "draws": ("chi-sq", "many-draws"), "camera": ("best-decoder", "survivors")}


def right(parts):
    """Every right answer of each part at least once, the parts of a cell side by side."""
    most = max(len(PARTS[part]) for part in parts)
    chosen = [[PARTS[part][i % len(PARTS[part])] for part in parts] for i in range(most)]
    return [("; ".join(name for name, _ in row), "".join(code for _, code in row)) for row in chosen]


def wrong(parts):
    """Each wrong answer of a part, beside the first right one of the other part."""
    answers = []
    for part in parts:
        for name, code, word in WRONG_PARTS[part]:
            answers.append((name, "".join(code if p == part else PARTS[p][0][1] for p in parts), word))
    return answers


RIGHT = {cell: right(parts) for cell, parts in CELLS.items()}
WRONG = {cell: wrong(parts) for cell, parts in CELLS.items()}
