"""Adapters: whatever a net predicts, the same denoiser comes out; EDM's preconditioning; conditions pass by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffusion_lib.denoisers import EDMDenoiser, ExactDenoiser, NetDenoiser
from diffusion_lib.exact import three_modes
from diffusion_lib.schedules import VPSchedule, expand
from diffusion_lib.targets import TARGETS, convert


class ExactNet(nn.Module):
    """A "network" that predicts ``target`` perfectly on a mixture."""

    def __init__(self, mixture, schedule, target):
        super().__init__()
        self.mixture, self.schedule, self.target = mixture, schedule, target

    def forward(self, x, t):
        return convert(self.mixture.denoise(x, t, self.schedule), x, t, self.schedule, "x0", self.target)


@pytest.mark.parametrize("target", TARGETS)
def test_any_target_gives_the_same_denoiser(schedule, target, generator):
    mixture = three_modes()
    x = mixture.marginal(schedule, 0.4).sample(64, generator)
    t = torch.full((64,), 0.4, dtype=torch.float64)
    denoiser = NetDenoiser(ExactNet(mixture, schedule, target), schedule, target)
    assert torch.allclose(denoiser(x, t), mixture.denoise(x, t, schedule), rtol=1e-7, atol=1e-8)


def test_edm_preconditioning_keeps_unit_variance(schedule, generator):
    """Inputs to F and its implied targets have standard deviation 1 at every noise level: Karras et al. 2022, Appendix B.6."""
    n, sigma_data, seen = 200_000, 0.5, {}
    x0 = sigma_data * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    for t in (0.1, 0.5, 0.9):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        x = alpha * x0 + sigma * torch.randn(n, 1, generator=generator, dtype=torch.float64)

        def net(x, c_noise):
            seen["input"] = x
            return torch.zeros_like(x)

        denoiser = EDMDenoiser(net, sigma_data, schedule)
        skip = denoiser(x, t)
        c_out = denoiser.coefficients(schedule.noise_level(t))[1]
        for value in (seen["input"], (x0 - skip) / c_out):
            assert abs(float(value.std()) - 1) < 4.5 / (2 * n) ** 0.5


def test_edm_with_a_perfect_net_is_the_exact_denoiser(schedule):
    mixture = three_modes()
    x = mixture.marginal(schedule, 0.3).sample(20, torch.Generator().manual_seed(0))
    t = torch.full((20,), 0.3, dtype=torch.float64)
    shape = EDMDenoiser(None, 0.9, schedule)
    c_skip, c_out, _, _ = (expand(c, x) for c in shape.coefficients(schedule.noise_level(t)))
    scaled = x / expand(schedule.alpha(t), x)
    perfect = (mixture.denoise(x, t, schedule) - c_skip * scaled) / c_out
    assert torch.allclose(
        EDMDenoiser(lambda *_: perfect, 0.9, schedule)(x, t), mixture.denoise(x, t, schedule), rtol=1e-9
    )


def test_learned_variance_splits_the_channels():
    denoiser = NetDenoiser(
        lambda x, t: torch.cat([x, torch.full_like(x, 0.5)], 1), VPSchedule(), "x0", learned_variance=True
    )
    x = torch.randn(3, 2)
    x0_hat, fraction = denoiser.predict(x, torch.full((3,), 0.5))
    assert torch.equal(x0_hat, x) and torch.equal(fraction, torch.full_like(x, 0.75))


def test_clip_is_at_the_edge():
    denoiser = NetDenoiser(lambda x, t: 10 * x, VPSchedule(), "x0", clip=1.0)
    assert float(denoiser(torch.randn(8, 2), 0.5).abs().max()) <= 1.0


def test_unknown_condition_is_not_swallowed():
    from diffusion_lib.nets import MLP

    with pytest.raises(TypeError):
        NetDenoiser(MLP(2), VPSchedule())(torch.randn(3, 2), torch.full((3,), 0.5), lable=torch.zeros(3))


def test_exact_conditional_denoiser():
    """The conditional on component k is that Gaussian's own denoiser; the null label is the mixture's."""
    mixture, schedule = three_modes(), VPSchedule()
    denoiser, x = (
        ExactDenoiser(mixture, schedule),
        torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
    )
    label = torch.tensor([0, 1, 2, 0, 1, 2])
    alpha, sigma = schedule.alpha(0.5), schedule.sigma(0.5)
    mean, variance = mixture.means[label], 0.15**2
    expected = mean + alpha * variance / (alpha**2 * variance + sigma**2) * (x - alpha * mean)
    assert torch.allclose(denoiser(x, 0.5, label=label), expected, rtol=1e-9)
    assert torch.equal(denoiser(x, 0.5, label=torch.full((6,), 3)), denoiser(x, 0.5))
