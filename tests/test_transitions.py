"""The Gaussians between two times: composed, against Bayes on a grid, against quadrature."""

from __future__ import annotations

import math

import pytest
import torch

from diffusion_lib.schedules import DiscreteSchedule, VPSchedule
from diffusion_lib.transitions import (
    discretized_log_prob,
    forward_kernel,
    gaussian_kl,
    gaussian_log_prob,
    posterior_kernel,
    reverse_kernel,
)


def test_two_forward_steps_are_one(schedule):
    t_max = schedule.t_max
    for r, s, t in [(0.0, 0.3, 0.7), (0.1, 0.11, 0.9), (0.2, 0.5, t_max)]:
        (a, va), (b, vb), (c, vc) = (
            forward_kernel(schedule, r, s),
            forward_kernel(schedule, s, t),
            forward_kernel(schedule, r, t),
        )
        assert torch.allclose(a * b, c, rtol=1e-12) and torch.allclose(b**2 * va + vb, vc, rtol=1e-9)


def test_forward_kernel_from_data_is_the_marginal(schedule):
    scale, variance = forward_kernel(schedule, 0.0, 0.6)
    assert torch.allclose(scale, schedule.alpha(0.6).double(), rtol=1e-6)
    assert torch.allclose(variance.sqrt(), schedule.sigma(0.6).double(), rtol=1e-6)


def test_neighbouring_ddpm_steps_have_the_betas():
    schedule, k = DiscreteSchedule.from_name("linear"), torch.arange(1, 1001)
    scale, variance = forward_kernel(schedule, schedule.time(k - 1), schedule.time(k))
    assert torch.allclose(variance, schedule.betas, rtol=1e-9) and torch.allclose(
        scale**2, 1 - schedule.betas, rtol=1e-12
    )


def test_posterior_is_ddpms_formula():
    """Ho et al. 2020, eq. 7, in their own symbols."""
    schedule, k = DiscreteSchedule.from_name("linear"), torch.arange(2, 1001)
    beta, bar, bar_before = schedule.betas[k - 1], schedule.alphas_bar[k], schedule.alphas_bar[k - 1]
    c_x0, c_xt, variance = posterior_kernel(schedule, schedule.time(k - 1), schedule.time(k))
    assert torch.allclose(c_x0, bar_before.sqrt() * beta / (1 - bar), rtol=1e-9)
    assert torch.allclose(c_xt, (1 - beta).sqrt() * (1 - bar_before) / (1 - bar), rtol=1e-9)
    assert torch.allclose(variance, (1 - bar_before) / (1 - bar) * beta, rtol=1e-9)


def test_posterior_against_bayes_on_a_grid(schedule):
    """q(x_s | x_t, x_0) is proportional to q(x_t | x_s) q(x_s | x_0): normalise the product numerically."""
    s, t, x0, x_t = 0.4, 0.55, 0.7, -0.3
    (scale, beta), (scale_s, var_s) = forward_kernel(schedule, s, t), forward_kernel(schedule, 0.0, s)
    width = float(var_s.sqrt())
    x = torch.linspace(-12 * width, 12 * width, 400_001, dtype=torch.float64) + float(scale_s) * x0
    logs = gaussian_log_prob(torch.tensor(x_t, dtype=torch.float64), scale * x, beta.log()) + gaussian_log_prob(
        x, scale_s * x0, var_s.log()
    )
    p = logs.softmax(0)
    mean = float((p * x).sum())
    variance = float((p * (x - mean) ** 2).sum())
    c_x0, c_xt, posterior = posterior_kernel(schedule, s, t)
    assert mean == pytest.approx(float(c_x0 * x0 + c_xt * x_t), abs=1e-9 * max(1, width))
    assert variance == pytest.approx(float(posterior), rel=1e-9)


def test_posterior_to_the_data_is_a_point(schedule):
    c_x0, c_xt, variance = posterior_kernel(schedule, 0.0, 0.5)
    assert float(c_xt) == 0.0 and float(variance) == 0.0 and float(c_x0) == pytest.approx(1.0, rel=1e-12)


def test_variance_choices_are_ordered_and_reach_their_ends():
    """Between beta-tilde (point data) and beta (N(0, I) data): Ho et al. 2020, Sec. 3.2."""
    schedule, s, t = VPSchedule(), 0.4, 0.5
    x = torch.zeros(1, 2, dtype=torch.float64)
    log_var = {kind: reverse_kernel(x, x, s, t, schedule, kind)[1] for kind in ("posterior", "forward")}
    assert float(log_var["posterior"]) < float(log_var["forward"])
    point = reverse_kernel(x, x, s, t, schedule, "optimal", data_variance=torch.zeros_like(x))[1]
    normal = reverse_kernel(
        x, x, s, t, schedule, "optimal", data_variance=torch.full_like(x, float(schedule.sigma(t)) ** 2)
    )[1]
    assert torch.allclose(point, log_var["posterior"].expand_as(point))
    assert torch.allclose(normal, log_var["forward"].expand_as(normal), atol=1e-6)
    for fraction, kind in ((0.0, "posterior"), (1.0, "forward")):
        learned = reverse_kernel(x, x, s, t, schedule, "learned", fraction=torch.full_like(x, fraction))[1]
        assert torch.allclose(learned, log_var[kind].expand_as(learned))


def test_kl_against_quadrature():
    x = torch.linspace(-30, 30, 2_000_001, dtype=torch.float64)
    q, p = (torch.tensor(0.3), torch.tensor(-0.5)), (torch.tensor(-0.4), torch.tensor(0.7))
    log_q, log_p = gaussian_log_prob(x, *q), gaussian_log_prob(x, *p)
    numerical = torch.trapezoid(log_q.exp() * (log_q - log_p), x)
    assert float(gaussian_kl(*q, *p)) == pytest.approx(float(numerical), rel=1e-6)
    assert float(gaussian_kl(*q, *q)) == 0.0


def test_discretized_probabilities_sum_to_one():
    values = torch.linspace(-1, 1, 17, dtype=torch.float64)
    for mean, std in ((0.1, 0.3), (-0.99, 0.01), (3.0, 0.05), (0.0, 10.0)):
        total = discretized_log_prob(values, torch.tensor(mean), torch.tensor(2 * math.log(std)), bins=17).exp().sum()
        assert float(total) == pytest.approx(1.0, abs=1e-6)


def test_discretized_tails_are_finite_and_right():
    """40 standard deviations away the probability underflows, its logarithm must not."""
    value = discretized_log_prob(
        torch.tensor(0.0).double(), torch.tensor(1.0).double(), torch.tensor(2 * math.log(0.025)).double(), bins=256
    )
    assert -800 < float(value) < -700  # (1 - 1/255)^2 / (2 * 0.025^2) = 793.7, less the logarithm of the tail's factor
    narrow = discretized_log_prob(
        torch.tensor(0.0).double(), torch.tensor(0.0).double(), torch.tensor(2 * math.log(1e-4)).double()
    )
    assert float(narrow) == pytest.approx(0.0, abs=1e-12)
