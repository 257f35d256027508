"""Weights on disk: what is saved comes back, what is damaged is refused in one sentence, what ships can be loaded."""

import json
import os
import pickle
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffusion_lib.checkpoints import WEIGHTS, available, denoiser_of, load, pretrained, save, write_atomically
from diffusion_lib.nets import MLP, UNet
from diffusion_lib.schedules import CosineSchedule


@pytest.fixture
def net():
    torch.manual_seed(0)
    return UNet(1, 8, (1, 2), classes=3)


@pytest.fixture
def saved(tmp_path, net):
    save(tmp_path / "m", net, {"data": {"name": "none"}, "steps": 0, "schedule": CosineSchedule().config, "target": "v"})
    return tmp_path / "m"


def edit(path, **changes):
    card = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(card | changes))


@pytest.mark.parametrize("suffix", ["", ".safetensors", ".json"])
def test_round_trip_bit_for_bit(net, saved, suffix):
    again, card = load(f"{saved}{suffix}")
    for name, tensor in net.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    assert not again.training and card["architecture"] == "UNet" and card["config"] == net.config
    assert card["parameters"] == sum(p.numel() for p in net.parameters())
    assert card["bytes"] == saved.with_suffix(".safetensors").stat().st_size


def test_half_precision_halves_the_file_and_loads_as_float32(net, tmp_path):
    sizes = [save(tmp_path / name, net, {}, dtype=dtype).stat().st_size for name, dtype in (("a", None), ("b", torch.float16))]
    again = load(tmp_path / "b")[0]
    assert sizes[1] < 0.6 * sizes[0]
    for p, q in zip(net.parameters(), again.parameters(), strict=True):
        assert q.dtype == torch.float32
        torch.testing.assert_close(q, p, rtol=2.0**-11, atol=2.0**-25)              # half a unit in the last of fp16's 11 bits


def test_the_card_says_how_to_use_the_network(saved):
    denoiser = denoiser_of(*load(saved))
    assert isinstance(denoiser.schedule, CosineSchedule) and denoiser.target == "v"
    assert denoiser(torch.zeros(2, 1, 8, 8), 0.5, label=torch.tensor([0, 3])).shape == (2, 1, 8, 8)


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 100, -1])
def test_truncated(saved, keep):
    weights = saved.with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(ValueError, match="truncated or damaged.*download or save it again"):
        load(saved)


def test_one_flipped_bit(saved):
    weights = saved.with_suffix(".safetensors")
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match="SHA-256"):
        load(saved)


def test_another_architecture(saved, net):
    edit(saved, config=net.config | {"width": 16})
    with pytest.raises(ValueError, match=r"holds 'conditioning\.\S+' of shape .* expects .* build the network"):
        load(saved)
    edit(saved, config=net.config | {"classes": None})
    with pytest.raises(ValueError, match="which the network does not have"):
        load(saved)
    edit(saved, architecture="MLP", config=MLP(dim=2, width=8).config)
    with pytest.raises(ValueError, match="holds .* of shape|has no tensor '.*' .*, which the network needs"):
        load(saved)
    edit(saved, architecture="Transformer9")
    with pytest.raises(ValueError, match="architecture 'Transformer9'.*cannot build"):
        load(saved)


@pytest.mark.parametrize("name", ["m.pt", "m.safetensors"])
@pytest.mark.parametrize("write", [torch.save, lambda obj, path: Path(path).write_bytes(pickle.dumps(obj))], ids=["torch.save", "pickle"])
def test_a_pickle_is_refused_and_not_run(tmp_path, name, write):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    write(Bomb(), tmp_path / name)
    with pytest.raises(ValueError, match="is a pickle.*expected safetensors"):
        load(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_missing_files_and_cards(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match="No weights at .*nothing.safetensors"):
        load(tmp_path / "nothing")
    edit(saved, sha256=None)
    card = saved.with_suffix(".json")
    whole = json.loads(card.read_text())
    card.write_text(json.dumps({k: v for k, v in whole.items() if k != "config"}))
    with pytest.raises(ValueError, match="lacks config"):
        load(saved)
    card.write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        load(saved)
    card.unlink()
    with pytest.raises(FileNotFoundError, match="model card .* is missing"):
        load(saved)


def test_what_cannot_be_saved(net, tmp_path):
    with pytest.raises(ValueError, match="A Linear was given; expected a network of diffusion_lib.nets"):
        save(tmp_path / "x", torch.nn.Linear(1, 1), {})
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        save(tmp_path / "x", net, {"loss": torch.tensor(1.0)})
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        save(tmp_path / "x", net, {"loss": float("nan")})
    with torch.no_grad():
        net.stem.weight[0] = float("inf")
    with pytest.raises(ValueError, match="'stem.weight' holds NaN or infinity"):
        save(tmp_path / "x", net, {})
    assert list(tmp_path.iterdir()) == []


FULL = """
import resource, signal, sys
from diffusion_lib.checkpoints import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomically(sys.argv[1], b"x" * 5000)
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes, which POSIX has")
def test_a_full_disk_leaves_the_old_file_whole(tmp_path):
    assert hasattr(resource, "RLIMIT_FSIZE") and hasattr(signal, "SIGXFSZ")
    path = tmp_path / "state"
    write_atomically(path, b"old")
    said = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True, check=True).stdout
    assert "could not be written" in said and "free some space" in said and said.count("\n") == 1
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["state"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="could not be written"):
        write_atomically(tmp_path / "file" / "x", b"")


# --- what ships ---


def test_shipped_weights_fit_in_ten_megabytes_and_each_has_a_card():
    assert sum(p.stat().st_size for p in WEIGHTS.iterdir()) < 10e6
    assert {p.stem for p in WEIGHTS.glob("*.json")} == set(available())


@pytest.mark.parametrize("name", available())
def test_shipped_weights_load_and_say_how_they_were_made(name):
    net, card = pretrained(name)
    assert all(p.isfinite().all() for p in net.parameters())
    for key in ("data", "steps", "seconds", "hardware", "metrics", "version", "command"):
        assert card.get(key) not in (None, "", {}), f"{name}.json lacks {key}"


def test_an_unknown_name_suggests_the_nearest(monkeypatch):
    with pytest.raises(ValueError, match=f"did you mean '{available()[0]}'"):
        pretrained(available()[0][:-1])
    with pytest.raises(ValueError, match="choose one of these"):
        pretrained("zzzz")
