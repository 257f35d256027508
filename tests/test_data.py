"""Data: shapes, ranges, fixed splits, and that bad sources are refused in one sentence."""

from __future__ import annotations

import builtins
import io

import pytest
import torch
from PIL import Image

from diffusion_lib.data import load
from diffusion_lib.data.digits import LEVELS, digits, to_levels
from diffusion_lib.data.folder import folder
from diffusion_lib.data.images import HUB, images
from diffusion_lib.data.toy import SETS, checkerboard, eight_gaussians, rings, toy, two_moons


@pytest.mark.parametrize("name", SETS)
def test_toy_sets_are_standardised(name):
    n = 40_000
    points = toy(name, n, torch.Generator().manual_seed(0), dtype=torch.float64)
    assert points.shape == (n, 2)
    se_mean = points.std(0) / n**0.5
    assert (points.mean(0).abs() < 5 * se_mean).all()                                   # 5 standard errors
    squared = points.square()
    assert ((squared.mean(0) - 1).abs() < 5 * squared.std(0) / n**0.5).all()


def test_toy_sets_follow_their_generator():
    assert torch.equal(two_moons(50, torch.Generator().manual_seed(3)), two_moons(50, torch.Generator().manual_seed(3)))
    assert not torch.equal(two_moons(50, torch.Generator().manual_seed(3)), two_moons(50, torch.Generator().manual_seed(4)))
    assert rings(7).dtype == torch.float32 and toy("rings", 7, dtype=torch.float64).dtype == torch.float64


def test_checkerboard_holds_only_dark_squares():
    points = checkerboard(5000, torch.Generator().manual_seed(0)).double()
    corner = points.min(0).values
    side = (points.max(0).values - corner) / 4
    square = ((points - corner) / side).floor().clamp(0, 3).long()
    counts = torch.zeros(4, 4).index_put_((square[:, 0], square[:, 1]), torch.ones(5000), accumulate=True)
    assert (counts > 10).sum() == 8
    assert all((counts[i, j] > 10) == ((i + j) % 2 == 0) for i in range(4) for j in range(4))


def test_eight_gaussians_are_equally_heavy():
    points = eight_gaussians(8000, torch.Generator().manual_seed(0))
    which = ((torch.atan2(points[:, 1], points[:, 0]) / (torch.pi / 4)).round() % 8).long()
    counts = which.bincount(minlength=8).double()
    assert ((counts - 1000).abs() < 5 * (8000 / 8 * 7 / 8) ** 0.5).all()                # 5 standard errors of a binomial count


def test_digits_are_split_four_to_one_by_class_without_overlap():
    train, train_labels = digits("train")
    test, test_labels = digits("test")
    everything, labels = digits("all")
    assert train.shape == (1442, 1, 8, 8) and test.shape == (355, 1, 8, 8) and len(everything) == 1797
    assert train.dtype == torch.float32 and train_labels.dtype == torch.int64
    assert torch.equal(labels.bincount(), train_labels.bincount() + test_labels.bincount())
    assert torch.equal(test_labels.bincount(), labels.bincount() // 5)
    assert float(everything.min()) == -1 and float(everything.max()) == 1
    assert (torch.cdist(test.flatten(1), train.flatten(1)).min(1).values > 0).all()     # no held-out picture is a training picture
    assert int(test.double().add(1).mul(8).sum()) == int((everything.double() + 1).mul(8).sum() - (train.double() + 1).mul(8).sum())


def test_digits_lie_on_seventeen_levels():
    everything, _ = digits("all")
    levels = to_levels(everything)
    assert levels.unique().tolist() == list(range(LEVELS))
    assert torch.equal(levels / 8 - 1, everything)


def test_digits_are_not_shared_by_reference():
    first, _ = digits("train")
    first.zero_()
    assert float(digits("train")[0].abs().sum()) > 0


def _rows(name, n=12):
    shape = HUB[name].shape
    pixels = torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    rows = []
    for picture in pixels:
        buffer = io.BytesIO()
        array = picture.permute(1, 2, 0).numpy()
        Image.fromarray(array[..., 0] if shape[0] == 1 else array).save(buffer, "PNG")
        rows.append({"bytes": buffer.getvalue(), "path": "x.png"})
    return pixels, rows, [i % 10 for i in range(n)]


@pytest.fixture
def hub_file(tmp_path):
    """Write a parquet file in the hub's form and return its path and the pixels."""
    pytest.importorskip("datasets", reason="the extra [data] is not installed")
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    def write(name, column="image", **changes):
        pixels, rows, labels = _rows(changes.pop("of", name))
        table = pyarrow.table({column: rows, "label": labels})
        path = tmp_path / f"{name}.parquet"
        parquet.write_table(table, path)
        return path, pixels, labels

    return write


@pytest.mark.parametrize(("name", "column"), [("mnist", "image"), ("fashion-mnist", "image"), ("cifar10", "img"), ("cifar10", "image")])
def test_the_hubs_rows_become_tensors(hub_file, name, column):
    path, pixels, labels = hub_file(name, column)
    pictures, classes = images(name, data_files=path)
    assert pictures.shape == (12, *HUB[name].shape) and pictures.dtype == torch.float32 and pictures.is_contiguous()
    assert torch.equal(((pictures + 1) * 127.5).round().to(torch.uint8), pixels)
    assert classes.tolist() == labels and classes.dtype == torch.int64
    assert len(images(name, data_files=[path], limit=5)[0]) == 5


def test_rows_with_an_image_feature_become_the_same_tensors(hub_file):
    datasets = pytest.importorskip("datasets")
    from diffusion_lib.data.images import rows_to_tensors

    path, pixels, _ = hub_file("mnist")
    table = datasets.load_dataset("parquet", data_files=[str(path)], split="train").cast_column("image", datasets.Image())
    assert table[0]["image"].size == (28, 28)                                           # PIL images, as the hub serves them
    pictures, _ = rows_to_tensors(table, HUB["mnist"], "mnist")
    assert torch.equal(((pictures + 1) * 127.5).round().to(torch.uint8), pixels)


def test_files_of_another_set_are_refused(hub_file):
    path, _, _ = hub_file("mnist", of="cifar10")
    with pytest.raises(ValueError, match="32 x 32 pixels; expected 28 x 28"):
        images("mnist", data_files=path)
    path, _, _ = hub_file("mnist", column="pixels")
    with pytest.raises(ValueError, match="columns.*expected 'image'"):
        images("mnist", data_files=path)


def test_missing_or_broken_files_are_refused(tmp_path):
    pytest.importorskip("datasets", reason="the extra [data] is not installed")
    with pytest.raises(FileNotFoundError, match="does not exist; expected parquet"):
        images("mnist", data_files=tmp_path / "no.parquet")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"not parquet")
    with pytest.raises(ValueError, match="cannot be read as parquet"):
        images("mnist", data_files=broken)


