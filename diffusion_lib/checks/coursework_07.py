"""The judges of chapter 7's coursework: a second look, the angle as a clock, DDIM's debt, orders without the truth. They hold no solution."""

from __future__ import annotations

import math

import torch

from diffusion_lib.checks.compare import call, seeded, true_for_all
from diffusion_lib.checks.core import WrongAnswer, coursework
from diffusion_lib.checks.laws_07 import (
    Gaussian,
    RawGaussian,
    Straight,
    Walk,
    by_means,
    ddim_width_of,
    left_over,
    steady,
    uniform,
    walked,
)


@coursework("cw7.1", "preconditioning with a second look", read="section 7.3, (7.4), (7.6) and (7.7)")
def second_look(answer, *, seed):
    """The target has mean square 1, and no other pair of coefficients gives a smaller c_out: from second moments alone."""
    generator = seeded(seed)
    for _ in range(3):
        size, tau = uniform(generator, 0.4, 1.6), uniform(generator, 0.2, 1.5)
        level = torch.logspace(-2, 1.5, 8, dtype=torch.float64)
        mine = call(answer, level.clone(), tau, size)
        true_for_all(isinstance(mine, tuple) and len(mine) == 3, "second_look must return three tensors: c_skip, c_side, c_out.")
        skip, side, out = (torch.as_tensor(part).double() for part in mine)
        true_for_all(skip.shape == side.shape == out.shape == level.shape,
                     f"The coefficients have the shapes {tuple(skip.shape)}, "
                     f"{tuple(side.shape)}, {tuple(out.shape)}; expected {tuple(level.shape)} each, that of level.")
        true_for_all(out > 0, "c_out is not positive everywhere.")
        variances = size**2, level**2, tau**2
        where = f"For sigma_data = {size:.3f}, tau = {tau:.3f} "
        found = left_over(skip, side, *variances) / out**2
        k = int((found - 1).abs().argmax())
        true_for_all((found - 1).abs().max() < 1e-4, where + f"the target (x_0 - c_skip xbar - c_side y) / c_out has the mean square "
                                                             f"{float(found[k]):.4g} at level {float(level[k]):.3g}; expected 1 (principle 2)."
                     + (" Is your c_out its square?" if bool(((found * out - 1).abs() < 1e-4).all()) else ""))
        if not bool((side.abs() > 1e-6).all()):
            raise WrongAnswer(where + "the second look is not used (c_side = 0 somewhere): without y (7.7) is the best; with y a smaller c_out is possible.")
        for a, b in ((1, 0), (0, 1), (1, 1), (1, -1)):
            for step in (1e-3, -1e-3):
                worse = left_over(skip + step * a, side + step * b, *variances) - left_over(skip, side, *variances)
                k = int(worse.argmin())
                true_for_all(worse > 0, where + f"c_out is not as small as it can be (principle 3): at level {float(level[k]):.3g} it falls if "
                                                f"c_skip is changed by {step * a:g} and c_side by {step * b:g}.")
    return "1 / c_out^2 is a sum again, and says why."


@coursework("cw7.2", "EDM's loss with levels even in the angle", read="section 7.4, (7.9) and (7.11)")
def angle_weight(answer, *, seed):
    """The mean over even angles of weight times a bump in log rho must be EDM's mean of the same bump, for bumps everywhere."""
    generator = seeded(seed)
    psi = (torch.arange(60_000, dtype=torch.float64) + 0.5) * (math.pi / 2 / 60_000)
    for _ in range(3):
        size, center, spread = uniform(generator, 0.3, 1.5), uniform(generator, -1.5, -0.3), uniform(generator, 0.8, 1.4)
        level = size * psi.tan()
        weight = torch.as_tensor(call(answer, level.clone(), size, center, spread)).double()
        true_for_all(weight.shape == level.shape, f"angle_weight has shape {tuple(weight.shape)}; expected {tuple(level.shape)}, that of level.")
        true_for_all(weight > -1e-300, "The weight is negative or no number somewhere.")
        error = (size * level) ** 2 / (size**2 + level**2)                               # c_out^2: an error of D of F's size 1
        at, width, ratios = torch.linspace(math.log(0.03), math.log(8.0), 7).double(), 0.15, []
        for a in at.tolist():
            mine = float((weight * error * torch.exp(-((level.log() - a) ** 2) / (2 * width**2))).mean())
            total = width**2 + spread**2
            ratios.append(mine / (width / total**0.5 * math.exp(-((a - center) ** 2) / (2 * total))))
        ratio, rho = torch.tensor(ratios, dtype=torch.float64), at.exp()
        if (ratio - 1).abs().max() < 5e-3:
            continue
        where = f"For sigma_data = {size:.2f}, P_mean = {center:.2f}, P_std = {spread:.2f} "
        out = (size * rho) ** 2 / (size**2 + rho**2)
        if steady(ratio, 0.02):
            raise WrongAnswer(where + f"the weight is {float(ratio.mean()):.4g} times the right one at every level: which density does psi have, "
                                      f"and is the bell normalised?")
        if steady(ratio * rho) or steady(ratio / rho):
            raise WrongAnswer(where + "the weight is off by a factor of rho: (7.11) is a density over log rho; take both densities over one variable.")
        if steady(ratio / out) or steady(ratio / out.sqrt()):
            raise WrongAnswer(where + "the factor 1 / c_out^2 of (7.9) is missing.")
        if steady(ratio * rho / (size**2 + rho**2)) or steady(ratio * (size**2 + rho**2) / rho) or steady(ratio * (size**2 + rho**2)):
            raise WrongAnswer(where + "the density of the levels that even angles visit is missing, or upside down: d psi / d rho is not constant.")
        k = int((ratio - 1).abs().argmax())
        raise WrongAnswer(where + f"the mean loss from levels about {float(rho[k]):.3g} is {ratios[k]:.4g} times that of EDM; expected once: "
                                  f"visits times weight must be the same as there.")
    return "The loss is the same; the noise of its gradient is not."


