"""Right and wrong answers of chapter 2's coursework: the grader's tests. The text takes the place of the whole solution cell."""

RIGHT = {
    "marginal": [
        ("a loop over floats", '''
def marginal(a, b):
    alpha, sigma = [1.0], [0.0]
    for k in range(len(a)):
        alpha.append(alpha[-1] * float(a[k]))
        sigma.append(math.hypot(float(a[k]) * sigma[-1], float(b[k])))
    return torch.tensor(alpha, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64)
'''),
        ("cumulative products and sums", '''
def marginal(a, b):
    alpha = torch.cat([a.new_ones(1), a.cumprod(0)])
    share = torch.cat([a.new_zeros(1), (b / alpha[1:]).square().cumsum(0)])
    return alpha, alpha * share.sqrt()
'''),
        ("as a matrix, in float32", '''
def marginal(a, b):
    a, b = a.float(), b.float()
    T = len(a)
    alpha, sigma = torch.ones(T + 1), torch.zeros(T + 1)
    for k in range(1, T + 1):
        alpha[k] = a[:k].prod()
        weights = torch.stack([b[j] * a[j + 1:k].prod() for j in range(k)])
        sigma[k] = weights.norm()
    return alpha, sigma
'''),
        ("with logarithms", '''
def marginal(a, b):
    log_alpha = torch.cat([torch.zeros(1, dtype=a.dtype), a.log().cumsum(0)])
    terms = 2 * (b.log() - log_alpha[1:])
    variance = torch.cat([torch.zeros(1, dtype=a.dtype), (terms.logcumsumexp(0) + 2 * log_alpha[1:]).exp()])
    return log_alpha.exp(), variance**0.5
'''),
    ],
    "posterior": [
        ("Bayes' rule with precisions", '''
def posterior(a, b):
    alpha, sigma = marginal(a, b)
    c_x0, c_xk, variance = torch.zeros_like(a), torch.zeros_like(a), torch.zeros_like(a)
    c_x0[0] = 1
    for k in range(2, len(a) + 1):
        precision = a[k - 1] ** 2 / b[k - 1] ** 2 + 1 / sigma[k - 1] ** 2
        variance[k - 1] = 1 / precision
        c_xk[k - 1] = a[k - 1] / b[k - 1] ** 2 / precision
        c_x0[k - 1] = alpha[k - 1] / sigma[k - 1] ** 2 / precision
    return c_x0, c_xk, variance
'''),
        ("conditioning of a Gaussian pair", '''
def posterior(a, b):
    alpha, sigma = marginal(a, b)
    gain = a * sigma[:-1] ** 2 / sigma[1:] ** 2
    return alpha[:-1] - gain * alpha[1:], gain, sigma[:-1] ** 2 - gain * a * sigma[:-1] ** 2
'''),
        ("lists of floats, a table of its own", '''
def posterior(a, b):
    rows, alpha, var = [], 1.0, 0.0
    for x, y in zip(a.tolist(), b.tolist()):
        total = x * x * var + y * y
        rows.append((alpha * y * y / total, x * var / total, y * y * var / total))
        alpha, var = alpha * x, total
    return tuple(torch.tensor(column) for column in zip(*rows))
'''),
    ],
    "excess": [
        ("through the posterior of Task 2", '''
def excess(a, b, s, r, v):
    alpha, sigma = marginal(a, b)
    c_x0, c_xk, small = posterior(a, b)
    total = 0.0
    for k in range(1, len(a) + 1):
        before, now = alpha[k - 1] ** 2 * s**2 + sigma[k - 1] ** 2, alpha[k] ** 2 * s**2 + sigma[k] ** 2
        model = c_x0[k - 1] * alpha[k] * r**2 / (alpha[k] ** 2 * r**2 + sigma[k] ** 2) + c_xk[k - 1]
        exact, var = a[k - 1] * before / now, before * b[k - 1] ** 2 / now
        total = total + 0.5 * (torch.log(v[k - 1] / var) - 1 + var / v[k - 1] + (exact - model) ** 2 * now / v[k - 1])
    return total
'''),
        ("torch's own KL", '''
def excess(a, b, s, r, v):
    alpha, sigma = marginal(a, b)
    c_x0, c_xk, small = posterior(a, b)
    spread = lambda w: w**2 * alpha[1:] / (alpha[1:] ** 2 * w**2 + sigma[1:] ** 2)
    left = c_x0**2 * s**2 * sigma[1:] ** 2 / (alpha[1:] ** 2 * s**2 + sigma[1:] ** 2)
    q = torch.distributions.Normal(c_x0 * spread(s) + c_xk, (small + left).sqrt())
    width = (alpha[1:] ** 2 * s**2 + sigma[1:] ** 2).sqrt()
    p = torch.distributions.Normal(c_x0 * spread(r) + c_xk, v.sqrt())
    at_one = torch.distributions.kl_divergence(q, p)
    shift = (q.loc - p.loc) ** 2 / (2 * v)
    return float((at_one - shift + shift * width**2).sum())
'''),
        ("an average over a grid of x_k", '''
def excess(a, b, s, r, v):
    alpha, sigma = marginal(a, b)
    z = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    weight = torch.softmax(-z**2 / 2, 0)
    total = 0.0
    for k in range(1, len(a) + 1):
        now = alpha[k] ** 2 * s**2 + sigma[k] ** 2
        believed = alpha[k] ** 2 * r**2 + sigma[k] ** 2
        before, thought = alpha[k - 1] ** 2 * s**2 + sigma[k - 1] ** 2, alpha[k - 1] ** 2 * r**2 + sigma[k - 1] ** 2
        x = now.sqrt() * z
        gap = a[k - 1] * x * (before / now - thought / believed)
        exact = before * b[k - 1] ** 2 / now
        kl = 0.5 * (torch.log(v[k - 1] / exact) - 1 + (exact + gap**2) / v[k - 1])
        total += float(weight @ kl)
    return total
'''),
    ],
    "best-variance": [
        ("a loop with the posterior", '''
def best_variance(a, b, s, r):
    alpha, sigma = marginal(a, b)
    c_x0, c_xk, small = posterior(a, b)
    out = []
    for k in range(1, len(a) + 1):
        now = alpha[k] ** 2 * s**2 + sigma[k] ** 2
        left = s**2 * sigma[k] ** 2 / now
        wrong = alpha[k] * (s**2 / now - r**2 / (alpha[k] ** 2 * r**2 + sigma[k] ** 2))
        out.append(small[k - 1] + c_x0[k - 1] ** 2 * (left + wrong**2 * now))
    return torch.stack(out)
'''),
        ("E (x_{k-1} - m x_k)^2 from second moments", '''
def best_variance(a, b, s, r):
    alpha, sigma = marginal(a, b)
    true, believed = alpha**2 * s**2 + sigma**2, alpha**2 * r**2 + sigma**2
    m = a * believed[:-1] / believed[1:]
    return true[:-1] - 2 * m * a * true[:-1] + m**2 * true[1:]
'''),
        ("numpy", '''
def best_variance(a, b, s, r):
    import numpy as np
    alpha, sigma = (np.asarray(part) for part in marginal(a, b))
    true, believed = (alpha * s) ** 2 + sigma**2, (alpha * r) ** 2 + sigma**2
    x, y = np.asarray(a), np.asarray(b)
    exact = y**2 * true[:-1] / true[1:]
    return exact + x**2 * (true[:-1] / true[1:] - believed[:-1] / believed[1:]) ** 2 * true[1:]
'''),
    ],
    "start": [
        ("tensors, and the law of total variance", '''
def matched_start(weights, means, variances, schedule):
    w, m, c = (torch.tensor(part, **f64) for part in (weights, means, variances))
    alpha = (1 - schedule.betas).prod().sqrt()
    mean = w @ m
    return (alpha * mean).item(), (alpha**2 * (w @ c + w @ (m - mean) ** 2) + 1 - alpha**2).sqrt().item()


shares = {"standard": share_right(0, 1, seed=3), "matched": share_right(*matched_start([0.7, 0.3], [-1.0, 6.0], [0.04, 0.04], short), seed=4)}
'''),
        ("component by component, at T", '''
def matched_start(weights, means, variances, schedule):
    end = torch.tensor(1.0, **f64)
    alpha, sigma = float(schedule.alpha(end)), float(schedule.sigma(end))
    mean = square = 0.0
    for w, m, c in zip(weights, means, variances):
        mean += w * alpha * m
        square += w * (alpha**2 * c + sigma**2 + (alpha * m) ** 2)
    return mean, math.sqrt(square - mean**2)


shares = dict(standard=share_right(0.0, 1.0, seed=1))
shares["matched"] = share_right(*matched_start([0.7, 0.3], [-1.0, 6.0], [0.04, 0.04], short), seed=2)
'''),
        ("numpy, and a walk through the chain's own steps", '''
def matched_start(weights, means, variances, schedule):
    import numpy as np
    w, m, c = np.array(weights), np.array(means), np.array(variances)
    mean = (w * m).sum()
    var = (w * (c + m**2)).sum() - mean**2
    for beta in schedule.betas.tolist():
        mean, var = (1 - beta) ** 0.5 * mean, (1 - beta) * var + beta
    return [mean, var**0.5]


shares = {"standard": share_right(0.0, 1.0, seed=8), "matched": share_right(*matched_start([0.7, 0.3], [-1.0, 6.0], [0.04, 0.04], short), seed=9), "n": 100_000}
'''),
    ],
}

