"""The command line of latent models: one command trains autoencoder and network, prompts are drawn and measured, mistakes get one sentence."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_lib.checkpoints import load, paths
from diffusion_lib.commands import main
from diffusion_lib.commands.latent import draw, open_latent
from diffusion_lib.training import loop

SMALL = ["--pictures", "64", "--autoencoder-width", "8", "--width", "8", "--text-width", "8", "--batch-size", "16", "--precision", "fp32",
         "--device", "cpu"]
PROMPT = "a small red circle left of a large blue square"


def trained(out, *more):
    return main(["train-latent", "--autoencoder-steps", "2", "--steps", "2", "--out", str(out), *SMALL, *more])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    out = tmp_path_factory.mktemp("latent") / "shapes"
    assert trained(out) == 0
    return out


def test_one_command_writes_two_models_whose_cards_belong_together(model):
    net, card = load(model)
    autoencoder, its = load(f"{model}-autoencoder")
    assert card["latents"]["autoencoder"] == "shapes-autoencoder" and card["latents"]["autoencoder_sha256"] == its["sha256"]
    assert card["shape"] == [4, 8, 8] and its["shape"] == [3, 32, 32] and "psnr" in its["metrics"] and card["latents"]["scale"] > 0
    assert card["levels"] == [1.1, 1.0]
    assert card["command"].startswith("python") and card["parameters"] > 0 and net.config["words"][0] == card["config"]["words"][0]
    assert {p.name for p in model.iterdir()} == {"autoencoder", "latent"}
    space = open_latent(str(model)).space
    assert space.scale == card["latents"]["scale"] and space.shift == card["latents"]["shift"]


def test_a_stopped_command_goes_on_and_ends_with_the_same_bits(tmp_path, monkeypatch, capsys):
    """Stopped while the network trains, after the second of three steps; begun again, it takes the autoencoder as it is."""
    command = ["--steps", "3", "--every", "1"]
    assert trained(tmp_path / "straight" / "m", *command) == 0
    write, written = loop.write_state, []

    def stopping(folder, tensors, numbers):
        write(folder, tensors, numbers)
        written.append(folder.name)
        if written.count("latent") == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "write_state", stopping)
    assert trained(tmp_path / "cut" / "m", *command) == 130
    monkeypatch.undo()
    capsys.readouterr()
    assert trained(tmp_path / "cut" / "m", *command) == 0
    assert "taken as it is" in capsys.readouterr().err
    for name in ("m", "m-autoencoder"):
        assert paths(tmp_path / "cut" / name)[0].read_bytes() == paths(tmp_path / "straight" / name)[0].read_bytes()


def test_sample_draws_a_prompt_and_the_same_for_the_same_seed(model, tmp_path, capsys):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(["sample", str(model), "--prompt", PROMPT, "--n", "3", "--steps", "2", "--seed", seed, "--out", str(tmp_path / f"{name}.png")]) == 0
    a, b, c = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "abc")
    assert (a == b).all() and (a != c).any() and a.shape[-1] == 3
    printed = capsys.readouterr().out
    assert "3 pictures, 2 network evaluations each" in printed and "finds 0 of them as asked" in printed


def test_the_noise_of_a_picture_depends_on_seed_and_place_alone(model):
    whole = draw(open_latent(str(model)), [PROMPT] * 5, seed=3, steps=2, batch=5)
    cut = draw(open_latent(str(model)), [PROMPT] * 5, seed=3, steps=2, batch=2)
    torch.testing.assert_close(whole, cut, rtol=0, atol=1e-5)


def test_evaluate_prints_accuracies_and_distance_with_counts_and_errors(model, capsys):
    assert main(["evaluate", str(model), "--json", "--most", "40", "--steps", "2"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["samples"] == 40 and result["samples_unseen"] == result["captions_unseen"] + result["captions_unseen_three"] == 20
    assert result["captions_one"] + result["captions_two"] == result["captions"]
    assert result["caption_accuracy"] < 0.5 and result["caption_accuracy_unseen"] < 0.5, "an untrained net cannot be this good"
    assert result["caption_accuracy_on_real"] > 0.95
    assert result["frechet"] > 3 * result["frechet_floor"] > 0 and result["frechet_se"] > 0 and result["frechet_floor_se"] > 0
    assert {"caption_accuracy_se", "caption_accuracy_unseen_se", "group_size", "guidance", "network_evaluations"} <= set(result)


def test_an_ablation_takes_the_autoencoder_it_is_given(model, tmp_path):
    out = tmp_path / "pooled"
    assert trained(out, "--autoencoder", f"{model}-autoencoder", "--reads", "pooled", "--no-scale", "--position-scale", "0.02") == 0
    net, card = load(out)
    assert net.reads == "pooled" and card["latents"]["scale"] == 1.0 and card["latents"]["shift"] == [0.0] * 4
    assert (tmp_path / "shapes-autoencoder.safetensors").read_bytes() == paths(f"{model}-autoencoder")[0].read_bytes()
    assert open_latent(str(out)).space.scale == 1.0


@pytest.mark.parametrize("arguments, sentence", [
    (["sample", "{model}"], "expected one: pass --prompt"),
    (["sample", "{model}", "--prompt", "a small rad circle"], "did you mean 'red'"),
    (["sample", "{model}", "--prompt", ""], "holds no word"),
    (["sample", "{model}", "--prompt", "red " * 30], "expected at most 24"),
    (["sample", "{model}", "--prompt", "a circle", "--label", "3"], "leave --label out"),
    (["sample", "digits-ddpm", "--prompt", "a circle"], "reads no captions"),
    (["sample", "{model}", "--prompt", "a circle", "--steps", "0"], "steps=0"),
    (["train-latent", "--pictures", "1", "--out", "{tmp}/x"], "--pictures=1"),
    (["train-latent", "--autoencoder", "{tmp}/none", "--out", "{tmp}/x"], "No weights at"),
    (["train-latent", "--levels", "1", "0", "--out", "{tmp}/x"], "std=0.0"),
])
def test_each_mistake_gets_one_sentence(model, tmp_path, capsys, arguments, sentence):
    assert main([argument.format(model=model, tmp=tmp_path) for argument in arguments]) == 2
    printed = capsys.readouterr().err.strip()
    assert sentence in printed and "\n" not in printed and "Traceback" not in printed


def broken(model, folder, change):
    for source in (model, f"{model}-autoencoder"):
        for file in paths(source):
            shutil.copy(file, folder)
    card = json.loads((folder / "shapes.json").read_text())
    change(card["latents"])
    (folder / "shapes.json").write_text(json.dumps(card))
    return ["sample", str(folder / "shapes"), "--prompt", PROMPT]


@pytest.mark.parametrize("change, sentence", [
    (lambda entry: entry.pop("scale"), "names no latent scale"),
    (lambda entry: entry.pop("autoencoder"), "names no autoencoder"),
    (lambda entry: entry.update(autoencoder_sha256="0"), "is not the autoencoder that"),
    (lambda entry: entry.update(autoencoder="gone"), "No weights at"),
    (lambda entry: entry.update(shift=[0.0]), "one for each of the 4 channels"),
])
def test_a_broken_card_is_refused(model, tmp_path, capsys, change, sentence):
    assert main(broken(model, tmp_path, change)) == 2
    printed = capsys.readouterr().err.strip()
    assert sentence in printed and "\n" not in printed
