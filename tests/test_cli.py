"""The command line, from a folder of pictures to a grid and its metrics; and one sentence for each mistake."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_lib.checkpoints import denoiser_of, load
from diffusion_lib.commands import main
from diffusion_lib.commands.drawing import draw
from diffusion_lib.data import load as load_data
from diffusion_lib.denoisers import EDMDenoiser
from diffusion_lib.nets import C_NOISE_RANGE
from diffusion_lib.samplers import final, heun
from diffusion_lib.schedules import (
    EDMSchedule,
    VESchedule,
    geometric_levels,
    largest_distance,
    level_times,
    schedule_from_config,
    time_grid,
)
from diffusion_lib.training.state import read_state

SMALL = ["--width", "8", "--multipliers", "1", "2", "--batch-size", "8", "--precision", "fp32", "--device", "cpu"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "digits"
    assert main(["train", "--data", "digits", "--steps", "4", "--sample-every", "3", "--out", str(out), *SMALL]) == 0
    return out


def test_train_writes_a_model_its_card_a_state_and_a_grid(model):
    net, card = load(model)
    assert card["steps"] == 4 and card["shape"] == [1, 8, 8] and card["target"] == "eps" and card["schedule"]["name"] == "CosineSchedule"
    assert card["data"] == {"name": "digits", "pictures": 1442, "held_out": 355} and net.null_label == 10
    assert {p.name for p in model.iterdir()} == {"state.safetensors", "log.jsonl", "samples-000003.png"}
    assert Image.open(model / "samples-000003.png").size[0] > 4 * 8


def test_the_same_command_goes_on_where_it_stopped(model, tmp_path, capsys):
    for steps in ("2", "4"):
        assert main(["train", "--data", "digits", "--steps", steps, "--cooldown", "0", "--out", str(tmp_path / "a"), *SMALL]) == 0
    assert main(["train", "--data", "digits", "--steps", "4", "--cooldown", "0", "--out", str(tmp_path / "b"), *SMALL]) == 0
    a, b = (load(tmp_path / name)[0].state_dict() for name in "ab")
    assert all(a[name].equal(b[name]) for name in a)


@pytest.fixture(scope="module")
def edm_model(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "edm"
    assert main(["train", "--edm", "--steps", "4", "--sample-every", "4", "--out", str(out), *SMALL]) == 0
    return out


def test_a_finished_run_given_again_keeps_its_speed(model, capsys):
    """It once wrote 0 images a second over the measurement."""
    path = model.with_suffix(".json")
    before = json.loads(path.read_text())
    assert main(["train", "--data", "digits", "--steps", "4", "--sample-every", "3", "--out", str(model), *SMALL]) == 0
    after, most = json.loads(path.read_text()), 4 * 8 / read_state(model)[1]["seconds"]
    assert after["sha256"] == before["sha256"] and 0.5 * most < after["metrics"]["images_per_second"] <= most + 0.1


def test_edm_measures_its_data_and_comes_back_as_an_edm_denoiser(edm_model, tmp_path):
    net, card = load(edm_model)
    sigma_data = round(float(load_data("digits", "train")[0].double().std()), 4)
    assert card["sigma_data"] == sigma_data and 0.5 < sigma_data < 1 and "target" not in card
    assert tuple(net.conditioning.time_range) == C_NOISE_RANGE and (edm_model / "samples-000004.png").exists()
    denoiser = denoiser_of(net, card)
    assert isinstance(denoiser, EDMDenoiser) and denoiser.sigma_data == sigma_data and denoiser.schedule == EDMSchedule() and denoiser.null_label == 10
    # drawn by heun, 9 evaluations are 5 steps of EDM's own grid
    label, noise = torch.arange(3), EDMSchedule().noise((3, 1, 8, 8), torch.Generator().manual_seed(4), dtype=torch.float32)
    expected = final(heun(denoiser, denoiser.schedule, noise, time_grid(EDMSchedule(), 5, "karras"), condition={"label": label})).clamp(-1, 1)
    assert torch.equal(draw(net, card, 3, seed=4, label=label, sampler="heun", steps=9), expected)


@pytest.mark.parametrize("schedule", ["cosine", "ddpm-cosine"])
def test_edm_on_other_schedules_up_to_their_highest_level(schedule, tmp_path):
    """Cosine reaches level 1000, its discrete cousin 20,000: c_noise stays inside the network's range."""
    out = tmp_path / "m"
    assert main(["train", "--edm", "--schedule", schedule, "--steps", "1", "--out", str(out), *SMALL]) == 0
    assert main(["sample", str(out), "--n", "2", "--steps", "3", "--sampler", "dpmpp", "--out", str(tmp_path / "g.png")]) == 0


