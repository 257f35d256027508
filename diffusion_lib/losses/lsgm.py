"""LSGM: a VAE and the diffusion model of its latents, trained by one bound. Vahdat et al. 2021.

The bound is  log p(x | z) + H(q(z | x)) - CE(q(z | x) || p(z)),  and its last term has a closed form that needs the prior's denoiser only.
Here z is z_tau, the encoder's draw z_0 after a little diffusion, tau = ``t_min``: then every term is finite and the bound is exact.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffusion_lib import noise
from diffusion_lib.denoisers import Denoiser, MixedDenoiser, NetDenoiser
from diffusion_lib.losses.times import TimeSampler, UniformTimes
from diffusion_lib.losses.vae import dequantise
from diffusion_lib.losses.weights import ON_X0
from diffusion_lib.schedules import Schedule, VPSchedule, expand
from diffusion_lib.targets import diffuse
from diffusion_lib.transitions import gaussian_kl, gaussian_log_prob
from diffusion_lib.validate import check_choice, check_non_negative, check_tensor

PRIOR_WEIGHTS = ("likelihood", "eps")


class VPImportanceTimes:
    """Times on [t_min, t_max] whose sigma^2 is geometric: log sigma^2 uniform. With the weights that keep a mean over t unbiased.

    For N(0, I) data the likelihood-weighted error at time t is proportional to d log sigma^2 / dt; drawn in proportion to it, every time has the same
    expected term, and no other density has less variance. schedule: one with alpha^2 + sigma^2 = 1. 0 < t_min < t_max <= 1; t_max None is the
    schedule's. stratified: see UniformTimes. Book (8.19). Vahdat et al. 2021, section 3.4.
    """

    def __init__(self, schedule: Schedule, t_min: float = 1e-3, t_max: float | None = None, stratified: bool = False):
        t_max = schedule.t_max if t_max is None else t_max
        if not 0 < t_min < t_max <= 1:
            raise ValueError(f"t_min={t_min}, t_max={t_max} was given; expected 0 < t_min < t_max <= 1: at t = 0 there is no noise.")
        ends = torch.tensor([t_min, t_max], dtype=torch.float64)
        variance = schedule.sigma(ends) ** 2
        if not torch.allclose(schedule.alpha(ends) ** 2 + variance, torch.ones(2, dtype=torch.float64), atol=1e-6):
            raise ValueError(f"{type(schedule).__name__} was given; expected a schedule with alpha^2 + sigma^2 = 1, such as VPSchedule().")
        self.schedule, self.t_min, self.t_max, self.stratified = schedule, t_min, t_max, stratified
        self._low, self._ratio = float(variance[0]), math.log(float(variance[1] / variance[0]))

    def density(self, t: Tensor) -> Tensor:
        """r(t), (n,): the probability density of the times. For these schedules d sigma^2 / dt = g^2 alpha^2."""
        slope = self.schedule.diffusion_sq(t) * self.schedule.alpha(t) ** 2
        return slope / (self.schedule.sigma(t) ** 2 * self._ratio)                                # (8.19)

    def sample(self, n: int, generator: torch.Generator | None = None, device=None) -> tuple[Tensor, Tensor]:
        unit = noise.rand((n,), generator, dtype=torch.float64)
        if self.stratified:
            unit = (torch.randperm(n, generator=generator, device=unit.device) + unit) / n
        variance = self._low * (self._ratio * unit.cpu()).exp()
        t = self.schedule.time_of_log_snr(0.5 * (torch.log1p(-variance) - variance.log())).clamp(self.t_min, self.t_max)
        weight = 1 / ((self.t_max - self.t_min) * self.density(t))
        return t.float().to(device), weight.float().to(device)


def cross_entropy(
    denoiser: Denoiser, schedule: Schedule, z0: Tensor, times: TimeSampler, generator: torch.Generator | None = None, *,
    draw: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """An unbiased estimate, one time and one noise a sample, of CE(q(z_tau | x) || p(z_tau)) in nats: z0 (B, ...) ~ q(z_0 | x) -> (B,).

    It is  E of g^2 / 2 || score of q(z_t | z_0) - score of p_t ||^2, integrated over t from tau to t_max,  + the KL of q(z_t_max | z_0) from N(0, I)
    + D / 2 log(2 pi e sigma_tau^2),  tau = times.t_min. Exact where p_t_max is N(0, I), whatever q(z_0 | x) is: its density is never needed.
    The two scores differ by alpha / sigma^2 (z_0 - x0_hat), so a denoiser is all that is asked of the prior.
    times: with t_min > 0 and t_max. draw: (t, weight, eps) instead of drawing here. Book (8.15), (8.16). Vahdat et al. 2021, theorem 1.
    """
    if not getattr(times, "t_min", 0) > 0:
        raise ValueError("times starts at t = 0, where the integral is infinite; expected t_min > 0, such as UniformTimes(t_min=1e-3).")
    check_tensor("z0", z0)
    t, weight, eps = draw_times(times, z0, generator) if draw is None else draw
    error = (denoiser(diffuse(z0, eps, t, schedule), t) - z0).square().flatten(1).sum(1)           # (B,)
    integrand = ON_X0["elbo"](schedule, t.double()).to(z0.dtype) * error
    return (times.t_max - times.t_min) * weight * integrand + _ends(z0, times, schedule)


def draw_times(times: TimeSampler, z0: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """(t (B,), weight (B,), eps like z0) for one estimate of :func:`cross_entropy`."""
    t, weight = times.sample(len(z0), generator, z0.device)
    return t.to(z0.dtype), weight.to(z0.dtype), noise.randn_like(z0, generator)


def _ends(z0: Tensor, times: TimeSampler, schedule: Schedule) -> Tensor:
    """The two closed-form terms of the cross-entropy, (B,)."""
    low, high = (torch.tensor(t, dtype=torch.float64) for t in (times.t_min, times.t_max))
    dims = z0[0].numel()
    mean, log_var = schedule.alpha(high).to(z0) * z0, (2 * schedule.sigma(high).log()).to(z0)
    last = gaussian_kl(mean, log_var, torch.zeros_like(mean), torch.zeros_like(log_var)).flatten(1).sum(1)
    return last + 0.5 * dims * (math.log(2 * math.pi * math.e) + 2 * float(schedule.sigma(low).log()))


class LSGMTerms(NamedTuple):
    """The three terms of the bound, each (B,) in nats: bound = reconstruction + entropy - cross_entropy."""

    reconstruction: Tensor
    entropy: Tensor
    cross_entropy: Tensor

    @property
    def bound(self) -> Tensor:
        """A lower bound of log p(x), in expectation: (B,)."""
        return self.reconstruction + self.entropy - self.cross_entropy


def prior_denoiser(net: nn.Module, schedule: Schedule) -> MixedDenoiser:
    """The prior of a `nets.LSGM` as a denoiser, which any sampler or likelihood takes."""
    return MixedDenoiser(NetDenoiser(net.prior, schedule, "eps"), net.mix)


def lsgm_terms(
    net: nn.Module, x: Tensor, schedule: Schedule, times: TimeSampler, generator: torch.Generator | None = None, *, prior_weight: str = "likelihood"
) -> LSGMTerms:
    """The bound of a `nets.LSGM` for x (B, ...), with one draw of everything. Book (8.14). Vahdat et al. 2021, section 3.

    prior_weight: "eps" keeps the values but gives the prior the gradient of the plain squared error of eps (see LSGMLoss).
    """
    mean, log_var = net.vae.encode(x)                                                             # (B, L)
    z0 = mean + (0.5 * log_var).exp() * noise.randn_like(mean, generator)
    low = torch.tensor(times.t_min, dtype=torch.float64)
    alpha, sigma = schedule.alpha(low).to(z0), schedule.sigma(low).to(z0)
    z = alpha * z0 + sigma * noise.randn_like(z0, generator)                                      # z_tau
    reconstruction = gaussian_log_prob(x, net.vae.decode(z), net.vae.decoder_log_var).flatten(1).sum(1)
    entropy = 0.5 * (math.log(2 * math.pi * math.e) + (alpha**2 * log_var.exp() + sigma**2).log()).sum(1)
    draw = draw_times(times, z0, generator)
    prior = prior_denoiser(net, schedule)
    if prior_weight == "likelihood":
        return LSGMTerms(reconstruction, entropy, cross_entropy(prior, schedule, z0, times, draw=draw))
    parameters = [*net.prior.parameters(), net.logit]
    for parameter in parameters:                                                                  # first the encoder's gradient,
        parameter.requires_grad_(False)
    try:
        cross = cross_entropy(prior_denoiser(net, schedule), schedule, z0, times, draw=draw)
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
    t, weight, eps = draw                                                                         # then the prior's, with its own weight
    x0_hat = prior(diffuse(z0.detach(), eps, t, schedule), t)
    ratio = expand(schedule.alpha(t) / schedule.sigma(t), z0)                                     # eps_hat - eps = ratio (z0 - x0_hat)
    own = (times.t_max - times.t_min) * weight * 0.5 * (ratio * (x0_hat - z0.detach())).square().sum(1)
    return LSGMTerms(reconstruction, entropy, cross + own - own.detach())


class LSGMLoss:
    """Minus the mean of the bound: encoder, decoder and prior trained together, loss(net, x0, generator=…) with a `nets.LSGM`.

    schedule: one with alpha^2 + sigma^2 = 1. t_min: tau in (0, 1), where the latent is looked at. importance: draw times by
    VPImportanceTimes (True) or uniformly. prior_weight: "likelihood", one bound for all; or "eps": encoder and decoder follow the bound, the
    prior the plain squared error of eps, which draws better pictures (Vahdat et al. 2021, section 3.3). beta: weight of the entropy and
    cross-entropy, >= 0. bin_width: see ``losses.dequantise``. Book (8.14).
    """

    def __init__(
        self, schedule: Schedule | None = None, t_min: float = 1e-3, importance: bool = True, prior_weight: str = "likelihood", beta: float = 1.0,
        bin_width: float = 0.0,
    ):
        self.schedule = VPSchedule() if schedule is None else schedule
        sampler = VPImportanceTimes(self.schedule, t_min, stratified=True)                        # refuses other schedules, too
        self.times = sampler if importance else UniformTimes(t_min, self.schedule.t_max, stratified=True)
        self.prior_weight = check_choice("prior_weight", prior_weight, PRIOR_WEIGHTS)
        self.beta, self.bin_width = check_non_negative("beta", beta), check_non_negative("bin_width", bin_width)

    def __call__(self, net: nn.Module, x0: Tensor, *, generator: torch.Generator | None = None, shard: tuple[int, int] = (0, 1)) -> Tensor:
        """The loss of a batch x0 (B, ...), a scalar, in nats a sample."""
        if shard[1] > 1:
            raise ValueError(f"LSGMLoss was called on {shard[1]} processes, which would share its noise; expected one: train on one process.")
        x0 = dequantise(x0, self.bin_width, generator) if self.bin_width else x0
        terms = lsgm_terms(net, x0, self.schedule, self.times, generator, prior_weight=self.prior_weight)
        return (self.beta * (terms.cross_entropy - terms.entropy) - terms.reconstruction).mean()
