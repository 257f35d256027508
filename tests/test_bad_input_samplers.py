"""Wrong calls of samplers, likelihoods and guidance: each is refused at once, in one sentence, as in test_bad_input."""

from __future__ import annotations

import math
import re

import pytest
import torch

from diffusion_lib.denoisers import EDMDenoiser, ExactDenoiser, NetDenoiser
from diffusion_lib.exact import three_modes
from diffusion_lib.guidance import classifier_guided, measurement_guided
from diffusion_lib.likelihood import VariationalDequantiser, elbo, ode_log_likelihood
from diffusion_lib.losses import EDMLoss, LogNormalLevels
from diffusion_lib.nets import C_NOISE_RANGE, MLP
from diffusion_lib.samplers import (
    ddim,
    ddim_invert,
    ddpm,
    deis,
    dpmpp,
    euler_maruyama,
    forward_sde,
    heun,
    inpaint,
    predictor_corrector,
    unipc,
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


def churned(churn=1.0, grid=GRID, **options):
    return heun(EXACT, VP, X, grid, churn=churn, **options)


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
    ("negative churn", lambda: churned(-0.1), r"churn=-0\.1.*>= 0"),
    ("churn without end", lambda: churned(math.inf), r"churn=inf.*finite"),
    ("churn that is no number", lambda: churned(math.nan), r"churn=nan"),
    ("churn beyond N (sqrt(2) - 1)", lambda: churned(10 * (2**0.5 - 1) + 1e-6), r"churn=4\.14214 .*10 steps.*at most 4\.142.*more steps"),
    ("churn of 40 on 18 steps", lambda: churned(40.0, time_grid(VP, 18, "karras")), r"churn=40 .*at most 7\.456"),
    ("reversed churn interval", lambda: churned(churn_interval=(2.0, 0.1)), r"churn_interval=\(2, 0\.1\) holds no.*lower one first"),
    ("empty churn interval", lambda: churned(churn_interval=(1.0, 1.0)), r"churn_interval=\(1, 1\) holds no"),
    ("negative churn interval", lambda: churned(churn_interval=(-1.0, 1.0)), r"0 <= low"),
    ("NaN in the churn interval", lambda: churned(churn_interval=(0.0, math.nan)), r"holds no noise level"),
    ("churn interval of one number", lambda: churned(churn_interval=2.0), r"churn_interval=2\.0.*two noise levels"),
    ("a wrong churn interval without churn", lambda: churned(0.0, churn_interval=(2.0, 0.1)), r"lower one first"),
    ("churn without noise", lambda: churned(churn_noise=0.0), r"churn_noise=0\.0.*> 0"),
    ("negative churn noise", lambda: churned(churn_noise=-1.0), r"churn_noise=-1"),
    *[(f"{f.__name__} of order {order!r}", lambda f=f, order=order: f(EXACT, VP, X, GRID, order=order), rf"order={order!r} was given; expected")
      for f, orders in ((dpmpp, (0, 4, -1, 2.0, True)), (unipc, (0, 4)), (deis, (0, 6))) for order in orders],
    *[(f"{f.__name__} of order {n} on fewer steps", lambda f=f, n=n: f(EXACT, VP, X, time_grid(VP, n - 1), order=n), rf"{n - 1} steps.*at least {n}")
      for f, n in ((dpmpp, 2), (dpmpp, 3), (unipc, 3), (deis, 5))],
    ("noise of a negative eta", lambda: dpmpp(EXACT, VP, X, GRID, eta=-1.0), r"eta=-1"),
    ("DEIS without detail", lambda: deis(EXACT, VP, X, GRID, detail=0.0), r"detail=0\.0"),
    ("a grid down to noise_min = 0", lambda: time_grid(VP, 5, "karras", noise_min=0.0), r"noise_min=0\.0.*> 0"),
    ("a log-SNR grid down to 0", lambda: time_grid(VP, 5, "log_snr", noise_min=0), r"noise_min=0 .*> 0"),
    ("noise_min above the start", lambda: time_grid(VP, 5, "karras", noise_min=2.0, noise_max=1.0), r"noise_min=2\.0 is not below.*1 at"),
    ("a grid from no noise", lambda: time_grid(VP, 5, "karras", noise_max=0.0), r"noise_max=0\.0"),
    ("a grid of exponent 0", lambda: time_grid(VP, 5, "karras", rho=0.0), r"rho=0\.0"),
    ("an asinh grid without detail", lambda: time_grid(VP, 5, "asinh", detail=0.0), r"detail=0\.0"),
    ("a grid of another name", lambda: time_grid(VP, 5, "karas"), r"did you mean 'karras'"),
    ("EDM of data without spread", lambda: EDMDenoiser(MLP(2, time_range=C_NOISE_RANGE), 0.0), r"sigma_data=0\.0"),
    ("EDM around a net for t", lambda: EDMDenoiser(MLP(2)), r"built for t in \[0, 1\].*C_NOISE_RANGE"),
    ("a net for c_noise told t", lambda: NetDenoiser(MLP(2, time_range=C_NOISE_RANGE), VP), r"\(-2\.5, 2\.5\).*EDMDenoiser"),
    ("EDM's x0_hat without noise", lambda: EDMDenoiser(MLP(2, time_range=C_NOISE_RANGE))(X.float(), 0.0), r"time_range"),
    ("EDM's loss of a share above 1", lambda: EDMLoss(EDMDenoiser(None), label_dropout=1.5), r"label_dropout=1\.5"),
    ("EDM's loss of NaN", lambda: EDMLoss(EDMDenoiser(lambda x, c: x))(None, NAN), r"x0 holds 8"),
    ("levels that do not vary", lambda: LogNormalLevels(VP, std=0.0), r"std=0\.0"),
    ("levels around infinity", lambda: LogNormalLevels(VP, mean=math.inf), r"mean=inf"),
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
