"""The command line, from a folder of pictures to a grid and its metrics; and one sentence for each mistake."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from diffusion_lib.checkpoints import load
from diffusion_lib.commands import main
from diffusion_lib.commands.common import draw
from diffusion_lib.data import load as load_data
from diffusion_lib.nets import build
from diffusion_lib.schedules import VESchedule, geometric_levels, largest_distance, level_times, schedule_from_config

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


def test_annealed_langevin_spends_no_more_than_was_asked_for(tmp_path, monkeypatch):
    net = build("UNet", {"channels": 1, "width": 8, "multipliers": [1, 2]})
    card = {"shape": [1, 8, 8], "schedule": VESchedule(0.05, 9.0).config, "target": "eps", "clip": 1.0, "architecture": "UNet",
            "config": net.config, "levels": {"sigma_max": 8.0, "sigma_min": 0.1, "count": 6}}
    seen, forward = [], net.forward
    monkeypatch.setattr(net, "forward", lambda x, t, **condition: (seen.append(float(t[0])), forward(x, t, **condition))[1])
    for asked, spent in ((13, 13), (24, 19), (25, 25)):
        seen.clear()
        draw(net, card, 2, steps=asked, sampler="annealed_langevin", seed=0)
        assert len(seen) == spent and len(set(seen)) == 6


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
