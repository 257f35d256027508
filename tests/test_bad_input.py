"""Wrong calls across the public API: each is refused at once, in one sentence that says what was given and how to mend it."""

from __future__ import annotations

import errno
import re

import pytest
import torch

from diffusion_lib import checkpoints, checks, data, losses, metrics, profile, samplers, schedules, training
from diffusion_lib.data import digits, images, toy
from diffusion_lib.data.folder import folder
from diffusion_lib.denoisers import EDMDenoiser, ExactDenoiser, NetDenoiser
from diffusion_lib.exact import GaussianMixture, three_modes
from diffusion_lib.likelihood import elbo
from diffusion_lib.losses import DenoisingLoss, UniformTimes, VariationalLoss
from diffusion_lib.nets import MLP, UNet, build
from diffusion_lib.samplers import ddim, ddpm, final
from diffusion_lib.schedules import (
    DiscreteSchedule,
    LinearSchedule,
    VESchedule,
    VPSchedule,
    schedule_from_config,
    time_grid,
)
from diffusion_lib.targets import convert, diffuse, training_target
from diffusion_lib.transitions import forward_kernel

VP, M = VPSchedule(), three_modes()
X, T = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.full((4,), 0.5, dtype=torch.float64)
NAN = torch.full((4, 2), torch.nan)
GRID = time_grid(VP, 10)
EXACT = ExactDenoiser(M, VP)


AIS, LANGEVIN = samplers.annealed_importance_sampling, {"steps_per_level": 2, "step_size": 0.1}
PATH = samplers.geometric_path(lambda x: -x.square().sum(1), M.log_prob)


def annealed(times, **options):
    return samplers.annealed_langevin(EXACT, VP, X, times, **options)


def two(*covariances):
    return GaussianMixture(torch.tensor([0.5, 0.5]), torch.zeros(2, 2), torch.tensor(covariances))