@coursework("cw7.3a", "the flow in the network's own variables", read="section 7.3, (7.8), and section 7.2, (7.1)")
def angle_rate(answer, *, seed):
    """du/dpsi along flows that are known exactly, by central differences (their error is below 1e-7)."""
    generator = seeded(seed)
    for _ in range(4):
        size, psi = uniform(generator, 0.4, 1.6), uniform(generator, 0.2, 1.3)
        data = Gaussian(torch.randn(2, generator=generator, dtype=torch.float64), uniform(generator, 0.2, 1.0))
        level = size * math.tan(psi)
        x, h = data.mean + 2 * level * torch.randn(5, 2, generator=generator, dtype=torch.float64), 1e-5
        before, here, after = (data.flow(x, level, size * math.tan(angle)) * math.cos(angle) / size for angle in (psi - h, psi, psi + h))
        right = (after - before) / (2 * h)
        mine = torch.as_tensor(call(answer, here, data.denoise(x, level), psi, size)).double()
        true_for_all(mine.shape == right.shape, f"angle_rate has shape {tuple(mine.shape)}; expected {tuple(right.shape)}, that of u.")
        if torch.allclose(mine, right, rtol=1e-4, atol=1e-4):
            continue
        if torch.allclose(-mine, right, rtol=1e-4, atol=1e-4):
            raise WrongAnswer("The rate has the wrong sign: psi grows with the noise level.")
        if torch.allclose(mine, (x - data.denoise(x, level)) / level, rtol=1e-4, atol=1e-4):
            raise WrongAnswer("That is d xbar / d rho, (7.1): change both the state, to u = c_in xbar, and the clock, to psi.")
        clock = size / math.cos(psi) ** 2
        if torch.allclose(mine / clock, right, rtol=1e-4, atol=1e-4) or torch.allclose(mine * clock, right, rtol=1e-4, atol=1e-4):
            raise WrongAnswer("The clock's own rate d rho / d psi is missing, or taken upside down.")
        k = int((mine - right).abs().flatten().argmax())
        raise WrongAnswer(f"On an exact flow, at psi = {psi:.3f} with sigma_data = {size:.3f}, du/dpsi is {float(right.flatten()[k]):.5g}; yours "
                          f"is {float(mine.flatten()[k]):.5g}. "
                          "Does c_in, which depends on psi too, have its derivative?")
    return "Compare it with the raw output F = (D - c_skip xbar) / c_out."