def test_learned_variance(tmp_path, capsys):
    out = tmp_path / "iddpm"
    arguments = ["train", "--learned-variance", "--target", "v", "--steps", "2", "--out", str(out), *SMALL]
    assert main(arguments) == 2 and "DiscreteSchedule" in capsys.readouterr().err
    assert main([*arguments, "--schedule", "ddpm-cosine"]) == 0
    net, card = load(out)
    assert card["config"]["learned_variance"] is True and card["target"] == "v" and denoiser_of(net, card).learned_variance
    assert net(torch.zeros(1, 1, 8, 8), 0.5).shape == (1, 2, 8, 8)
    for more in (["--sampler", "ddpm"], ["--guidance", "2"]):
        assert main(["sample", str(out), "--n", "2", "--steps", "3", "--out", str(tmp_path / "g.png"), *more]) == 0


def test_guided_samples_are_measured_and_the_result_says_how(model, capsys):
    walk = ["--steps", "3", "--sampler", "heun", "--grid", "karras", "--guidance", "2", "--guidance-interval", "0.1", "5", "--rescale", "0.3"]
    assert main(["evaluate", str(model), "--json", "--groups", "1", "--most", "40", *walk]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [result[k] for k in ("sampler", "network_evaluations", "grid", "guidance", "interval", "rescale")] == ["heun", 3, "karras", 2.0, [0.1, 5.0], 0.3]


def test_sample_writes_the_same_grid_for_the_same_seed(model, tmp_path, capsys):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(["sample", str(model), "--n", "5", "--steps", "3", "--seed", seed, "--out", str(tmp_path / f"{name}.png")]) == 0
    a, b, c = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "abc")
    assert (a == b).all() and (a != c).any()
    assert "5 pictures, 3 network evaluations each" in capsys.readouterr().out


