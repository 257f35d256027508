"""EDM's loss: the error of the preconditioned denoiser, weighted so that every noise level starts with the same loss."""

from __future__ import annotations

from torch import Tensor, nn

from diffusion_lib.denoisers import EDMDenoiser
from diffusion_lib.losses.denoising import SampledLoss
from diffusion_lib.losses.times import LogNormalLevels, TimeSampler
from diffusion_lib.targets import diffuse


class EDMLoss(SampledLoss):
    """E[ lambda || D(x_t, t) - x_0 ||^2 / D ] with lambda = 1 / c_out^2 = (s^2 + sigma_data^2) / (s sigma_data)^2 at noise level s = sigma/alpha.

    That is the plain squared error of the raw network F against its target (x_0 - c_skip x_t / alpha) / c_out, which has variance 1 at every level.

    denoiser: its preconditioning, sigma_data and schedule are those of the loss; the net inside it is replaced by the one that is trained.
    times: a TimeSampler; LogNormalLevels(denoiser.schedule) unless given. label_dropout: see DenoisingLoss.
    Called as loss(net, x0, generator=…, label=…) with the raw net F. Book (7.9). Karras et al. 2022, eq. 8 and Table 1.
    """

    def __init__(self, denoiser: EDMDenoiser, times: TimeSampler | None = None, label_dropout: float = 0.0):
        if not isinstance(denoiser, EDMDenoiser):
            raise TypeError(f"denoiser is a {type(denoiser).__name__}; expected an EDMDenoiser, whose preconditioning the loss is made of: "
                            "pass EDMDenoiser(None, sigma_data).")
        super().__init__(denoiser.schedule, LogNormalLevels(denoiser.schedule) if times is None else times, label_dropout)
        self.denoiser = denoiser

    def per_sample(self, net: nn.Module, x0: Tensor, t: Tensor, eps: Tensor, **condition: Tensor) -> Tensor:
        """lambda || D - x_0 ||^2 / D for each sample: (B,), for x0 and eps (B, ...) and t (B,)."""
        x0_hat = self.denoiser.with_net(net)(diffuse(x0, eps, t, self.schedule), t, **condition)
        c_out = self.denoiser.coefficients(self.schedule.noise_level(t))[1]
        return (x0_hat - x0).square().flatten(1).mean(1) / c_out.to(x0.dtype) ** 2
