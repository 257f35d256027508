"""Score matching: four losses that differ by a constant, so that one can learn grad log p without ever knowing it.

Each takes a score, any callable (B, ...) -> (B, ...) that treats the samples of a batch one by one, and returns one
loss per sample, (B,), in units of 1/2 ||score||^2; average it yourself. All are differentiable in the parameters of
the score.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lib import noise
from diffusion_lib.schedules import expand
from diffusion_lib.validate import check_choice, check_count, check_finite, check_same_shape, check_tensor

Score = Callable[[Tensor], Tensor]
PROBES = ("rademacher", "gaussian")


def explicit_score_matching(score: Score, x: Tensor, true_score: Tensor) -> Tensor:
    """1/2 || score(x) - true_score ||^2, (B,): what one would minimise if grad log p were known.

    x: (B, ...) from p. true_score: grad log p(x), like x. One evaluation. Its mean is half the Fisher divergence.
    Hyvärinen 2005, eq. 2. ValueError for other shapes or a NaN in x. Book (4.4).
    """
    _check(x)
    check_same_shape("true_score", true_score, "x", x)
    return _half_square(_ask(score, x) - true_score)


def implicit_score_matching(score: Score, x: Tensor) -> Tensor:
    """tr(d score / dx) + 1/2 || score(x) ||^2, (B,): the explicit loss after an integration by parts, without grad
    log p.

    Its mean over p equals the explicit loss minus 1/2 E||grad log p||^2, where p and the score are smooth and p *
    score vanishes at infinity. x: (B, ...), D numbers a sample. One evaluation and D backward passes: for small D
    only. Hyvärinen 2005, eq. 4. ValueError for a NaN in x or a score that cannot be differentiated. Book (4.6).
    """
    wanted = torch.is_grad_enabled()
    x, s = _graph(score, _check(x))
    trace = x.new_zeros(len(x))
    with torch.enable_grad():
        flat = s.flatten(1)
        for d in range(flat.shape[1]):
            trace = trace + _derivative(flat[:, d].sum(), x).flatten(1)[:, d]
        losses = trace + _half_square(s)
    return losses if wanted else losses.detach()


def sliced_score_matching(
    score: Score,
    x: Tensor,
    *,
    projections: int = 1,
    probe: str = "rademacher",
    reduced: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The implicit loss along random directions v with E[v v^T] = I, (B,): v^T (d score / dx) v + 1/2 (v^T score)^2,
    averaged over v.

    projections: directions a sample, >= 1, each one backward pass. probe: "rademacher" (signs) or "gaussian".
    reduced: put the exact 1/2 ||score||^2 in the place of its estimate 1/2 (v^T score)^2, which has the same mean and
    less variance (SSM-VR). Its mean over v is the implicit loss. x: (B, ...). One evaluation. Song, Garg, Shi & Ermon
    2019, Sec. 3. ValueError for an unknown probe, no projections, a NaN in x or a score that cannot be
    differentiated. Book (4.8).
    """
    check_choice("probe", probe, PROBES)
    check_count("projections", projections)
    wanted = torch.is_grad_enabled()
    x, s = _graph(score, _check(x))
    total = x.new_zeros(len(x))
    with torch.enable_grad():
        for _ in range(projections):
            v = noise.randn_like(x, generator)
            v = v.sign() if probe == "rademacher" else v
            along = (v * s).flatten(1).sum(1)  # v^T score
            total = total + (_derivative(along.sum(), x) * v).flatten(1).sum(1)
            total = total if reduced else total + 0.5 * along**2
        losses = total / projections + (_half_square(s) if reduced else 0.0)
    return losses if wanted else losses.detach()


def denoising_score_matching(
    score: Score, x0: Tensor, sigma: Tensor | float, *, generator: torch.Generator | None = None
) -> Tensor:
    """1/2 || score(x) + eps / sigma ||^2 at x = x0 + sigma eps, (B,): no derivative of the score, one evaluation.

    Its mean equals that of the explicit loss on the *noised* density p_sigma = p * N(0, sigma^2 I), plus a constant:
    it learns grad log p_sigma, not grad log p. x0: (B, ...) clean. sigma: > 0, a float or one number a sample, (B,).
    Times sigma^2 it is the loss on eps (``DenoisingLoss`` with target "eps" under a schedule with alpha = 1). Its
    variance grows like 1 / sigma^4 as sigma falls, that of its gradient like 1 / sigma^2. Vincent 2011, Sec. 4.2;
    with the weight sigma^2, Song & Ermon 2019, eqs. 5 and 6. ValueError for a sigma that is not positive or a NaN in
    x0. Book (4.9), (4.11).
    """
    _check(x0, "x0")
    sigma = torch.as_tensor(sigma, dtype=x0.dtype, device=x0.device)
    if sigma.shape not in {(), x0.shape[:1]}:
        raise ValueError(f"sigma has shape {tuple(sigma.shape)}; expected a number or one a sample, ({len(x0)},).")
    if x0.device.type == "cpu" and not bool(((sigma > 0) & torch.isfinite(sigma)).all()):
        raise ValueError(
            f"sigma={float(sigma.min()):.4g} was given; expected finite numbers > 0: without noise there is no target."
        )
    eps, sigma = noise.randn_like(x0, generator), expand(sigma, x0)
    return _half_square(_ask(score, x0 + sigma * eps) + eps / sigma)


def _check(x: Tensor, name: str = "x") -> Tensor:
    check_finite(name, check_tensor(name, x))
    if x.ndim < 2:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}; expected a batch (B, D): add a dimension with {name}[:, None]."
        )
    return x


def _ask(score: Score, x: Tensor) -> Tensor:
    s = score(x)
    check_same_shape("the score", s, "x", x)
    return s


def _graph(score: Score, x: Tensor) -> tuple[Tensor, Tensor]:
    """(x, score(x)) as parts of a graph, also where gradients are off outside."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        s = _ask(score, x)
    if not s.requires_grad:
        raise ValueError(
            "the score has no derivative with respect to x; expected one made of differentiable operations: "
            "take away no_grad or detach()."
        )
    return x, s


def _derivative(output: Tensor, x: Tensor) -> Tensor:
    """d output / dx, kept in the graph for the parameters' gradient; 0 where output does not depend on x."""
    return torch.autograd.grad(output, x, create_graph=True, materialize_grads=True)[0]


def _half_square(v: Tensor) -> Tensor:
    return 0.5 * v.square().flatten(1).sum(1)