def test_evaluate_prints_json_with_counts_and_errors(model, capsys):
    assert main(["evaluate", str(model), "--json", "--groups", "2", "--steps", "2", "--sampler", "ddpm"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["samples"] == 710 and result["real_held_out"] == 355 and "digits-classifier" in result["features"]
    assert result["frechet_ratio"] == pytest.approx(result["frechet"] / result["frechet_floor"], rel=1e-3)
    assert result["frechet_ratio"] > 5 and result["accuracy"] < 0.5, "an untrained net cannot be this good"
    assert result["frechet_se"] > 0 and result["memorises"] is False


def test_a_folder_of_ones_own_pictures(tmp_path, capsys):
    values = np.random.default_rng(0)
    for kind, shade in (("dark", 40), ("light", 200)):
        (tmp_path / "pictures" / kind).mkdir(parents=True)
        for i in range(25):
            array = values.integers(shade, shade + 50, (20 + i, 30, 3), dtype=np.uint8)     # no two of one size
            Image.fromarray(array).save(tmp_path / "pictures" / kind / f"{i}.png")
    out = tmp_path / "mine"
    assert main(["train", "--data", str(tmp_path / "pictures"), "--size", "16", "--steps", "2", "--out", str(out), *SMALL]) == 0
    card = load(out)[1]
    assert card["shape"] == [3, 16, 16] and card["data"]["pictures"] == 40 and card["config"]["classes"] == 2
    assert main(["sample", str(out), "--n", "2", "--steps", "2", "--label", "1", "--out", str(tmp_path / "g.png")]) == 0
    assert Image.open(tmp_path / "g.png").mode == "RGB"
    capsys.readouterr()
    assert main(["evaluate", str(out), "--json", "--steps", "2", "--groups", "2"]) == 0
    assert "principal components" in json.loads(capsys.readouterr().out)["features"]


def test_minutes_become_a_number_of_steps_that_is_kept(tmp_path, capsys):
    arguments = ["train", "--data", "digits", "--minutes", "0.002", "--out", str(tmp_path / "m"), *SMALL]
    assert main(arguments) == 0
    steps = json.loads((tmp_path / "m" / "plan.json").read_text())["steps"]
    assert main(arguments) == 0 and load(tmp_path / "m")[1]["steps"] == steps >= 1


def test_noise_levels_are_fitted_to_the_data_and_rebuilt_from_the_card(tmp_path):
    """NCSN: the schedule starts at the largest distance of two training digits; only the card's levels are trained on and walked."""
    out = tmp_path / "ncsn"
    assert main(["train", "--schedule", "ve", "--levels", "6", "--sigma-min", "0.05", "--steps", "2", "--out", str(out), *SMALL]) == 0
    card = load(out)[1]
    schedule = schedule_from_config(card["schedule"])
    assert schedule == VESchedule(0.05, largest_distance(load_data("digits", "train")[0]))
    levels = geometric_levels(**card["levels"])
    assert levels.shape == (6,) and float(levels[-1]) == 0.05 and float(levels[0]) == schedule.prior_std
    assert float(level_times(schedule, levels)[0]) == pytest.approx(1.0, abs=1e-9)
    grid = tmp_path / "grid.png"
    assert main(["sample", str(out), "--n", "2", "--sampler", "annealed_langevin", "--steps", "13", "--out", str(grid)]) == 0
    assert grid.exists()


def test_info(capsys, model):
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["profile"] in ("cpu", "gpu") and "digits-classifier" in facts["models"]
    assert main(["info"]) == 0 and "digits-classifier" in capsys.readouterr().out
    assert main(["info", str(model)]) == 0 and json.loads(capsys.readouterr().out)["steps"] == 4


@pytest.mark.parametrize("arguments, sentence", [
    (["train", "--data", "digit"], "The data set 'digit' is unknown"),
    (["train", "--schedule", "cosin"], "did you mean 'cosine'"),
    (["train", "--target", "epsilon"], "target='epsilon' is unknown"),
    (["train", "--steps", "0", "--out", "{tmp}/x"], "steps=0"),
    (["train", "--levels", "9", "--out", "{tmp}/x"], "expected --schedule ve"),
    (["sample", "digits-ncsn", "--sampler", "annealed_langevin", "--steps", "24"], "steps=24 was given; expected an integer >= 25"),
    (["train", "--levels", "1", "--schedule", "ve", "--out", "{tmp}/x"], "count=1"),
    (["sample", "{model}", "--sampler", "annealed_langevin"], "trained without noise levels"),
    (["train", "--edm", "--target", "v"], "--target was given with --edm"),
    (["train", "--edm", "--weight", "x0"], "--weight was given with --edm"),
    (["train", "--edm", "--learned-variance"], "--learned-variance was given with --edm"),
    (["train", "--edm", "--levels", "0"], "--levels was given with --edm"),
    (["train", "--learned-variance", "--weight", "x0", "--schedule", "ddpm-linear"], "--weight x0 was given with --learned-variance"),
    (["sample", "{model}", "--guidance", "-1"], "scale=-1.0 was given"),
    (["sample", "{model}", "--guidance", "nan"], "scale=nan was given"),
    (["sample", "{model}", "--guidance", "inf"], "scale=inf was given"),
    (["sample", "{model}", "--guidance", "2", "--guidance-interval", "2", "1"], "interval=(2, 1) holds no noise level"),
    (["sample", "{model}", "--guidance-interval", "1", "2"], "and guidance=1, which is none"),
    (["sample", "{model}", "--rescale", "0.5"], "and guidance=1, which is none"),
    (["sample", "{model}", "--guidance", "2", "--rescale", "1.5"], "rescale=1.5"),
    (["sample", "{model}", "--sampler", "heun", "--eta", "1"], "expected ddim or dpmpp"),
    (["sample", "digits-ncsn", "--sampler", "annealed_langevin", "--grid", "karras", "--steps", "25"], "walks down the levels"),
    (["train", "--minutes", "-1", "--out", "{tmp}/x"], "--minutes=-1"),
    (["train", "--data", "{tmp}", "--out", "{tmp}/x"], "holds no pictures"),
    (["train", "--multipliers", "1", "2", "4", "8", "16", "--steps", "1", "--out", "{tmp}/x"], "multiples of 16"),
    (["sample", "digits-classifer"], "did you mean 'digits-classifier'"),
    (["sample", "{tmp}/none"], "No weights at"),
    (["sample", "{model}", "--n", "0"], "n=0"),
    (["sample", "{model}", "--label", "10"], "expected a class from 0 to 9"),
    (["sample", "{model}", "--steps", "2", "--n", "1", "--out", "{model}.json/x.png"], "could not be written"),
    (["sample", "digits-classifier"], "expected a model that generates pictures"),
    (["evaluate", "{model}", "--data", "nothing"], "'nothing' is unknown"),
    (["info", "nonsense"], "No pretrained weights are called 'nonsense'"),
])
def test_mistakes_are_one_sentence_and_status_2(arguments, sentence, model, tmp_path, capsys):
    assert main([a.format(tmp=tmp_path, model=model) for a in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert sentence in error and "Traceback" not in error and error.count("\n") <= 1


def test_as_a_program_it_leaves_with_2():
    ran = subprocess.run([sys.executable, "-m", "diffusion_lib", "smaple"], capture_output=True, text=True)
    assert ran.returncode == 2 and "invalid choice: 'smaple'" in ran.stderr and ran.stderr.count("\n") == 1
