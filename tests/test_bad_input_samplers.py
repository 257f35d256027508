"""Wrong calls of samplers, likelihoods and guidance: each is refused at once, in one sentence, as in test_bad_input."""

from __future__ import annotations

import math
import re

import pytest
import torch

from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import three_modes
from diffusion_lib.guidance import classifier_guided, measurement_guided
from diffusion_lib.likelihood import VariationalDequantiser, elbo, ode_log_likelihood
from diffusion_lib.nets import MLP
from diffusion_lib.samplers import (
    ddim,
    ddim_invert,
    ddpm,
    euler_maruyama,
    forward_sde,
    heun,
    inpaint,
    predictor_corrector,
)
from diffusion_lib.schedules import LinearSchedule, VPSchedule, time_grid

VP = VPSchedule()
X, T = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.full((4,), 0.5, dtype=torch.float64)
NAN = torch.full((4, 2), torch.nan)
GRID, EXACT = time_grid(VP, 10), ExactDenoiser(three_modes(), VP)
LINE, WHOLE = LinearSchedule(), torch.linspace(1.0, 0.0, 9)  # a grid that begins at t = 1, where LinearSchedule has no signal
WALKS = (ddim, ddpm, ddim_invert, heun, euler_maruyama, predictor_corrector)
FIRST = torch.tensor([True, False])


def fill(schedule=VP, times=GRID, known=X, mask=FIRST, **options):
    return inpaint(EXACT, schedule, X, times, known=known, mask=mask, **options)


def measured(measure=lambda x: x, y=X[0], noise_std=0.1, **options):
    return measurement_guided(EXACT, VP, measure, y, noise_std, **options)


