"""What judges are made of: compare an answer with a reference, and name the usual mistakes.

Deterministic answers are compared to rounding; random ones within k standard errors of the estimate itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_lib.checks.core import OpenAnswer, WrongAnswer, is_open

TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}  # relative

USUAL: dict[str, Callable[[Tensor], Tensor]] = {
    "it has the wrong sign": lambda y: -y,
    "it is the square of the right answer (a variance where a standard deviation is asked, or a missing square root)": torch.square,
    "it is the square root of the right answer (a standard deviation where a variance is asked)": lambda y: y.abs().sqrt(),
    "it is the reciprocal of the right answer": lambda y: 1 / y,
    "it is twice the right answer": lambda y: 2 * y,
    "it is half the right answer": lambda y: y / 2,
    "it is one minus the right answer": lambda y: 1 - y,
    "it is the logarithm of the right answer": lambda y: y.abs().log(),
    "it is the exponential of the right answer": torch.exp,
}


def seeded(seed: int = 0) -> torch.Generator:
    """A CPU generator with this seed: a judge draws its inputs from one, so that a verdict does not change from run to run."""
    return torch.Generator().manual_seed(seed)


def call(answer: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a reader's function in a judge of your own making. Errors: OpenAnswer if it returns None or ``...``; WrongAnswer if it is no function."""
    if not callable(answer):
        raise WrongAnswer(f"An answer of type {type(answer).__name__} was given; expected a function: pass its name without brackets.")
    result = answer(*args, **kwargs)
    if any(is_open(part) for part in (result if isinstance(result, tuple) else (result,))):
        raise OpenAnswer
    return result


def close_to_reference(answer: Callable[..., Any], reference: Callable[..., Any], inputs: Sequence[Any], *,
                       mistakes: Mapping[str, Callable[..., Any]] | None = None, rtol: float | None = None,
                       atol: float = 0.0, name: str = "your function") -> None:
    """Compare a reader's function with the right one on each of ``inputs``.

    answer, reference: callables that return a number or a tensor (or a tuple of them)
    inputs: argument tuples (a bare value counts as one argument; a dict as keyword arguments)
    mistakes: {what went wrong, as the end of the sentence "It looks as if ...": the function one gets by that mistake}
    rtol: relative tolerance, of the largest entry of the reference; None goes by the answer's dtype (`TOLERANCE`)
    atol: absolute tolerance
    Errors: WrongAnswer; OpenAnswer if the function returns None or ``...``.
    """
    if not callable(answer):
        raise WrongAnswer(f"An answer of type {type(answer).__name__} was given; expected a function: pass its name without brackets.")
    calls = [_Call(entry) for entry in inputs]
    expected = [call(reference) for call in calls]
    given = []
    for call in calls:
        result = call(answer)
        if any(is_open(part) for part in result):
            raise OpenAnswer
        given.append([_tensor(part, name) for part in result])
    for call, mine, right in zip(calls, given, expected, strict=True):
        if len(mine) != len(right):
            raise WrongAnswer(f"{name} returned {_count(len(mine))}; expected {_count(len(right))}.")
        for part, truth in zip(mine, right, strict=True):
            _same_shape(part, _tensor(truth, name), name, call)
    if all(_close(m, r, rtol, atol) for mine, right in zip(given, expected, strict=True) for m, r in zip(mine, right, strict=True)):
        return
    for explanation, wrong in (mistakes or {}).items():
        if _agrees(given, [call(wrong) for call in calls], rtol, atol):
            raise WrongAnswer(f"It looks as if {explanation.rstrip('.')}.")
    for explanation, change in USUAL.items():
        if _agrees(given, [[change(_tensor(r, name)) for r in right] for right in expected], rtol, atol):
            raise WrongAnswer(f"{explanation[0].upper()}{explanation[1:]}.")
    raise WrongAnswer(_worst(given, expected, calls, rtol, atol, name))


def close_number(answer: Any, expected: float, *, rtol: float = 1e-3, atol: float = 0.0,
                 mistakes: Mapping[str, float] | None = None, name: str = "your number") -> None:
    """Compare a reader's number (or 1-element tensor) with ``expected``; arguments and errors as in `close_to_reference`."""
    wrong = {explanation: (lambda value=value: value) for explanation, value in (mistakes or {}).items()}
    close_to_reference(lambda: answer, lambda: expected, [()], mistakes=wrong, rtol=rtol, atol=atol, name=name)


def mean_close(samples: Any, expected: Any, *, k: float = 5.0, name: str = "the mean of your samples") -> None:
    """The mean of independent samples (N, ...) must lie within ``k`` standard errors of ``expected`` (...), entry by entry.

    Errors: WrongAnswer that states the deviation in standard errors. A right answer fails one comparison in 1.7 million at k = 5.
    """
    samples = _samples(samples, name)
    error = samples.std(0) / len(samples) ** 0.5
    _within(samples.mean(0), expected, error, k, name, "the sign and scale of the mean, and which variable it is conditioned on")


def variance_close(samples: Any, expected: Any, *, k: float = 5.0, name: str = "the variance of your samples") -> None:
    """The variance of independent samples (N, ...) must lie within ``k`` standard errors of ``expected`` (...), entry by entry.

    The standard error of a sample variance is sqrt((m4 - s^4)/N), with m4 the fourth central moment. Errors: as `mean_close`.
    """
    samples = _samples(samples, name)
    centred = samples - samples.mean(0)
    variance = centred.square().mean(0)
    error = ((centred**4).mean(0) - variance**2).clamp_min(0).sqrt() / len(samples) ** 0.5
    expected = _tensor(expected, name)
    if _all_within(variance, expected.square(), error, k) and not _all_within(variance, expected, error, k):
        raise WrongAnswer(f"{name} is the square of what is expected: did you multiply the noise by the variance, and not by its square root?")
    if _all_within(variance, expected.sqrt(), error, k) and not _all_within(variance, expected, error, k):
        raise WrongAnswer(f"{name} is the square root of what is expected: is there one square root too many?")
    _within(variance, expected, error, k, name, "the factor in front of the noise")


