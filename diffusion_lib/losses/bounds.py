"""The variational bound of a diffusion model, term by term, and Improved DDPM's hybrid loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffusion_lib.denoisers import NetDenoiser
from diffusion_lib.losses.denoising import DenoisingLoss, SampledLoss
from diffusion_lib.losses.times import TimeSampler
from diffusion_lib.schedules import DiscreteSchedule, Schedule, expand
from diffusion_lib.targets import TARGETS, diffuse
from diffusion_lib.transitions import (
    VARIANCES,
    discretized_log_prob,
    gaussian_kl,
    gaussian_log_prob,
    posterior_kernel,
    reverse_kernel,
)
from diffusion_lib.validate import check_choice

DECODERS = ("gaussian", "discretized")


def prior_term(x0: Tensor, schedule: Schedule) -> Tensor:
    """L_T = KL( q(x_T | x_0) || N(0, prior_std^2) ) in nats, (B,): what starting from pure noise costs. No network in it.

    Book (2.9), first term. Ho et al. 2020, eq. 5, first term.
    """
    t = torch.as_tensor(schedule.t_max, dtype=x0.dtype, device=x0.device)
    log_var, log_var_prior = (
        2 * schedule.sigma(t).log(),
        2 * torch.as_tensor(schedule.prior_std, dtype=x0.dtype, device=x0.device).log(),
    )
    return gaussian_kl(schedule.alpha(t) * x0, log_var, torch.zeros_like(x0), log_var_prior).flatten(1).sum(1)


def bound_term(
    x0: Tensor,
    x: Tensor,
    x0_hat: Tensor,
    s: Tensor | float,
    t: Tensor | float,
    schedule: Schedule,
    *,
    variance: str = "posterior",
    fraction: Tensor | None = None,
    data_variance: Tensor | None = None,
    decoder: str = "gaussian",
    bins: int = 256,
) -> Tensor:
    """One term of the bound in nats, (B,), for x_t = ``x`` at times t and the step down to s < t, both (B,) or floats.

    Where s > 0 it is KL( q(x_s | x_t, x_0) || p(x_s | x_t) ); where s = 0 it is -log p(x_0 | x_t), with a Gaussian density or the
    probability of a bin of width 2 / (bins - 1). variance, fraction, data_variance: see ``transitions.reverse_kernel``.
    Book (2.9), second and third term; with equal variances it is (2.20). Ho et al. 2020, eq. 5, second and third term; eq. 13.
    """
    check_choice("decoder", decoder, DECODERS)
    mean, log_var = reverse_kernel(x0_hat, x, s, t, schedule, variance, fraction, data_variance)
    c_x0, c_xt, posterior = posterior_kernel(schedule, s, t)
    last = expand((torch.as_tensor(s) == 0).to(x.dtype), x) > 0
    # At s = 0 the posterior is a point: put the model's own variance in its place, so that the unused branch stays finite.
    log_var_q = torch.where(last, log_var, expand(torch.where(posterior > 0, posterior, 1.0).log(), x))
    divergence = gaussian_kl(expand(c_x0, x) * x0 + expand(c_xt, x) * x, log_var_q, mean, log_var)
    if decoder == "gaussian":
        reconstruction = -gaussian_log_prob(x0, mean, log_var)
    else:
        reconstruction = -discretized_log_prob(x0, mean, log_var, bins)
    return torch.where(last, reconstruction, divergence).flatten(1).sum(1)


class VariationalLoss(SampledLoss):
    """L_vlb of one random step k of T, times T: an unbiased estimate of the bound without its prior term, in nats per dimension.

    schedule: a DiscreteSchedule. target, variance: what the net predicts (see NetDenoiser): "learned" for a net with a learned
    variance, else "posterior" or "forward". decoder, bins: see :func:`bound_term`. times: DiscreteTimes(T) or
    ImportanceTimes(T). label_dropout: as in DenoisingLoss. Nichol & Dhariwal 2021, eq. 4 to 9 and Sec. 3.3.
    """

    def __init__(
        self,
        schedule: DiscreteSchedule,
        target: str = "eps",
        variance: str = "posterior",
        times: TimeSampler | None = None,
        decoder: str = "gaussian",
        bins: int = 256,
        label_dropout: float = 0.0,
    ):
        if not isinstance(schedule, DiscreteSchedule):
            raise ValueError(
                f"schedule is a {type(schedule).__name__}; expected a DiscreteSchedule: the bound is a sum over T steps."
            )
        super().__init__(schedule, times, label_dropout)
        self.target, self.variance = check_choice("target", target, TARGETS), check_choice("variance", variance, VARIANCES[:3])
        self.decoder, self.bins = check_choice("decoder", decoder, DECODERS), bins

    def per_sample(self, net: nn.Module, x0: Tensor, t: Tensor, eps: Tensor, **condition: Tensor) -> Tensor:
        """T L_k / D in nats per dimension, (B,), for x0 and eps (B, ...) and t = k / T (B,). One evaluation of the net."""
        x = diffuse(x0, eps, t, self.schedule)
        denoiser = NetDenoiser(net, self.schedule, self.target, learned_variance=self.variance == "learned")
        x0_hat, fraction = denoiser.predict(x, t, **condition)
        k = (t.double() * self.schedule.steps).round()
        s, t = (k - 1) / self.schedule.steps, k / self.schedule.steps
        options = {"variance": self.variance, "fraction": fraction, "decoder": self.decoder, "bins": self.bins}
        return self.schedule.steps * bound_term(x0, x, x0_hat, s, t, self.schedule, **options) / x0[0].numel()


class HybridLoss(VariationalLoss):
    """Improved DDPM's L_simple + vlb_weight * L_vlb for a network with a learned variance.

    L_simple trains the mean; in L_vlb the mean is held fixed (its gradient is stopped), so that it trains only the variance.
    vlb_weight: 0.001 in the paper, for L_vlb = the sum over T terms; here L_vlb is in nats per dimension.
    Book (2.28). Nichol & Dhariwal 2021, eq. 16. The other arguments: as in VariationalLoss.
    """

    def __init__(
        self,
        schedule: DiscreteSchedule,
        target: str = "eps",
        vlb_weight: float = 1e-3,
        times: TimeSampler | None = None,
        decoder: str = "gaussian",
        bins: int = 256,
        label_dropout: float = 0.0,
    ):
        super().__init__(schedule, target, "learned", times, decoder, bins, label_dropout)
        self.vlb_weight, self._simple = vlb_weight, DenoisingLoss(schedule, target)

    def per_sample(self, net: nn.Module, x0: Tensor, t: Tensor, eps: Tensor, **condition: Tensor) -> Tensor:
        """L_simple + vlb_weight L_vlb of each sample, (B,): one evaluation of the net serves both parts."""
        output = net(diffuse(x0, eps, t, self.schedule), t, **condition)
        prediction, position = output.chunk(2, dim=1)
        held = torch.cat([prediction.detach(), position], dim=1)
        simple = self._simple.per_sample(lambda x, t: prediction, x0, t, eps)
        return simple + self.vlb_weight * super().per_sample(lambda x, t: held, x0, t, eps)