# (name, the wrong call, words that the sentence must hold)
CASES = [
    ("corrector's signal-to-noise ratio of 0", lambda: predictor_corrector(EXACT, VP, X, GRID, snr=0.0), r"snr=0\.0.*> 0"),
    ("negative number of corrections", lambda: predictor_corrector(EXACT, VP, X, GRID, corrector_steps=-1), r"corrector_steps=-1"),
    ("unknown predictor", lambda: predictor_corrector(EXACT, VP, X, GRID, predictor="euler"), r"did you mean 'euler_maruyama'"),
    ("negative stochasticity", lambda: euler_maruyama(EXACT, VP, X, GRID, stochasticity=-0.5), r"stochasticity=-0\.5"),
    ("stochasticity without end", lambda: euler_maruyama(EXACT, VP, X, GRID, stochasticity=math.inf), r"inf.*finite"),
    ("SDE on a grid that rises", lambda: euler_maruyama(EXACT, VP, X, GRID.flip(0)), r"decreasing"),
    ("forward SDE on a grid that falls", lambda: forward_sde(VP, X, GRID), r"increasing.*flip"),
    ("forward SDE beyond t_max", lambda: forward_sde(LINE, X, WHOLE.flip(0)), r"t_max=0\.999"),
    ("more noise than there is", lambda: ddim(EXACT, VP, X, time_grid(VP, 20), eta=4.0), r"eta=4\.0.*at most 1\.\d"),
    ("NaN to be encoded", lambda: ddim_invert(EXACT, VP, NAN, GRID), r"x holds 8"),
    ("encoding on a grid that rises", lambda: ddim_invert(EXACT, VP, X, GRID.flip(0)), r"decreasing"),
    ("Heun on one time", lambda: heun(EXACT, VP, X, GRID[:1]), r"at least 2"),
    *[(f"{f.__name__} from above t_max", lambda f=f: f(EXACT, LINE, X, WHOLE), r"starts at 1.*t_max=0\.999.*time_grid") for f in WALKS],
    ("filling in above t_max", lambda: fill(LINE, WHOLE), r"t_max=0\.999"),
    ("a mask of numbers", lambda: fill(mask=torch.ones(2)), r"float32.*torch\.bool"),
    ("a mask that is a list", lambda: fill(mask=[True, False]), r"list.*torch\.bool"),
    ("a mask of another width", lambda: fill(mask=torch.ones(3, dtype=torch.bool)), r"\(3,\).*\(4, 2\).*broadcast"),
    ("known part of another shape", lambda: fill(known=X[:2]), r"known.*\(2, 2\)"),
    ("NaN in the known part", lambda: fill(known=NAN), r"known holds 8"),
    ("no resampling at all", lambda: fill(resample=0), r"resample=0"),
    ("bound over a grid above t_max", lambda: elbo(EXACT, LINE, X, times=WHOLE), r"t_max"),
    ("bytes to be coded as grey values", lambda: elbo(EXACT, VP, 255 * X, times=GRID, decoder="discretized"), r"\[-1, 1\]"),
    ("bytes to be dequantised", lambda: VariationalDequantiser(MLP(2), 256)(255 * X), r"\[-1, 1\].*127\.5"),
    ("dequantiser of one level", lambda: VariationalDequantiser(MLP(2), 1), r"bins=1.*>= 2"),
    ("dequantiser with half a net", lambda: VariationalDequantiser(lambda x: x, 16)(X / 9), r"equal shapes"),
    ("likelihood in no steps", lambda: ode_log_likelihood(EXACT, VP, X, steps=0), r"steps=0"),
    ("likelihood of NaN", lambda: ode_log_likelihood(EXACT, VP, NAN), r"x holds 8"),
    ("likelihood at an infinite noise level", lambda: ode_log_likelihood(EXACT, VP, X, noise_min=1e9), r"noise_min"),
    ("likelihood without any noise", lambda: ode_log_likelihood(EXACT, VP, X, noise_min=0.0), r"noise_min=0\.0"),
    ("unknown divergence", lambda: ode_log_likelihood(EXACT, VP, X, divergence="hutchinsen"), r"did you mean 'hutchinson'"),
    ("unknown kind of probe", lambda: ode_log_likelihood(EXACT, VP, X, probe="normal"), r"'rademacher', 'gaussian'"),
    ("no probes", lambda: ode_log_likelihood(EXACT, VP, X, probes=0), r"probes=0"),
    ("likelihood without a gradient", lambda: ode_log_likelihood(lambda x, t: x.detach(), VP, X), r"autograd.*detach"),
    ("negative guidance scale", lambda: classifier_guided(EXACT, VP, lambda x, t: x.sum(1), -1.0), r"scale=-1"),
    ("infinite guidance scale", lambda: classifier_guided(EXACT, VP, lambda x, t: x.sum(1), math.inf), r"scale=inf"),
    ("classifier that is a decision", lambda: classifier_guided(EXACT, VP, lambda x, t: (x[:, 0] > 0).double())(X, T), r"log_prob.*autograd"),
    ("classifier of all classes at once", lambda: classifier_guided(EXACT, VP, lambda x, t: x)(X, T), r"\(4, 2\).*\(4,\)"),
    ("measurement without a gradient", lambda: measured(lambda x: (x > 0).double())(X, T), r"measure.*differentiable"),
    ("measurement through argmax", lambda: measured(lambda x: x.argmax(1, keepdim=True).double(), X[0, :1])(X, T), r"measure.*argmax"),
    ("measurement of another size than y", lambda: measured(lambda x: x[:, :1])(X, T), r"\(4, 1\).*\(2,\)"),
    ("measurement that is not flat", lambda: measured(lambda x: x[:, :, None])(X, T), r"flatten"),
    ("measured NaN", lambda: measured(y=NAN[0]), r"y holds 2"),
    ("negative noise of a measurement", lambda: measured(noise_std=-0.1), r"noise_std=-0\.1"),
    ("unknown covariance", lambda: measured(covariance="tweedi"), r"did you mean 'tweedie'"),
    ("data without variance", lambda: measured(data_variance=0.0), r"data_variance=0\.0"),
]  # fmt: skip


@pytest.mark.parametrize("call, words", [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_refused_in_one_sentence(call, words):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert re.search(words, message), message
    assert "\n" not in message and 20 < len(message) < 400, message


def test_every_case_is_there_once():
    assert len({name for name, *_ in CASES}) == len(CASES)