def test_offline_is_one_sentence(monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the extra [data] is not installed")

    def unreachable(*args, **kwargs):
        raise OSError("Couldn't reach the Hub\nlong\ntrace")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(ConnectionError, match="connect once, or pass data_files") as problem:
        images("fashion-mnist")
    assert "\n" not in str(problem.value)


def test_without_datasets_is_one_sentence(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "datasets":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match="pip install datasets"):
        images("mnist")


def _picture(path, size, color, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)


def test_a_folder_of_any_sizes_becomes_one_tensor(tmp_path):
    _picture(tmp_path / "cats" / "a.png", (40, 20), (255, 0, 0))
    _picture(tmp_path / "cats" / "b.jpg", (13, 90), (255, 0, 0))
    _picture(tmp_path / "dogs" / "deep" / "c.png", (7, 7), (0, 0, 255, 0), "RGBA")      # wholly transparent: white
    (tmp_path / "dogs" / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden").mkdir()
    _picture(tmp_path / ".hidden" / "d.png", (7, 7), (0, 0, 0))
    pictures, labels, classes = folder(tmp_path, 16)
    assert pictures.shape == (3, 3, 16, 16) and classes == ("cats", "dogs") and labels.tolist() == [0, 0, 1]
    assert torch.allclose(pictures[0], torch.tensor([1.0, -1, -1])[:, None, None].expand(3, 16, 16))
    assert (pictures[2] == 1).all()
    assert load(str(tmp_path), size=8, channels=1)[0].shape == (3, 1, 8, 8)


def test_a_folder_is_cropped_to_the_centre_and_resized_without_aliasing(tmp_path):
    stripes = torch.zeros(64, 192, dtype=torch.uint8)
    stripes[:, 64:128:2] = 255                                                          # fine stripes in the middle third only
    Image.fromarray(stripes.numpy()).save(tmp_path / "stripes.png")
    pictures, labels, classes = folder(tmp_path, 16, channels=1)
    assert classes == () and labels.tolist() == [0]
    inner = pictures[0, 0, 2:-2, 2:-2]                                                  # the mean grey, no beat of the stripes
    assert (inner.abs() < 0.1).all()


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        folder(tmp_path / "nowhere", 8)
    with pytest.raises(ValueError, match="holds no pictures"):
        folder(tmp_path, 8)
    _picture(tmp_path / "a" / "fine.png", (8, 8), (1, 2, 3))
    (tmp_path / "a" / "broken.png").write_bytes(b"\x89PNG no more")
    with pytest.raises(ValueError, match="1 of 2 pictures .* cannot be read: .*broken.png"):
        folder(tmp_path, 8)
    with pytest.warns(UserWarning, match="were left out"):
        assert len(folder(tmp_path, 8, skip_unreadable=True)[0]) == 1
    _picture(tmp_path / "stray.png", (8, 8), (1, 2, 3))
    with pytest.raises(ValueError, match="beside its subfolders"):
        folder(tmp_path, 8)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: toy("moons", 5), "did you mean 'two_moons'"),
    (lambda: toy("rings", 0), "n=0"),
    (lambda: digits("validation"), "split='validation'"),
    (lambda: images("imagenet"), "name='imagenet'"),
    (lambda: images("mnist", "dev"), "split='dev'"),
    (lambda: load("digit"), "unknown and no such folder"),
    (lambda: load("digits", size=32), "1 x 8 x 8"),
    (lambda: load("mnist", channels=3), "leave both out"),
    (lambda: load("."), "without a size"),
    (lambda: load(".", "test", size=8), "a folder has no split"),
    (lambda: folder(".", 8, channels=2), "expected 1 .grey. or 3"),
    (lambda: folder(".", 0), "size=0"),
])
def test_wrong_calls(call, message):
    with pytest.raises(ValueError, match=message):
        call()