@coursework("cw7.3b", "a second-order walk in the angle", read="section 7.8, (7.22) and (7.25), and exercise 7.17e")
def angle_walk(answer, *, seed):
    """Exact for a constant F and for one that is linear in psi, on uneven grids; then order 2 on flows that are known exactly."""
    generator = seeded(seed)
    for to_zero in (True, False):
        size = uniform(generator, 0.4, 1.6)
        draws = torch.rand(7, generator=generator, dtype=torch.float64)
        levels = torch.exp(2.3 - 0.8 * draws.cumsum(0))
        levels = torch.cat([levels, torch.zeros(1, dtype=torch.float64)]) if to_zero else levels
        psi = torch.atan(levels / size)
        x, a, b = torch.randn(3, 6, 2, generator=generator, dtype=torch.float64)
        unit = size / float(psi[-1].cos())                                              # xbar / u at the end
        start, span = x * float(psi[0].cos()) / size, float(psi[0] - psi[-1])
        for slope in (0 * b, b):
            F = Straight(a, slope)
            mine = walked(answer, F, len(levels) - 1, size, x.clone(), levels.clone())
            true_for_all(mine.shape == x.shape, f"angle_walk has shape {tuple(mine.shape)}; expected {tuple(x.shape)}, that of x.")
            mine = mine.double()
            right = unit * (start + a * span + slope * float(psi[0] ** 2 - psi[-1] ** 2) / 2)
            if torch.allclose(mine, right, rtol=1e-4, atol=1e-4):
                continue
            if not bool(slope.any()):
                if torch.allclose(mine, unit * (start - a * span), rtol=1e-4, atol=1e-4):
                    raise WrongAnswer("With a constant F you walk the wrong way: du/dpsi = -F, and psi falls.")
                if torch.allclose(mine * unit, right, rtol=1e-4, atol=1e-4):
                    raise WrongAnswer("The walk ends in u; expected xbar at the last level: divide by c_in there.")
                raise WrongAnswer("With a constant F, u is a straight line in psi; yours does not end on it. Start from u = c_in xbar at the "
                                  "first level, with tan psi = level / sigma_data, and return xbar at the last.")
            off = ((mine - right) / (unit * slope)).mean()
            steps = -psi.diff()
            if torch.allclose(mine, right + unit * slope * float(steps[0] ** 2) / 2, rtol=1e-4, atol=1e-4):
                raise WrongAnswer("With an F that is linear in psi the error is just that of a first step of order 1: take it again, with both "
                                  "of its ends, when the second F is there.")
            if torch.allclose(mine, right + unit * slope * float(steps.square().sum()) / 2, rtol=1e-4, atol=1e-4):
                raise WrongAnswer("With an F that is linear in psi the error is that of Euler's method in every step: extrapolate with the F of "
                                  "the step before.")
            raise WrongAnswer(f"With an F that is linear in psi every step should be exact, on uneven grids too; yours is off ({float(off):.3g} "
                              "times the slope). Are the weights made for the lengths, in psi, of this step and the one before?")
        one = walked(answer, F, 1, size, x.clone(), levels[:2].clone()).double()
        euler = (start + float(psi[0] - psi[1]) * F(start, float(psi[0]))) * size / float(psi[1].cos())
        true_for_all(torch.allclose(one, euler, rtol=1e-4, atol=1e-4), "A walk of one step has one call of F, so it is one step of order 1; "
                                                                       "yours is something else.")
    data, size = Gaussian(torch.randn(2, generator=generator, dtype=torch.float64), uniform(generator, 0.3, 0.6)), uniform(generator, 0.8, 1.2)
    x, errors = 20.0 * torch.randn(30, 2, generator=generator, dtype=torch.float64), []
    for steps in (40, 80):
        levels = size * torch.tan(torch.linspace(math.atan(20.0 / size), 0.0, steps + 1, dtype=torch.float64))
        mine = walked(answer, RawGaussian(data, size), steps, size, x.clone(), levels).double()
        errors.append(float((mine - data.flow(x, 20.0, 0.0)).norm(dim=1).median()))
    true_for_all(errors[1] < 0.05, f"On exact Gaussian data 80 steps end {errors[1]:.3g} from the exact answer: F must be asked at (u, psi) of "
                                   f"the step's start, both in the network's variables.")
    true_for_all(2.8 < errors[0] / errors[1] < 6, f"On exact Gaussian data the error falls from {errors[0]:.2e} (40 steps) to {errors[1]:.2e} "
                                                  f"(80 steps); expected about a quarter: order 2.")
    return "Order 2, with one evaluation a step."


@coursework("cw7.4a", "what DDIM does to a width", read="section 7.8, (7.21), section 7.5, (7.12), and exercise 7.17d")
def ddim_width(answer, *, seed):
    """Against the library's DDIM on Gaussian data."""
    generator = seeded(seed)
    for end in (0.0, 0.2, 0.0):
        ell, n = uniform(generator, 0.2, 1.5), 3 + int(uniform(generator, 0, 6))
        levels = torch.exp(3.0 - torch.rand(n, generator=generator, dtype=torch.float64).cumsum(0) * 5 / n)
        levels = torch.cat([levels, torch.tensor([min(end, 0.5 * float(levels[-1]))], dtype=torch.float64)])
        mine, right = float(torch.as_tensor(call(answer, levels.clone(), ell))), ddim_width_of(levels, ell)
        if abs(mine / right - 1) < 1e-4:
            continue
        where = f"For {n} steps from level {float(levels[0]):.2f} to {float(levels[-1]):.2f} and data of spread {ell:.2f} the width "
        if abs(mine / right**2 - 1) < 1e-4:
            raise WrongAnswer(where + "is a standard deviation; yours is a variance.")
        if abs(mine * right - 1) < 1e-4:
            raise WrongAnswer(where + "is upside down: what DDIM gives, over the right one.")
        raise WrongAnswer(where + f"over the right one is {right:.5f} (run by the library's ddim); yours is {mine:.5f}. Find the factor of one "
                                  f"step, and divide it by that of the exact flow.")
    return "It is never above 1."