# (name, the wrong call, the error, words that the sentence must hold)
CASES = [
    ("time above 1", lambda: VP.alpha(1.5), ValueError, r"1\.5.*\[0, 1\]"),
    ("step index as a time", lambda: VP.sigma(torch.tensor([500])), ValueError, r"divide"),
    ("negative time", lambda: VP.log_snr(torch.tensor([-0.1])), ValueError, r"\[0, 1\]"),
    ("NaN time", lambda: VP.alpha(torch.tensor([torch.nan])), ValueError, r"\[0, 1\]"),
    ("beta_max below beta_min", lambda: VPSchedule(5.0, 1.0), ValueError, r"beta_max=1\.0"),
    ("negative beta", lambda: VPSchedule(-0.1), ValueError, r"beta_min=-0\.1"),
    ("sigma_min of 0", lambda: VESchedule(0.0), ValueError, r"sigma_min=0\.0"),
    ("beta of 1", lambda: DiscreteSchedule(torch.tensor([0.1, 1.0])), ValueError, r"\(0, 1\)"),
    ("no betas", lambda: DiscreteSchedule(torch.zeros(0)), ValueError, r"0 entries"),
    ("too few linear betas", lambda: DiscreteSchedule.from_name("linear", 10), ValueError, r"\(0, 1\)"),
    ("unknown beta schedule", lambda: DiscreteSchedule.from_name("cosin"), ValueError, r"did you mean 'cosine'"),
    ("step beyond T", lambda: DiscreteSchedule.from_name("cosine", 10).time(11), ValueError, r"0\.\.10"),
    ("unknown schedule in a card", lambda: schedule_from_config({"name": "VPShedule"}), ValueError, r"did you mean 'VPSchedule'"),
    ("zero steps", lambda: time_grid(VP, 0), ValueError, r"steps=0"),
    ("unknown grid", lambda: time_grid(VP, 10, "kerras"), ValueError, r"did you mean 'karras'"),
    ("grid's floor above its ceiling", lambda: time_grid(VP, 10, "karras", noise_max=0.001), ValueError, r"noise_min"),
    ("step backwards", lambda: forward_kernel(VP, 0.6, 0.5), ValueError, r"s < t"),
    ("unknown target", lambda: convert(X, X, T, VP, source="epsilon"), ValueError, r"source|target"),
    ("prediction of another shape", lambda: convert(X[:, :1], X, T, VP), ValueError, r"\(4, 1\).*\(4, 2\)"),
    ("one time for four samples", lambda: convert(X, X, T[:1], VP), ValueError, r"shape \(4,\)"),
    ("eps to x0 where alpha is 0", lambda: convert(X, X, torch.ones(4), LinearSchedule()), ValueError, r"t=1"),
    ("x0 to score at t = 0", lambda: convert(X, X, torch.zeros(4), VP, "x0", "score"), ValueError, r"t=0"),
    ("noise of another shape", lambda: diffuse(X, X[:2], T, VP), ValueError, r"equal shapes"),
    ("target that is none", lambda: training_target(X, X, T, VP, "noise"), ValueError, r"'noise'"),
    ("weights that sum to 2", lambda: GaussianMixture(torch.ones(2), torch.zeros(2, 1), torch.ones(2)), ValueError, r"sum to 2"),
    ("negative variance", lambda: two(1.0, -1.0), ValueError, r"-1.*>= 0"),
    ("covariances of another K", lambda: two(1.0), ValueError, r"same K"),
    ("matrix that is not symmetric", lambda: two([[1.0, 0.5], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]), ValueError, r"symmetric"),
    ("NaN in a mean", lambda: GaussianMixture(torch.ones(1), torch.tensor([[torch.nan]]), torch.ones(1)), ValueError, r"means.*NaN"),
    ("x of another dimension", lambda: M.score(X[:, :1], T, VP), ValueError, r"\(B, 2\)"),
    ("density of a point mass", lambda: two(0.0, 0.0).log_prob(X.float()), ValueError, r"zero variance"),
    ("net with too many channels", lambda: NetDenoiser(lambda x, t: torch.cat([x, x], 1), VP)(X, T), ValueError, r"output"),
    ("learned variance that is not there", lambda: NetDenoiser(lambda x, t: x, VP, learned_variance=True)(X, T), ValueError, r"expected 4"),
    ("sigma_data of 0", lambda: EDMDenoiser(None, sigma_data=0.0), ValueError, r"sigma_data"),
    ("NaN in the data", lambda: DenoisingLoss(VP)(lambda x, t: x, NAN), ValueError, r"x0.*NaN"),
    ("pictures as bytes", lambda: DenoisingLoss(VP)(lambda x, t: x, torch.zeros(2, 1, 8, 8, dtype=torch.uint8)), TypeError, r"uint8.*float"),
    ("unknown weight", lambda: DenoisingLoss(VP, weight="minsnr"), ValueError, r"did you mean 'min_snr'"),
    ("label dropout above 1", lambda: DenoisingLoss(VP, label_dropout=10.0), ValueError, r"\[0, 1\]"),
    ("label dropout without labels", lambda: DenoisingLoss(VP, label_dropout=0.1)(MLP(2), X.float()), ValueError, r"label"),
    ("times upside down", lambda: UniformTimes(0.9, 0.1), ValueError, r"t_min"),
    ("bound of a continuous schedule", lambda: VariationalLoss(VP), ValueError, r"DiscreteSchedule"),
    ("unsorted grid", lambda: ddim(EXACT, VP, X, GRID.flip(0)), ValueError, r"decreasing"),
    ("one-point grid", lambda: ddpm(EXACT, VP, X, GRID[:1]), ValueError, r"at least 2"),
    ("repeated time", lambda: ddim(EXACT, VP, X, torch.tensor([1.0, 0.5, 0.5, 0.0])), ValueError, r"decreasing"),
    ("NaN in the start", lambda: ddim(EXACT, VP, NAN, GRID), ValueError, r"x holds 8"),
    ("start without a batch", lambda: ddim(EXACT, VP, X[0], GRID), ValueError, r"batch"),
    ("negative eta", lambda: ddim(EXACT, VP, X, GRID, eta=-1.0), ValueError, r"eta=-1"),
    ("unknown variance", lambda: ddpm(EXACT, VP, X, GRID, variance="fixed_small"), ValueError, r"fixed_small"),
    ("variance that was not learned", lambda: ddpm(EXACT, VP, X, GRID, variance="learned"), ValueError, r"learned_variance"),
    ("optimal variance of a net", lambda: ddpm(NetDenoiser(MLP(2), VP), VP, X, GRID, variance="optimal"), ValueError, r"Var"),
    ("denoiser that returns NaN", lambda: final(ddim(lambda x, t: x * torch.nan, VP, X, GRID)), ValueError, r"NaN"),
    ("sampler run twice", lambda: final(iter(())), ValueError, r"no state"),
    ("bound over a grid that starts late", lambda: elbo(EXACT, VP, X, times=GRID[3:]), ValueError, r"t_max"),
    ("picture that does not divide", lambda: UNet(channels=1)(torch.zeros(1, 1, 7, 7), torch.ones(1)), ValueError, r"7"),
    ("unknown architecture", lambda: build("UNett", {}), ValueError, r"did you mean 'UNet'"),
    ("misspelt option of a net", lambda: build("MLP", {"dim": 2, "widht": 8}), ValueError, r"widht"),
    ("steps of training that are none", lambda: training.train(MLP(2), DenoisingLoss(VP), [X.float()], steps=0), ValueError, r"steps=0"),
    ("negative learning rate", lambda: training.train(MLP(2), DenoisingLoss(VP), [X.float()], steps=1, lr=-1.0), ValueError, r"lr=-1"),
    ("unknown precision", lambda: training.train(MLP(2), DenoisingLoss(VP), [X.float()], steps=1, precision="fp16"), ValueError, r"precision"),
    ("NaN in the batches", lambda: training.Batches(NAN), ValueError, r"NaN"),
    ("labels of another length", lambda: training.Batches(X.float(), torch.zeros(3)), ValueError, r"label.*4"),
    ("unknown weights", lambda: checkpoints.pretrained("digits-ddmp"), ValueError, r"did you mean"),
    ("unknown data set", lambda: data.load("mnits"), ValueError, r"mnits"),
    ("unknown toy set", lambda: toy.toy("moons", 10), ValueError, r"two_moons"),
    ("unknown split", lambda: digits.digits("held_out"), ValueError, r"test"),
    ("too few samples for a covariance", lambda: metrics.frechet_distance(X[:2], X), ValueError, r"2"),
    ("features of two widths", lambda: metrics.frechet_distance(torch.randn(9, 2), torch.randn(9, 3)), ValueError, r"2.*3"),
    ("unknown exercise", lambda: checks.check("2.99z", 1.0), ValueError, r"2\.99z"),
    ("unknown profile", lambda: profile.profile("tpu"), ValueError, r"'tpu'"),
    ("true score of another shape", lambda: losses.explicit_score_matching(lambda x: x, X, X[:2]), ValueError, r"true_score.*equal"),
    ("score with one number too few", lambda: losses.implicit_score_matching(lambda x: x[:, :1], X), ValueError, r"the score.*\(4, 1\)"),
    ("score that was detached", lambda: losses.implicit_score_matching(lambda x: x.detach(), X), ValueError, r"derivative.*detach"),
    ("NaN to match a score at", lambda: losses.explicit_score_matching(lambda x: x, NAN, NAN), ValueError, r"x holds 8"),
    ("samples without a batch", lambda: losses.sliced_score_matching(lambda x: x, X[0]), ValueError, r"\(2,\).*batch"),
    ("no projections", lambda: losses.sliced_score_matching(lambda x: x, X, projections=0), ValueError, r"projections=0"),
    ("unknown probe", lambda: losses.sliced_score_matching(lambda x: x, X, probe="rademaker"), ValueError, r"did you mean 'rademacher'"),
    ("denoising without noise", lambda: losses.denoising_score_matching(lambda x: x, X, 0.0), ValueError, r"sigma=0.*> 0"),
    ("two sigmas for four samples", lambda: losses.denoising_score_matching(lambda x: x, X, T[:2]), ValueError, r"\(2,\).*\(4,\)"),
    ("a level at t = 0", lambda: losses.LevelTimes(GRID), ValueError, r"\[:-1\]"),
    ("levels upside down", lambda: schedules.geometric_levels(0.01, 5.0, 9), ValueError, r"swap"),
    ("one level", lambda: schedules.geometric_levels(5.0, 0.01, 1), ValueError, r"count=1.*>= 2"),
    ("levels that rise", lambda: schedules.level_times(VP, torch.tensor([0.1, 1.0])), ValueError, r"falling"),
    ("levels above the schedule", lambda: schedules.level_times(VESchedule(0.01, 5.0), torch.tensor([9.0, 1.0])), ValueError, r"9.*above.*5"),
    ("NCSNv2's ratio in the plane", lambda: schedules.level_ratio(2), ValueError, r"dim=2.*>= 5"),
    ("overlap above 1", lambda: schedules.level_ratio(64, 1.5), ValueError, r"overlap=1\.5"),
    ("ratio of 1", lambda: schedules.level_count(5.0, 0.01, 1.0), ValueError, r"ratio > 1"),
    ("distance of one sample", lambda: schedules.largest_distance(X[:1]), ValueError, r"at least 2"),
    ("step size for one level", lambda: schedules.annealed_step_size(torch.ones(1), 5), ValueError, r"at least 2"),
    ("negative Langevin step", lambda: samplers.langevin(lambda x: -x, X, [0.1, -0.1]), ValueError, r"step size=-0\.1"),
    ("no Langevin steps", lambda: samplers.langevin(lambda x: -x, X, []), ValueError, r"empty"),
    ("NaN where a chain starts", lambda: samplers.langevin(lambda x: -x, NAN, [0.1]), ValueError, r"x holds 8"),
    ("score of another shape", lambda: final(samplers.langevin(lambda x: x[:2], X, [0.1])), ValueError, r"the score.*equal shapes"),
    ("empty minibatch", lambda: samplers.minibatch_score(lambda x: x, lambda x, b: x, X, 0), ValueError, r"batch_size=0"),
    ("steps that fall too slowly", lambda: samplers.polynomial_steps(1.0, 1.0, 0.5, 9), ValueError, r"gamma=0\.5"),
    ("annealing without steps", lambda: annealed(GRID, **LANGEVIN | {"steps_per_level": 0}), ValueError, r"steps_per_level=0"),
    ("annealing with steps of 0", lambda: annealed(GRID, **LANGEVIN | {"step_size": 0.0}), ValueError, r"step_size=0\.0"),
    ("annealing on a grid that rises", lambda: annealed(GRID.flip(0), **LANGEVIN), ValueError, r"decreasing"),
    ("annealing from above t_max", lambda: samplers.annealed_langevin(EXACT, LinearSchedule(), X, GRID, **LANGEVIN), ValueError, r"above t_max"),
    ("temperatures that start late", lambda: AIS(PATH, X, [0.1, 1.0], step_size=0.1), ValueError, r"0 to 1"),
    ("steps for other temperatures", lambda: AIS(PATH, X, [0.0, 1.0], step_size=[0.1] * 2), ValueError, r"2 entries.*1 levels"),
    ("one importance weight", lambda: AIS(PATH, X[:1], [0.0, 1.0], step_size=0.1), ValueError, r"at least 2"),
    ("a density that is NaN", lambda: AIS(lambda x, b: x.sum(1) * torch.nan, X, [0.0, 1.0], step_size=0.1), ValueError, r"log_weights holds 4"),
    ("unknown Stein kernel", lambda: metrics.stein_discrepancy(X, X, kernel="imk"), ValueError, r"did you mean 'imq'"),
    ("unknown Stein statistic", lambda: metrics.stein_discrepancy(X, X, statistic="w"), ValueError, r"'u', 'v'"),
    ("scores of fewer samples", lambda: metrics.stein_kernel(X, X[:2]), ValueError, r"4 samples.*2"),
    ("scores of another width", lambda: metrics.stein_kernel(X, X[:, :1]), ValueError, r"2 numbers.*1"),
    ("bandwidth of 0", lambda: metrics.stein_test(X, X, bandwidth=0.0), ValueError, r"bandwidth=0\.0"),
    ("signs that always turn", lambda: metrics.stein_test(X, X, flip=1.0), ValueError, r"flip=1\.0.*0\.5"),
]  # fmt: skip