def true_for_all(condition: Any, message: str) -> None:
    """Every entry of ``condition`` (bool or a tensor of bools) must hold; ``message`` is what the reader is told otherwise."""
    if not bool(torch.as_tensor(condition).all()):
        raise WrongAnswer(message)


class _Call:
    """One set of arguments, and how to show it."""

    def __init__(self, entry: Any) -> None:
        self.kwargs = entry if isinstance(entry, dict) else {}
        self.args = () if isinstance(entry, dict) else entry if isinstance(entry, tuple) else (entry,)

    def __call__(self, function: Callable[..., Any]) -> list[Any]:
        copied = [a.clone() if isinstance(a, Tensor) else a for a in self.args]         # an answer may work in place
        result = function(*copied, **{k: v.clone() if isinstance(v, Tensor) else v for k, v in self.kwargs.items()})
        return list(result) if isinstance(result, tuple) else [result]

    def __str__(self) -> str:
        shown = [_show(a) for a in self.args] + [f"{k}={_show(v)}" for k, v in self.kwargs.items()]
        return "(" + ", ".join(shown) + ")"


def _show(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.item():.4g}" if value.numel() == 1 else f"a tensor of shape {tuple(value.shape)}"
    return f"{value:.4g}" if isinstance(value, float) else getattr(value, "__name__", None) or repr(value)[:40]


def _count(n: int) -> str:
    return "one value" if n == 1 else f"{n} values"


def _tensor(value: Any, name: str) -> Tensor:
    try:
        return value.detach() if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise WrongAnswer(f"{name} gave a {type(value).__name__}; expected a number or a tensor.") from None


def _samples(samples: Any, name: str) -> Tensor:
    if is_open(samples):
        raise OpenAnswer
    samples = _tensor(samples, name).to(torch.float64)
    if samples.ndim == 0 or len(samples) < 2:
        raise WrongAnswer(f"{name}: {_show(samples)} was given; expected at least 2 samples along the first axis.")
    return samples


def _same_shape(part: Tensor, truth: Tensor, name: str, call: _Call) -> None:
    if part.shape != truth.shape and not part.numel() == truth.numel() == 1:
        raise WrongAnswer(f"{name}{call} has shape {tuple(part.shape)}; expected {tuple(truth.shape)}: "
                          "look at which axes are summed, and whether (B,) should spread over the axes of x.")


def _limits(part: Tensor, truth: Tensor, rtol: float | None, atol: float) -> float:
    relative = TOLERANCE.get(part.dtype, 1e-6) if rtol is None else rtol
    return atol + relative * float(truth.abs().max()) if truth.numel() else atol


def _close(part: Tensor, truth: Any, rtol: float | None, atol: float) -> bool:
    truth = torch.as_tensor(truth, dtype=torch.float64)
    if part.numel() != truth.numel() or not bool(torch.isfinite(truth).all()):
        return False
    gap = (part.to(torch.float64).reshape(-1) - truth.reshape(-1)).abs()
    return bool((gap <= _limits(part, truth, rtol, atol)).all())                        # NaN compares as False


def _agrees(given: list[list[Tensor]], others: list[list[Any]], rtol: float | None, atol: float) -> bool:
    pairs = [(m, o) for mine, other in zip(given, others, strict=True) for m, o in zip(mine, other, strict=False)]
    return len(pairs) > 0 and all(_close(m, o, rtol, atol) for m, o in pairs)


def _worst(given: list, expected: list, calls: list[_Call], rtol: float | None, atol: float, name: str) -> str:
    for call, mine, right in zip(calls, given, expected, strict=True):
        for part, truth in zip(mine, right, strict=True):
            truth = _tensor(truth, name).to(torch.float64)
            if _close(part, truth, rtol, atol):
                continue
            flat, true = part.to(torch.float64).reshape(-1), truth.reshape(-1)
            if not bool(torch.isfinite(flat).all()):
                return f"{name}{call if call.args or call.kwargs else ''} holds NaN or infinity: look for a division by zero or a log of zero."
            at = int((flat - true).abs().argmax())
            where = f" in entry {at} of {len(flat)}" if len(flat) > 1 else ""
            shown = str(call) if call.args or call.kwargs else ""
            return f"{name}{shown} is {flat[at]:.6g}{where}; expected {true[at]:.6g}."
    return f"{name} differs from the right answer."


def _all_within(value: Tensor, expected: Tensor, error: Tensor, k: float) -> bool:
    return bool(((value - expected).abs() <= k * error + 1e-12).all())


def _within(value: Tensor, expected: Any, error: Tensor, k: float, name: str, advice: str) -> None:
    expected = _tensor(expected, name).to(torch.float64).broadcast_to(value.shape)
    if _all_within(value, expected, error, k):
        return
    deviation = ((value - expected).abs() / error.clamp_min(1e-300)).reshape(-1)
    at = int(deviation.argmax())
    raise WrongAnswer(f"{name} is {value.reshape(-1)[at]:.4g}; expected {expected.reshape(-1)[at]:.4g} "
                      f"± {error.reshape(-1)[at]:.2g} (standard error), {deviation[at]:.0f} of which it is off: look at {advice}.")