WRONG = {
    "marginal": [
        ("sigma from 1 - alpha^2, as in a chain that preserves variance", '''
def marginal(a, b):
    alpha = torch.cat([a.new_ones(1), a.cumprod(0)])
    return alpha, (1 - alpha**2).abs().sqrt()
''', "preserves variance"),
        ("the same, with the root of a negative number", '''
def marginal(a, b):
    alpha = torch.cat([a.new_ones(1), (1.3 * a).cumprod(0)])
    return alpha, (1 - alpha**2).sqrt()
''', "1 - alpha_k^2 is not sigma_k^2"),
        ("the variance instead of the standard deviation", '''
def marginal(a, b):
    alpha = torch.cat([a.new_ones(1), a.cumprod(0)])
    share = torch.cat([a.new_zeros(1), (b / alpha[1:]).square().cumsum(0)])
    return alpha, alpha**2 * share
''', "standard deviation"),
        ("no entry for k = 0", '''
def marginal(a, b):
    alpha = a.cumprod(0)
    return alpha, alpha * (b / alpha).square().cumsum(0).sqrt()
''', "shape"),
        ("earlier noise is not shrunk", '''
def marginal(a, b):
    alpha = torch.cat([a.new_ones(1), a.cumprod(0)])
    return alpha, torch.cat([a.new_zeros(1), b.square().cumsum(0).sqrt()])
''', "shrunk by all later steps"),
        ("the new noise is shrunk too", '''
def marginal(a, b):
    alpha, variance = [a.new_ones(())], [a.new_zeros(())]
    for x, y in zip(a, b):
        alpha.append(x * alpha[-1])
        variance.append(x**2 * (variance[-1] + y**2))
    return torch.stack(alpha), torch.stack(variance).sqrt()
''', "b_1"),
        ("alpha is the product of squares", '''
def marginal(a, b):
    alpha = torch.cat([a.new_ones(1), a.square().cumprod(0)])
    return alpha, torch.cat([a.new_zeros(1), b])
''', "alpha_1"),
    ],
    "posterior": [
        ("(2.5) and (2.6) copied, with beta = b^2", '''
def posterior(a, b):
    alpha, sigma = marginal(a, b)
    beta, before, now = b**2, sigma[:-1] ** 2, sigma[1:] ** 2
    return alpha[:-1] * beta / now, (1 - beta).abs().sqrt() * before / now, beta * before / now
''', "c_xk"),
        ("alpha_k for alpha_{k-1}", '''
def posterior(a, b):
    alpha, sigma = marginal(a, b)
    before, now = sigma[:-1] ** 2, sigma[1:] ** 2
    c_x0 = alpha[1:] * b**2 / now
    c_x0[0] = 1
    return c_x0, a * before / now, b**2 * before / now
''', "c_x0"),
        ("one step late", '''
def posterior(a, b):
    alpha, sigma = marginal(a, b)
    before, now = sigma[:-1] ** 2, sigma[1:] ** 2
    parts = alpha[:-1] * b**2 / now, a * before / now, b**2 * before / now
    return tuple(torch.cat([part[1:], part[-1:]]) for part in parts)
''', "k = 1"),
        ("standard deviation for the variance", '''
def posterior(a, b):
    alpha, sigma = marginal(a, b)
    before, now = sigma[:-1] ** 2, sigma[1:] ** 2
    return alpha[:-1] * b**2 / now, a * before / now, (b**2 * before / now).sqrt()
''', "square root"),
        ("the variance of the forward step", '''
def posterior(a, b):
    alpha, sigma = marginal(a, b)
    before, now = sigma[:-1] ** 2, sigma[1:] ** 2
    variance = b**2 * torch.ones_like(b)
    variance[0] = 0
    return alpha[:-1] * b**2 / now, a * before / now, variance
''', "variance"),
        ("divides by sigma_0", '''
def posterior(a, b):
    alpha, sigma = marginal(a, b)
    precision = a**2 / b**2 + 1 / sigma[:-1] ** 2
    return alpha[:-1] / sigma[:-1] ** 2 / precision, a / b**2 / precision, 1 / precision
''', "sigma_0"),
    ],
    "excess": [
        ("the mean is taken to be right", '''
def excess(a, b, s, r, v):
    alpha, sigma = marginal(a, b)
    true = alpha**2 * s**2 + sigma**2
    ratio = b**2 * true[:-1] / true[1:] / v
    return (ratio - 1 - ratio.log()).sum() / 2
''', "error of the mean"),
        ("knows x_0: the terms of (2.9)", '''
def excess(a, b, s, r, v):
    alpha, sigma = marginal(a, b)
    c_x0, c_xk, small = posterior(a, b)
    now = alpha[1:] ** 2 * s**2 + sigma[1:] ** 2
    left = s**2 * sigma[1:] ** 2 / now
    return ((v / small).log() - 1 + (small + c_x0**2 * left) / v).sum() / 2
''', "divide by the variance given x_0"),
        ("knows x_0, from k = 2 on", '''
def excess(a, b, s, r, v):
    alpha, sigma = marginal(a, b)
    c_x0, c_xk, small = posterior(a, b)
    believed = alpha[1:] ** 2 * r**2 + sigma[1:] ** 2
    share = alpha[1:] * r**2 / believed  # x0_hat = share x_k
    error = c_x0**2 * ((1 - share * alpha[1:]) ** 2 * s**2 + share**2 * sigma[1:] ** 2)
    terms = (v / small).log() - 1 + (small + error) / v
    return terms[1:].sum() / 2
''', "does not know x_0"),
        ("k = 1 is left out", '''
def excess(a, b, s, r, v):
    alpha, sigma = marginal(a, b)
    true, believed = alpha**2 * s**2 + sigma**2, alpha**2 * r**2 + sigma**2
    exact = b**2 * true[:-1] / true[1:]
    error = a * (true[:-1] / true[1:] - believed[:-1] / believed[1:])
    return ((v / exact).log() - 1 + (exact + error**2 * true[1:]) / v)[1:].sum() / 2
''', "left out"),
        ("bits", '''
def excess(a, b, s, r, v):
    alpha, sigma = marginal(a, b)
    true, believed = alpha**2 * s**2 + sigma**2, alpha**2 * r**2 + sigma**2
    exact = b**2 * true[:-1] / true[1:]
    error = a * (true[:-1] / true[1:] - believed[:-1] / believed[1:])
    return ((v / exact).log() - 1 + (exact + error**2 * true[1:]) / v).sum() / 2 / math.log(2)
''', "bits"),
        ("the mean over k", '''
def excess(a, b, s, r, v):
    alpha, sigma = marginal(a, b)
    true, believed = alpha**2 * s**2 + sigma**2, alpha**2 * r**2 + sigma**2
    exact = b**2 * true[:-1] / true[1:]
    error = a * (true[:-1] / true[1:] - believed[:-1] / believed[1:])
    return ((v / exact).log() - 1 + (exact + error**2 * true[1:]) / v).mean() / 2
''', "mean over k"),
        ("no half", '''
def excess(a, b, s, r, v):
    alpha, sigma = marginal(a, b)
    true, believed = alpha**2 * s**2 + sigma**2, alpha**2 * r**2 + sigma**2
    exact = b**2 * true[:-1] / true[1:]
    error = a * (true[:-1] / true[1:] - believed[:-1] / believed[1:])
    return ((v / exact).log() - 1 + (exact + error**2 * true[1:]) / v).sum()
''', "twice"),
        ("KL the other way round", '''
def excess(a, b, s, r, v):
    alpha, sigma = marginal(a, b)
    true, believed = alpha**2 * s**2 + sigma**2, alpha**2 * r**2 + sigma**2
    exact = b**2 * true[:-1] / true[1:]
    error = a * (true[:-1] / true[1:] - believed[:-1] / believed[1:])
    return ((exact / v).log() - 1 + (v + error**2 * true[1:]) / exact).sum() / 2
''', "other way round"),
        ("r for s", '''
def excess(a, b, s, r, v):
    alpha, sigma = marginal(a, b)
    true = alpha**2 * r**2 + sigma**2
    ratio = b**2 * true[:-1] / true[1:] / v
    return (ratio - 1 - ratio.log()).sum() / 2
''', "believed width"),
        ("the error at x_k = 1, not averaged", '''
def excess(a, b, s, r, v):
    alpha, sigma = marginal(a, b)
    true, believed = alpha**2 * s**2 + sigma**2, alpha**2 * r**2 + sigma**2
    exact = b**2 * true[:-1] / true[1:]
    error = a * (true[:-1] / true[1:] - believed[:-1] / believed[1:])
    return ((v / exact).log() - 1 + (exact + error**2) / v).sum() / 2
''', "expected"),
    ],
    "best-variance": [
        ("the exact step's variance", '''
def best_variance(a, b, s, r):
    alpha, sigma = marginal(a, b)
    true = alpha**2 * s**2 + sigma**2
    return b**2 * true[:-1] / true[1:]
''', "error of the mean"),
        ("what the model believes", '''
def best_variance(a, b, s, r):
    alpha, sigma = marginal(a, b)
    believed = alpha**2 * r**2 + sigma**2
    return b**2 * believed[:-1] / believed[1:]
''', "lowers the excess"),
        ("b^2, the upper choice", '''
def best_variance(a, b, s, r):
    return b**2
''', "the variance of the step forward"),
        ("the posterior's variance, the lower choice", '''
def best_variance(a, b, s, r):
    return posterior(a, b)[2]
''', "zero or negative"),
        ("the standard deviation", '''
def best_variance(a, b, s, r):
    alpha, sigma = marginal(a, b)
    true, believed = alpha**2 * s**2 + sigma**2, alpha**2 * r**2 + sigma**2
    error = a * (true[:-1] / true[1:] - believed[:-1] / believed[1:])
    return (b**2 * true[:-1] / true[1:] + error**2 * true[1:]).sqrt()
''', "The variance is asked"),
        ("the error of the mean at x_k = 1", '''
def best_variance(a, b, s, r):
    alpha, sigma = marginal(a, b)
    true, believed = alpha**2 * s**2 + sigma**2, alpha**2 * r**2 + sigma**2
    error = a * (true[:-1] / true[1:] - believed[:-1] / believed[1:])
    return b**2 * true[:-1] / true[1:] + error**2
''', "lowers the excess"),
    ],
    "start": [
        ("the variance for the standard deviation", '''
def matched_start(weights, means, variances, schedule):
    mean = sum(w * m for w, m in zip(weights, means))
    var = sum(w * (c + m**2) for w, m, c in zip(weights, means, variances)) - mean**2
    bar = float(schedule.alphas_bar[-1])
    return bar**0.5 * mean, bar * var + 1 - bar


shares = {"standard": 0.155, "matched": 0.3}
''', "return the standard deviation"),
        ("the noise alone", '''
def matched_start(weights, means, variances, schedule):
    mean = sum(w * m for w, m in zip(weights, means))
    var = sum(w * (c + m**2) for w, m, c in zip(weights, means, variances)) - mean**2
    bar = float(schedule.alphas_bar[-1])
    return bar**0.5 * mean, (1 - bar) ** 0.5


shares = {"standard": 0.155, "matched": 0.3}
''', "noise alone"),
        ("alpha-bar for alpha", '''
def matched_start(weights, means, variances, schedule):
    mean = sum(w * m for w, m in zip(weights, means))
    var = sum(w * (c + m**2) for w, m, c in zip(weights, means, variances)) - mean**2
    bar = float(schedule.alphas_bar[-1])
    return bar * mean, (bar**2 * var + 1 - bar) ** 0.5


shares = {"standard": 0.155, "matched": 0.3}
''', "mean of the start"),
        ("the moments of the data", '''
def matched_start(weights, means, variances, schedule):
    mean = sum(w * m for w, m in zip(weights, means))
    var = sum(w * (c + m**2) for w, m, c in zip(weights, means, variances)) - mean**2
    bar = float(schedule.alphas_bar[-1])
    return mean, var**0.5


shares = {"standard": 0.155, "matched": 0.3}
''', "the mean of x_T"),
        ("the right start, and typed shares", '''
def matched_start(weights, means, variances, schedule):
    mean = sum(w * m for w, m in zip(weights, means))
    var = sum(w * (c + m**2) for w, m, c in zip(weights, means, variances)) - mean**2
    bar = float(schedule.alphas_bar[-1])
    return bar**0.5 * mean, (bar * var + 1 - bar) ** 0.5


shares = {"standard": 0.155, "matched": 0.3}
''', "do not give that"),
        ("the right start, and one of two shares", '''
def matched_start(weights, means, variances, schedule):
    mean = sum(w * m for w, m in zip(weights, means))
    var = sum(w * (c + m**2) for w, m, c in zip(weights, means, variances)) - mean**2
    bar = float(schedule.alphas_bar[-1])
    return bar**0.5 * mean, (bar * var + 1 - bar) ** 0.5


shares = {"standard": share_right(0, 1, n=2_000), "matched": None}
''', "shares['matched'] is still None"),
        ("the right start, and the share of the left mode", '''
def matched_start(weights, means, variances, schedule):
    mean = sum(w * m for w, m in zip(weights, means))
    var = sum(w * (c + m**2) for w, m, c in zip(weights, means, variances)) - mean**2
    bar = float(schedule.alphas_bar[-1])
    return bar**0.5 * mean, (bar * var + 1 - bar) ** 0.5


shares = {"standard": 1 - 0.029, "matched": 1 - 0.327}
''', "left-hand mode"),
        ("the right start, and the share of the data", '''
def matched_start(weights, means, variances, schedule):
    mean = sum(w * m for w, m in zip(weights, means))
    var = sum(w * (c + m**2) for w, m, c in zip(weights, means, variances)) - mean**2
    bar = float(schedule.alphas_bar[-1])
    return bar**0.5 * mean, (bar * var + 1 - bar) ** 0.5


shares = {"standard": 0.029, "matched": 0.3}
''', "share in the data"),
    ],
}