def one_sentence(message: str) -> bool:
    """No line break, not longer than a reader reads, and not a bare name."""
    return "\n" not in message and 20 < len(message) < 400


@pytest.mark.parametrize("call, error, words", [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_refused_in_one_sentence(call, error, words):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert re.search(words, message), message
    assert one_sentence(message), message


def test_there_are_at_least_forty():
    assert len(CASES) >= 40 and len({case[0] for case in CASES}) == len(CASES)


@pytest.fixture
def saved(tmp_path):
    return checkpoints.save(tmp_path / "net", MLP(2, width=8, depth=1), {"data": "none"})


def test_truncated_checkpoint(saved):
    saved.write_bytes(saved.read_bytes()[:-7])
    with pytest.raises(ValueError, match="truncated") as caught:
        checkpoints.load(saved)
    assert one_sentence(str(caught.value))


def test_pickled_checkpoint(tmp_path):
    path = tmp_path / "net.pt"
    torch.save(MLP(2).state_dict(), path)
    with pytest.raises(ValueError, match="pickle"):
        checkpoints.load(path)


def test_checkpoint_of_another_architecture(saved, tmp_path):
    checkpoints.save(tmp_path / "other", MLP(2, width=16, depth=1), {})
    (tmp_path / "other.safetensors").write_bytes(saved.read_bytes())
    with pytest.raises(ValueError, match="SHA-256"):
        checkpoints.load(tmp_path / "other")


def test_missing_card(saved):
    saved.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match="card"):
        checkpoints.load(saved)


def test_full_disk(saved, tmp_path, monkeypatch):
    """The old checkpoint survives a disk that fills up while the new one is written."""
    before = saved.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        checkpoints.save(tmp_path / "net", MLP(2, width=8, depth=1), {})
    assert one_sentence(str(caught.value)) and saved.read_bytes() == before


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="could not be written"):
        checkpoints.save(tmp_path / "file" / "net", MLP(2), {})


def test_no_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OSError) as caught:
        images.images("fashion-mnist")
    assert one_sentence(str(caught.value)), str(caught.value)


def test_empty_and_unreadable_folders(tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=str(tmp_path.name)):
        folder(tmp_path, 8)
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="a.png"):
        folder(tmp_path, 8)