@coursework("cw7.4b", "the best grid for DDIM", read="task 4a, and exercise 7.17d")
def best_levels(answer, *, seed):
    """No interior level can be moved, alone or with others, so that the ratio comes nearer to 1."""
    generator = seeded(seed)
    for _ in range(3):
        ell, top, n = uniform(generator, 0.2, 1.5), uniform(generator, 5.0, 60.0), 3 + int(uniform(generator, 0, 8))
        mine = torch.as_tensor(call(answer, n, ell, top)).double()
        true_for_all(mine.shape == (n + 1,), f"best_levels has shape {tuple(mine.shape)}; expected ({n + 1},): N steps have N + 1 levels.")
        true_for_all(abs(mine[0] / top - 1) < 1e-4 and abs(mine[-1]) < 1e-6 * ell, f"The grid goes from {float(mine[0]):.4g} to "
                                                                                   f"{float(mine[-1]):.4g}; expected from {top:.4g} to 0.")
        true_for_all(mine.diff() < 0, "The levels do not fall all the way.")
        mine[0], mine[-1] = top, 0.0
        best, better, grid = ddim_width_of(mine, ell), 0.0, mine
        for k in range(4 * (n - 1) + 20):
            factor = torch.ones(n + 1, dtype=torch.float64)
            if k < 4 * (n - 1):
                factor[1 + k // 4] = (0.97, 1.03, 0.8, 1.25)[k % 4]
            else:
                factor[1:-1] = torch.exp(0.1 * torch.randn(n - 1, generator=generator, dtype=torch.float64))
            other = (mine * factor).sort(descending=True).values
            if other[0] != top or (other.diff() > -1e-9 * top).any():
                continue
            if (width := ddim_width_of(other, ell)) > better:
                better, grid = width, other
        true_for_all(better <= best + 1e-6, f"With {n} steps from level {top:.2f} and data of spread {ell:.2f} your grid gives the ratio "
                                            f"{best:.7f}; another grid gives {better:.7f}, which is "
                                            f"nearer to 1. (Its levels: {', '.join(f'{v:.3g}' for v in grid.tolist())}.)")
    return "All its steps cost the same."


@coursework("cw7.5", "an order without the truth", read="section 7.12, for the median, and section 7.8")
def order_from(answer, *, seed):
    """Made-up walks whose order is known, with six paths in a hundred that jump."""
    for order, N, shape in ((1, 16, (100, 2)), (2, 10, (60, 1, 4, 4)), (3, 12, (80, 3)), (2, 40, (100, 2))):
        walk = Walk(order, seed + order + N, shape)
        found = float(torch.as_tensor(call(answer, walk, N)))
        if abs(found - order) < 0.1:
            continue
        where = f"For a walk of order {order}, N = {N}, you find {found:.3f}. "
        if any(abs(found - mean) < 2e-3 for mean in by_means(walk, N)):
            raise WrongAnswer(where + "A few paths jump, as near a watershed: take the median over the paths and not the mean.")
        if abs(found + order) < 0.1:
            raise WrongAnswer(where + "The sign is wrong: the coarser difference is the larger one.")
        if abs(found - order * math.log(2)) < 0.1:
            raise WrongAnswer(where + "The logarithm must have the base 2, since the steps are halved.")
        against_last = math.log2((1 - 4.0**-order) / (2.0**-order - 4.0**-order))
        if abs(found - against_last) < 0.1:
            raise WrongAnswer(where + "It looks as if 4N steps were taken for the truth. Their own error is not small beside that of 2N: use the "
                                      "differences N to 2N and 2N to 4N.")
        raise WrongAnswer(where + "If x_N = x + c N^-p, what are x_N - x_2N and x_2N - x_4N, for each path?")


@coursework("cw7.6", "three measured orders", read="section 7.12, section 7.3 for c_noise, and section 7.14, \"Few evaluations, on pictures\"")
def orders(exact_angle, network_angle, network_log, *, seed):
    """Ranges that cover other noises (three seeds: 1.85, 1.01 to 1.14, 1.84 to 1.92); the seed changes nothing."""
    ranges = {"exact_angle": (exact_angle, 1.7, 2.2), "network_angle": (network_angle, 0.7, 1.55), "network_log": (network_log, 1.6, 2.25)}
    for name, (value, low, high) in ranges.items():
        value = float(torch.as_tensor(value))
        true_for_all(low < value < high, f"{name} is {value:.2f}; expected a number between {low} and {high}: use angle_walk and order_from with "
                                         f"N = 24 and the given starts and grids.")
