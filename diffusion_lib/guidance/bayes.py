"""Guidance by Bayes' rule: what is asked for enters as a gradient of log p(what is asked | x_t), from a classifier or a measurement."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lib.denoisers import Denoiser
from diffusion_lib.schedules import Schedule, expand
from diffusion_lib.validate import (
    check_batch_time,
    check_choice,
    check_finite,
    check_non_negative,
    check_positive,
    check_tensor,
)

COVARIANCES = ("isotropic", "tweedie")


def classifier_guided(
    denoiser: Denoiser, schedule: Schedule, log_prob: Callable[[Tensor, Tensor], Tensor], scale: float = 1.0
) -> Denoiser:
    """A denoiser whose score is that of ``denoiser`` plus scale * grad_x log_prob(x, t).

    log_prob: (x_t (B, ...), t (B,)) -> (B,) nats, the log-probability of what is asked for, given the *noisy* x_t; differentiable in x.
    scale: finite, >= 0. 1 is Bayes' rule: with the exact noisy classifier the result is the exact conditional denoiser.
    One evaluation of the denoiser and one gradient of log_prob a call.
    Book (5.32), (6.3), (6.4). Song et al. 2021 (SDE), Sec. 5 and eq. 14; Dhariwal & Nichol 2021, Sec. 4. ValueError for a bad scale, or a
    log_prob without gradient.
    """
    check_non_negative("scale", scale)

    def guided(x: Tensor, t: Tensor | float, **condition: Tensor) -> Tensor:
        t = check_batch_time(t, x)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            gradient = _gradient(log_prob(leaf, t), leaf, "log_prob")
        return denoiser(x, t, **condition) + scale * _score_to_x0(x, t, schedule) * gradient

    return guided


def measurement_guided(
    denoiser: Denoiser,
    schedule: Schedule,
    measure: Callable[[Tensor], Tensor],
    y: Tensor,
    noise_std: float,
    *,
    covariance: str = "isotropic",
    data_variance: float = 1.0,
) -> Denoiser:
    """A denoiser for x_0 given the measurement y = measure(x_0) + noise_std * noise, without training: (B, ...) -> (B, ...).

    It puts N(x0_hat, C) in place of p(x_0 | x_t), so that p(y | x_t) = N(measure(x0_hat), S), S = noise_std^2 I + G C G^T, with G the
    Jacobian of ``measure`` at x0_hat, and adds (sigma^2 / alpha) grad_x log p(y | x_t) to x0_hat (S held fixed).

    measure: (B, ...) -> (B, M), differentiable. y: (M,) or (B, M). noise_std: finite, >= 0, in units of the measurement.
    covariance: "isotropic", C = v sigma^2 / (alpha^2 v + sigma^2) I with v = ``data_variance`` (pseudo-inverse guidance, Song et al. 2023,
    Sec. 3.2): one vector-Jacobian product of the denoiser; or "tweedie", C = (sigma^2 / alpha) d x0_hat / d x_t, the true posterior
    covariance (Boys et al. 2024, Prop. 1): M products. Book (5.34). "tweedie" is exact for Gaussian data and a linear measurement; otherwise both approximate.
    Eigenvalues of S under 1e-6 of the largest are raised to it. ValueError for a measurement of another shape or without gradient.
    """
    check_choice("covariance", covariance, COVARIANCES)
    check_non_negative("noise_std", noise_std)
    check_positive("data_variance", data_variance)
    check_finite("y", check_tensor("y", y))

    def guided(x: Tensor, t: Tensor | float, **condition: Tensor) -> Tensor:
        t = check_batch_time(t, x)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            x0_hat = denoiser(leaf, t, **condition)
            clean = x0_hat.detach().requires_grad_()
            measured = measure(clean)
            residual = _residual(y, measured)
            rows = _rows(measured, clean, "measure")  # G: (B, M, D)
            if covariance == "isotropic":
                level = schedule.sigma(t) ** 2
                spread = data_variance * level / (schedule.alpha(t) ** 2 * data_variance + level)
                inner = expand(spread, rows) * rows @ rows.mT
                weights = _solve(inner, noise_std, residual)
                direction = (weights[:, None] @ rows)[:, 0].reshape(x.shape)
                gradient = torch.autograd.grad(x0_hat, leaf, direction)[0]
            else:
                through = _rows_through(rows, x0_hat, leaf)  # G d x0_hat / d x: (B, M, D)
                scale = (schedule.sigma(t) ** 2 / schedule.alpha(t)).to(rows.dtype)[:, None, None]
                weights = _solve(scale * through @ rows.mT, noise_std, residual)
                gradient = (weights[:, None] @ through)[:, 0].reshape(x.shape)
        return x0_hat.detach() + _score_to_x0(x, t, schedule) * gradient

    return guided


def _score_to_x0(x: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """sigma^2 / alpha, what a change of the score is worth in x0_hat (Tweedie), shaped to multiply ``x``."""
    return expand(schedule.sigma(t) ** 2 / schedule.alpha(t), x)


def _gradient(value: Tensor, leaf: Tensor, name: str) -> Tensor:
    if value.shape != leaf.shape[:1]:
        raise ValueError(
            f"{name} returned shape {tuple(value.shape)}; expected one number per sample, ({len(leaf)},): sum over the other dimensions."
        )
    if not value.requires_grad:
        raise ValueError(_no_gradient(name))
    return torch.autograd.grad(value.sum(), leaf)[0]


def _no_gradient(name: str) -> str:
    return (
        f"{name}'s result does not depend on its input through autograd; expected a differentiable function: "
        "write it with torch operations, without rounding, argmax, .detach() or torch.no_grad()."
    )


def _residual(y: Tensor, measured: Tensor) -> Tensor:
    if measured.ndim != 2 or y.shape not in {measured.shape, measured.shape[1:]}:
        raise ValueError(
            f"measure returned shape {tuple(measured.shape)} and y has shape {tuple(y.shape)}; expected (B, M) and (M,) or (B, M): "
            "flatten each measurement with .flatten(1)."
        )
    return (y.to(measured) - measured).detach()


def _rows(measured: Tensor, clean: Tensor, name: str) -> Tensor:
    """The Jacobian of ``measure``, one row per measurement: (B, M, D)."""
    if not measured.requires_grad:
        raise ValueError(_no_gradient(name))
    gradients = [torch.autograd.grad(column.sum(), clean, retain_graph=True)[0] for column in measured.unbind(1)]
    return torch.stack([g.flatten(1) for g in gradients], 1)


def _rows_through(rows: Tensor, x0_hat: Tensor, leaf: Tensor) -> Tensor:
    """Each row of ``rows`` (B, M, D) times d x0_hat / d x: (B, M, D)."""
    products = [
        torch.autograd.grad(x0_hat, leaf, row.reshape(leaf.shape), retain_graph=k + 1 < rows.shape[1])[0]
        for k, row in enumerate(rows.unbind(1))
    ]
    return torch.stack([p.flatten(1) for p in products], 1)


def _solve(inner: Tensor, noise_std: float, residual: Tensor) -> Tensor:
    """S^-1 residual, (B, M), for S = noise_std^2 I + the symmetric part of ``inner`` (B, M, M); 0 where S is 0."""
    values, vectors = torch.linalg.eigh((inner + inner.mT).detach() / 2)
    values = values + noise_std**2
    values = torch.maximum(values, 1e-6 * values.amax(1, keepdim=True))
    inverse = torch.where(values > 0, 1 / values, 0.0)
    return ((residual[:, None] @ vectors) * inverse[:, None] @ vectors.mT)[:, 0]
