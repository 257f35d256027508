"""Guidance by contrast: two denoisers that differ in one thing, and a step along the line from the lesser to the better one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from diffusion_lib.denoisers import Denoiser, null_condition
from diffusion_lib.guidance.limits import check_share, rescaled
from diffusion_lib.schedules import Schedule, expand
from diffusion_lib.validate import check_batch_time, check_interval, check_non_negative

Interval = tuple[float, float]


def classifier_free_guided(
    denoiser: Denoiser,
    condition: Mapping[str, Tensor],
    scale: float,
    *,
    interval: Interval | None = None,
    rescale: float = 0.0,
    null: Mapping[str, Tensor] | None = None,
    schedule: Schedule | None = None,
) -> Denoiser:
    """A denoiser (x, t) -> x0_hat(x, t, null) + scale (x0_hat(x, t, condition) - x0_hat(x, t, null)).

    condition: what is asked for, by the names that the denoiser knows, as {"label": (B,)}; one for all samples, (1, ...) or 0-d, is
    repeated. scale: finite, >= 0. 1 is the conditional denoiser, 0 the unconditional one. (Ho & Salimans' w is scale - 1.)
    interval: (low, high), noise levels sigma/alpha, 0 <= low < high <= inf; outside it the scale is 1. Kynkäänniemi et al. 2024, eq. 6.
    rescale: in [0, 1], see ``rescaled``. null: the values that mean "no condition", for one sample; by default
    denoiser.null_condition: a label's null class, the empty caption.
    schedule: the path on which x lies, for ``interval``; by default ``denoiser.schedule``.

    Cost: one evaluation of twice the batch; of the batch itself at scale 1, at scale 0 without rescale, or outside the interval.
    Book (6.10), (6.18). Ho & Salimans 2022, eq. 6. ValueError for a negative or infinite scale, an empty or reversed interval, a condition without
    a known null; TypeError (from the denoiser) for a condition that it does not know.
    """
    check_non_negative("scale", scale)
    check_share("rescale", rescale)
    null = _null(denoiser, condition, null)
    inside = _inside(denoiser, schedule, interval)

    def guided(x: Tensor, t: Tensor | float, **other: Tensor) -> Tensor:
        t = check_batch_time(t, x)
        wanted, other = _spread_over(condition, x), _spread_over(other, x)
        _no_clash(other, wanted)
        within = inside(t)
        if scale == 1 or _nowhere(within):
            return denoiser(x, t, **other, **wanted)
        nothing = {name: value.to(wanted[name]) for name, value in _spread_over(null, x).items()}
        if scale == 0 and within is None and rescale == 0:
            return denoiser(x, t, **other, **nothing)
        twice = {name: torch.cat([value, value]) for name, value in other.items()}
        twice |= {name: torch.cat([wanted[name], nothing[name]]) for name in wanted}
        with_it, without = denoiser(torch.cat([x, x]), torch.cat([t, t]), **twice).chunk(2)
        return _line(without, with_it, scale, within, rescale)

    return guided


def autoguided(
    denoiser: Denoiser,
    weak: Denoiser,
    scale: float,
    *,
    interval: Interval | None = None,
    rescale: float = 0.0,
    schedule: Schedule | None = None,
) -> Denoiser:
    """A denoiser (x, t) -> weak(x, t) + scale (denoiser(x, t) - weak(x, t)): away from a lesser version of the same model.

    weak: the same task learned worse (a smaller net, trained for less long), with the same conditions, which both are given. scale,
    interval, rescale, schedule: as in ``classifier_free_guided``; 1 is ``denoiser`` itself. One evaluation of each a call; of ``denoiser`` alone
    at scale 1 or outside the interval. Book (6.19). Karras et al. 2024 (autoguidance), eq. 3.
    """
    check_non_negative("scale", scale)
    check_share("rescale", rescale)
    inside = _inside(denoiser, schedule, interval)

    def guided(x: Tensor, t: Tensor | float, **condition: Tensor) -> Tensor:
        t = check_batch_time(t, x)
        better = denoiser(x, t, **condition)
        within = inside(t)
        if scale == 1 or _nowhere(within):
            return better
        return _line(weak(x, t, **condition), better, scale, within, rescale)

    return guided


def _nowhere(within: Tensor | None) -> bool:
    """Is no sample of the batch inside the interval? Then half the work can be left out. (Reads one bit back from an accelerator.)"""
    return within is not None and not bool(within.any())


def _line(lesser: Tensor, better: Tensor, scale: float, within: Tensor | None, rescale: float) -> Tensor:
    """lesser + scale (better - lesser), rescaled, for the samples that are ``within`` (B,); ``better`` for the others."""
    out = rescaled(lesser + scale * (better - lesser), better, rescale)
    return out if within is None else torch.where(expand(within.to(out), out) > 0, out, better)


def _inside(denoiser: Denoiser, schedule: Schedule | None, interval: Interval | None):
    """A function t (B,) -> (B,) bool: is the noise level at t in (low, high]? Without an interval it gives None: everywhere."""
    if interval is None:
        return lambda t: None
    low, high = check_interval("interval", interval)
    schedule = getattr(denoiser, "schedule", None) if schedule is None else schedule
    if schedule is None:
        raise ValueError(
            "interval was given, and the denoiser names no schedule; expected one that turns t into a noise level: pass schedule=…"
        )

    def inside(t: Tensor) -> Tensor:
        level = schedule.noise_level(t)
        return (level > low) & (level <= high)

    return inside


def _null(denoiser: Denoiser, condition: Mapping[str, Tensor], null: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """What stands for "no condition", one entry for each of ``condition``."""
    if not isinstance(condition, Mapping) or not condition:
        raise ValueError(f"condition={condition!r} was given; expected what is asked for by name, such as {{'label': labels}}.")
    own = {name: value[None] for name, value in null_condition(denoiser).items()}          # (1, ...): one row for all samples
    null = own | dict(null or {})
    missing = [name for name in condition if name not in null]
    if missing:
        known = f"this denoiser has one for {', '.join(map(repr, own))}" if own else "a denoiser whose net is built with classes=… has one for 'label'"
        raise ValueError(
            f"condition {missing[0]!r} was given, and nothing is known to mean 'no {missing[0]}'; expected a name with a null value, and "
            f"{known}: correct the name, or pass null={{{missing[0]!r}: …}}."
        )
    return {name: null[name] for name in condition}


def _spread_over(condition: Mapping[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """Each entry with one row per sample of ``x``."""
    out = {}
    for name, value in condition.items():
        value = torch.as_tensor(value).to(x.device)
        if value.ndim == 0 or (len(value) == 1 and len(x) != 1):
            value = value.expand(len(x), *value.shape[1:])
        if len(value) != len(x):
            raise ValueError(
                f"condition {name!r} has shape {tuple(value.shape)} and x has {len(x)} samples; expected one entry per sample, or one for all."
            )
        out[name] = value
    return out


def _no_clash(other: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    for name in other:
        if name in wanted:
            raise ValueError(
                f"condition {name!r} was given twice, to the guided denoiser and to the sampler; expected it in one place: "
                "leave it out of the sampler's condition."
            )
