"""The judges of chapter 4's coded exercises."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_lib.checks.compare import close_to_reference, seeded
from diffusion_lib.checks.core import WrongAnswer, exercise

CENTRES = torch.tensor([[1.2, 0.0], [-0.7, 0.9], [-0.3, -1.1]], dtype=torch.float64)
PRIOR = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)


def _log_p(x: Tensor, width: float = 0.6) -> Tensor:
    """log-density, up to a constant, of a mixture of three round Gaussians: (B, 2) -> (B,)."""
    squared = (x[:, None] - CENTRES).square().sum(-1)
    return (PRIOR.log() - squared / (2 * width**2)).logsumexp(1)


def _score(x: Tensor, width: float = 0.6) -> Tensor:
    squared = (x[:, None] - CENTRES).square().sum(-1)
    share = (PRIOR.log() - squared / (2 * width**2)).softmax(1)
    return (share @ CENTRES - x) / width**2


def _moments(score, x: Tensor, alpha: float, sigma: float, *, sign: float = 1.0, scale: bool = True, square: bool = True,
             outer: bool = True) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    s = score(x)
    rows = [torch.autograd.grad(s[:, d].sum(), x, retain_graph=True)[0] for d in range(x.shape[1])]
    jacobian, power = torch.stack(rows, 1), sigma**2 if square else sigma
    alpha = alpha if scale else 1.0
    covariance = torch.eye(x.shape[1], dtype=x.dtype) + power * jacobian
    mean = (x + sign * power * s) / alpha
    return mean.detach(), ((sigma / alpha) ** 2 * covariance if outer else covariance).detach()


def _no_alpha(score, x, alpha, sigma):
    return _moments(score, x, alpha, sigma, scale=False)


def _not_squared(score, x, alpha, sigma):
    return _moments(score, x, alpha, sigma, square=False)


def _against_the_arrow(score, x, alpha, sigma):
    return _moments(score, x, alpha, sigma, sign=-1.0)


def _no_prefactor(score, x, alpha, sigma):
    return _moments(score, x, alpha, sigma, outer=False)


def _moments_answer(score, x, alpha, sigma):
    return _moments(score, x, alpha, sigma)


def _narrow(x: Tensor) -> Tensor:
    return _score(x, 0.8)


@exercise("4.15e", "mean and covariance by Tweedie", read="section 4.4, (4.12) and (4.13)", solution=_moments_answer,
          wrong=((_no_alpha, "alpha"), (_not_squared, "sigma^2"), (_against_the_arrow, "against the arrow"),
                 (_no_prefactor, "sigma^2 / alpha^2")))
def posterior_moments(answer):
    """Two scores of noisy mixtures at two pairs (alpha, sigma)."""
    x = torch.randn(5, 2, generator=seeded(0), dtype=torch.float64)
    cases = [(_score, x, 0.9, 0.5), (_narrow, 1.5 * x, 0.6, 0.7)]
    close_to_reference(answer, _moments_answer, cases, name="posterior_moments", mistakes={
        "alpha is missing: both formulas are divided by it, the covariance by its square": _no_alpha,
        "sigma stands where sigma^2 belongs": _not_squared,
        "the mean was moved against the arrow: add sigma^2 times the score": _against_the_arrow,
        "the covariance lacks its factor sigma^2 / alpha^2": _no_prefactor,
    })
    return "A network that predicts noise knows its own uncertainty: it is the derivative."


def _mala(x, score, log_p, h, z, u, *, half: float = 0.5, proposal: bool = True, inverse: bool = False,
          root: bool = True, accept: bool = True, pooled: str = "") -> Tensor:
    drift = lambda x: half * h * score(x)  # noqa: E731
    y = x + drift(x) + (h**0.5 if root else h) * z
    there, back = (y - x - drift(x)).square().sum(1), (x - y - drift(y)).square().sum(1)
    if pooled == "squares":
        there, back = there.sum(), back.sum()
    ratio = log_p(y) - log_p(x) + ((there - back) / (2 * h) if proposal else 0.0)
    ratio = ratio.sum() if pooled == "ratio" else ratio
    taken = u.log() < (-ratio if inverse else ratio)
    return torch.where(taken[:, None], y, x) if accept else y


def _mala_answer(x, score, log_p, h, z, u):
    return _mala(x, score, log_p, h, z, u)


def _symmetric(x, score, log_p, h, z, u):
    return _mala(x, score, log_p, h, z, u, proposal=False)


def _inverted(x, score, log_p, h, z, u):
    return _mala(x, score, log_p, h, z, u, inverse=True)


def _whole_step(x, score, log_p, h, z, u):
    return _mala(x, score, log_p, h, z, u, half=1.0)


def _no_root(x, score, log_p, h, z, u):
    return _mala(x, score, log_p, h, z, u, root=False)


def _never_refused(x, score, log_p, h, z, u):
    return _mala(x, score, log_p, h, z, u, accept=False)


def _one_ratio(x, score, log_p, h, z, u):
    return _mala(x, score, log_p, h, z, u, pooled="ratio")


def _squares_of_all(x, score, log_p, h, z, u):
    return _mala(x, score, log_p, h, z, u, pooled="squares")


@exercise("4.15f", "one Metropolis-adjusted Langevin step", read="section 4.7, (4.18)", solution=_mala_answer,
          wrong=((_symmetric, "proposal"), (_inverted, "upside down"), (_whole_step, "h / 2"), (_no_root, "square root"),
                 (_never_refused, "never refused"), (_one_ratio, "whole batch"), (_squares_of_all, "whole batch")))
def mala_step(answer):
    """Three step sizes, from points some of which lie far out, so that proposals are taken and refused.

    The last points are the centres: nearly all moves lead down, and a decision for the whole batch refuses every one.
    """
    generator = seeded(1)
    cases = []
    for h in (0.1, 0.4, 0.9):
        x, z = torch.randn(2, 60, 2, generator=generator, dtype=torch.float64)
        cases.append((1.5 * x, _score, _log_p, h, z, torch.rand(60, generator=generator, dtype=torch.float64)))
    z = torch.randn(60, 2, generator=generator, dtype=torch.float64)
    cases.append((CENTRES.repeat(20, 1), _score, _log_p, 0.9, z, torch.rand(60, generator=generator, dtype=torch.float64)))
    close_to_reference(answer, _mala_answer, cases, name="mala_step", mistakes={
        "the proposal was taken for symmetric: its densities Q(x' | x) and Q(x | x') differ and belong into the ratio": _symmetric,
        "the ratio is upside down: the new point stands on top": _inverted,
        "the drift is h s: in this book's step it is h / 2 times the score": _whole_step,
        "the noise lacks its square root: its variance is h": _no_root,
        "a proposal is never refused: this is ULA": _never_refused,
        "one ratio was computed for the whole batch: each walker has its own, sum over axis 1 only": _one_ratio,
        "squared distances were summed over the whole batch: each walker has its own, sum over axis 1 only": _squares_of_all,
    })
    return "Its stationary law is p for every h; that of ULA is not."


def _linear(x: Tensor) -> Tensor:
    return torch.tensor([0.5, -0.2], dtype=x.dtype) - x @ torch.tensor([[1.1, 0.3], [0.2, 0.8]], dtype=x.dtype)


def _quiet(f, x0: Tensor, eps: Tensor, sigma: float, *, at_noisy: bool = False, control: float = 1.0, power: int = 2,
           constant: float = 1.0, detached: bool = False) -> Tensor:
    loss = 0.5 * (f(x0 + sigma * eps) + eps / sigma).square().sum(1)
    arrow = f(x0 + sigma * eps) if at_noisy else f(x0)
    arrow = arrow.detach() if detached else arrow
    return loss - control * (arrow * eps).sum(1) / sigma - constant * eps.square().sum(1) / (2 * sigma**power)


def _quiet_answer(f, x0, eps, sigma):
    return _quiet(f, x0, eps, sigma)


def _without_control(f, x0, eps, sigma):
    return _quiet(f, x0, eps, sigma, control=0.0, constant=0.0)


def _control_at_noisy(f, x0, eps, sigma):
    return _quiet(f, x0, eps, sigma, at_noisy=True)


def _wrong_sign(f, x0, eps, sigma):
    return _quiet(f, x0, eps, sigma, control=-1.0)


def _constant_kept(f, x0, eps, sigma):
    return _quiet(f, x0, eps, sigma, constant=0.0)


def _control_detached(f, x0, eps, sigma):
    return _quiet(f, x0, eps, sigma, detached=True)


def _loss_detached(f, x0, eps, sigma):
    return _quiet(f, x0, eps, sigma).detach()


def _slope_of(loss):
    """The derivative in a of the summed loss of the network a f, at a = 1."""
    def slope(f, x0: Tensor, eps: Tensor, sigma: float) -> Tensor:
        a = torch.ones((), dtype=x0.dtype, requires_grad=True)
        value = loss(lambda x: a * f(x), x0, eps, sigma)
        gradient = torch.autograd.grad(value.sum(), a, allow_unused=True)[0] if value.requires_grad else None
        if gradient is None:
            raise WrongAnswer("quiet_denoising returned numbers without a gradient; expected a loss to train f with: "
                              "do not detach it, nor compute it under torch.no_grad.")
        return gradient
    return slope


@exercise("4.15g", "denoising score matching with a control variate", read="exercise 4.15c and section 4.4", solution=_quiet_answer,
          wrong=((_without_control, "plain denoising"), (_control_at_noisy, "noisy point"), (_wrong_sign, "doubles"),
                 (_constant_kept, "no parameter"), (_control_detached, "must carry a gradient"),
                 (_loss_detached, "without a gradient")))
def quiet_denoising(answer):
    """Two scores at two noise levels, one of them small: the losses, then their gradient in a parameter."""
    generator = seeded(2)
    x0, eps = torch.randn(2, 6, 2, generator=generator, dtype=torch.float64)
    cases = [(_score, x0, eps, 0.5), (_linear, x0, eps, 0.01)]
    close_to_reference(answer, _quiet_answer, cases, name="quiet_denoising", rtol=1e-6, mistakes={
        "this is plain denoising score matching: nothing was subtracted": _without_control,
        "the control variate was taken at the noisy point: there its mean is not zero; take f at x0": _control_at_noisy,
        "the control variate was added, which doubles the noise: subtract it": _wrong_sign,
        "|eps|^2 / (2 sigma^2) is still there: it holds no parameter, but it is most of the loss; subtract it too": _constant_kept,
    })
    close_to_reference(_slope_of(answer), _slope_of(_quiet_answer), cases, name="the gradient of quiet_denoising", rtol=1e-6, mistakes={
        "the control variate must carry a gradient: do not detach f(x0)": _slope_of(_control_detached),
    })
    return "As sigma goes to 0 this is sliced score matching with Gaussian directions."
