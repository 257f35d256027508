"""The training loop: it learns, it repeats itself, it resumes exactly, and it shares the work between processes."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from diffusion_lib.denoisers import ExactDenoiser
from diffusion_lib.exact import GaussianMixture
from diffusion_lib.losses import DenoisingLoss
from diffusion_lib.losses.times import ImportanceTimes
from diffusion_lib.nets import MLP
from diffusion_lib.schedules import CosineSchedule, DiscreteSchedule
from diffusion_lib.targets import diffuse
from diffusion_lib.training import EMA, Batches, faster_precision, train
from diffusion_lib.training.loop import rate
from diffusion_lib.training.state import read_state

LOSS = DenoisingLoss(CosineSchedule())


def points(n=200):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(1))


def fresh(width=16):
    torch.manual_seed(0)
    return MLP(dim=2, width=width, depth=1)


def run(steps=20, net=None, loss=LOSS, batches=None, **options):
    return train(fresh() if net is None else net, loss, Batches(points(), batch_size=16) if batches is None else batches,
                 steps=steps, **({"precision": "fp32", "progress": False, "device": "cpu"} | options))


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# --- batches ---


def test_an_epoch_is_a_permutation_and_batches_cross_epochs():
    x = torch.arange(10.0)[:, None]
    dealt = torch.cat([batch for batch, _ in (next(stream) for stream in [Batches(x, batch_size=4)] for _ in range(5))])[:, 0]
    assert dealt[:10].sort().values.equal(x[:, 0]) and dealt[10:].sort().values.equal(x[:, 0])
    assert not dealt[:10].equal(dealt[10:])


def test_two_batches_are_the_doubled_batch():
    x, y = points(50), torch.arange(50)
    small, large = Batches(x, y, batch_size=8, seed=5), Batches(x, y, batch_size=16, seed=5)
    for _ in range(7):
        (a, one), (b, two), (whole, labels) = next(small), next(small), next(large)
        assert torch.cat([a, b]).equal(whole) and torch.cat([one["label"], two["label"]]).equal(labels["label"])


def test_a_batch_may_be_larger_than_the_data_and_labels_stay_with_their_rows():
    x = torch.arange(3.0)[:, None]
    batch, condition = next(Batches(x, torch.arange(3), batch_size=7))
    assert len(batch) == 7 and batch[:, 0].long().equal(condition["label"])


def test_batches_resume_in_the_middle_of_an_epoch():
    first, second = Batches(points(), batch_size=48), Batches(points(), batch_size=48)
    for _ in range(6):
        next(first)
    second.load_state_dict(first.state_dict())
    assert next(first)[0].equal(next(second)[0])


# --- the loop ---


def test_it_learns_the_best_denoiser_of_a_mixture():
    """After training, the net's error lies within 15 % of the Bayes error of the exact mixture (before, at twice that)."""
    mixture = GaussianMixture(torch.tensor([0.5, 0.5], dtype=torch.float64), torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64),
                              torch.tensor([0.04, 0.04], dtype=torch.float64))
    g, schedule = torch.Generator().manual_seed(0), CosineSchedule()
    done = run(300, net=MLP(dim=2, width=64, depth=2), loss=DenoisingLoss(schedule, target="x0"), lr=3e-3, cooldown=0.5, warmup=20,
               batches=Batches(mixture.sample(4000, g).float(), batch_size=128))
    x0, t = mixture.sample(4000, g), torch.full((4000,), 0.5, dtype=torch.float64)
    x = diffuse(x0, torch.randn(x0.shape, generator=g, dtype=x0.dtype), t, schedule)

    def error(net):
        return (net(x.float(), t.float()) - x0).square().mean().detach()

    best = (ExactDenoiser(mixture, schedule)(x, t) - x0).square().mean()
    assert best * 0.99 < error(done.ema) < best * 1.15 and error(MLP(dim=2, width=64, depth=2)) > 2 * best


def test_the_same_call_gives_the_same_bits_and_leaves_the_global_generator_alone():
    torch.manual_seed(11)
    state = torch.get_rng_state()
    net = MLP(dim=2, width=16, depth=1)
    twin = copy.deepcopy(net)
    torch.set_rng_state(state)
    a, b = run(net=net), run(net=twin, batches=Batches(points(), batch_size=16))
    assert torch.get_rng_state().equal(state)
    assert same(a.net, b.net) and same(a.ema, b.ema) and a.losses.equal(b.losses) and len(a.losses) == 20
    assert not a.losses.equal(run(seed=1).losses)


def test_resume_is_exact_with_a_shorter_first_part(tmp_path):
    whole = run(24)
    run(9, checkpoint=tmp_path, every=4)
    resumed = run(24, checkpoint=tmp_path, every=4)
    assert same(whole.net, resumed.net) and same(whole.ema, resumed.ema) and whole.losses.equal(resumed.losses)
    again = run(24, checkpoint=tmp_path)                        # already finished: nothing is done twice
    assert again.images_per_second == 0 and same(whole.net, again.net) and again.steps == 24


def test_resume_restores_what_importance_sampling_has_learned(tmp_path):
    def loss():
        return DenoisingLoss(DiscreteSchedule.from_name("cosine", 8), times=ImportanceTimes(8, history=2))
    whole = run(30, loss=loss())
    run(20, loss=loss(), checkpoint=tmp_path)
    assert whole.losses.equal(run(30, loss=loss(), checkpoint=tmp_path).losses)


def test_resume_false_starts_anew(tmp_path):
    first = run(6, checkpoint=tmp_path)
    assert run(6, checkpoint=tmp_path, resume=False).losses.equal(first.losses)


def test_a_plain_list_is_begun_again_and_resumed_by_counting(tmp_path):
    data = list(points(60).split(16))                           # the last batch is shorter
    whole = run(11, batches=data)
    run(5, batches=data, checkpoint=tmp_path)
    assert whole.losses.equal(run(11, batches=data, checkpoint=tmp_path).losses)


@pytest.mark.parametrize("kind", [lambda x, y: (x, y), lambda x, y: [x, y], lambda x, y: (x, {"label": y})])
def test_forms_of_a_batch(kind):
    seen = []

    def loss(net, x0, *, generator=None, label):
        seen.append(label)
        return net(x0, torch.zeros(len(x0))).square().mean()

    labels = torch.arange(5)
    run(1, loss=loss, batches=[kind(points(5), labels)])
    assert seen[0].equal(labels)


def test_ema_is_the_average_by_hand():
    net = nn.Linear(1, 1, bias=False)
    average, by_hand = EMA(net, 0.9), float(net.weight.detach())
    for step in range(1, 200):
        with torch.no_grad():
            net.weight.fill_(float(step))
        average.update(net, step)
        decay = min(0.9, (1 + step) / (10 + step))
        by_hand = decay * by_hand + (1 - decay) * step
    assert float(average.net.weight) == pytest.approx(by_hand, rel=1e-5)
    assert float(average.net.weight) == pytest.approx(199 - 0.9 / 0.1, rel=1e-3)    # lags a ramp by decay / (1 - decay)


def test_clip_bounds_the_gradient():
    seen = []
    net = nn.Linear(2, 2)

    def loss(module, x0, *, generator=None):
        return 1e3 * module(x0).square().mean()

    run(3, net=net, loss=loss, clip=0.5, ema=None, batches=[points(8)],
        on_step=lambda *_: seen.append(torch.cat([p.grad.flatten() for p in net.parameters()]).norm()))
    assert all(norm <= 0.5 * (1 + 1e-5) for norm in seen) and len(seen) == 3


def test_learning_rate_shape():
    rates = [rate(k, 100, warmup=10, cooldown=0.2) for k in range(1, 101)]
    assert rates[0] == 0.1 and rates[9:80] == [1.0] * 71 and rates[-1] == pytest.approx(1 / 20) and max(rates) == 1
    assert [rate(k, 5, 0, 0.0) for k in range(1, 6)] == [1.0] * 5


def test_pictures_and_log_are_written(tmp_path):
    run(6, checkpoint=tmp_path / "run", every=3, log=tmp_path / "log.jsonl", sample_every=3,
        sample=lambda net: torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8))
    assert sorted(p.name for p in (tmp_path / "run").glob("*.png")) == ["samples-000003.png", "samples-000006.png"]
    assert (tmp_path / "log.jsonl").read_text().count("\n") == 2


def test_auto_precision_is_the_faster_one_and_is_remembered(monkeypatch):
    from diffusion_lib.training import precision

    monkeypatch.setattr(precision, "_measured", {})
    clock = iter([0.0, 9.0] + [0.0, 1.0] * 3 + [0.0, 9.0] + [0.0, 0.5] * 3)
    monkeypatch.setattr(precision, "clock", lambda: next(clock))
    net, x0 = fresh(), points(8)
    assert faster_precision(net, LOSS, x0) == "bf16"
    assert faster_precision(net, LOSS, x0) == "bf16"            # the clock has run out: it did not measure again
    assert run(2, precision="bf16").losses.isfinite().all()


def test_a_loss_of_nan_stops_before_it_is_saved(tmp_path):
    def loss(net, x0, *, generator=None):
        value = net(x0, torch.zeros(len(x0))).square().mean()
        return value * float("nan") if len(calls) == 6 else value

    calls = []
    with pytest.raises(FloatingPointError, match="at step 7.*lower lr"):
        run(20, loss=loss, checkpoint=tmp_path, every=4, on_step=lambda step, _: calls.append(step))
    assert read_state(tmp_path)[1]["step"] == 4


@pytest.mark.parametrize("options, sentence", [
    ({"steps": 0}, "steps=0"), ({"lr": -1}, "lr=-1"), ({"ema": 1.0}, "ema=1.0"), ({"clip": 0}, "clip=0"), ({"precision": "fp16"}, "fp16"),
    ({"cooldown": 2}, "cooldown=2"), ({"batches": []}, "yielded nothing"), ({"batches": ["a"]}, "yielded a str"), ({"batches": 3}, "is a int"),
    ({"batches": [torch.full((2, 2), torch.nan)]}, "NaN"), ({"sample_every": 2}, "sample_every"), ({"every": 0}, "every=0"),
])
def test_wrong_calls(options, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        run(**options)


@pytest.mark.parametrize("options, sentence", [
    ({"x": points().long()}, "floating point"), ({"x": torch.tensor([1.0, float("nan")])[:, None]}, "NaN"), ({"x": torch.zeros(3)}, "batch axis"),
    ({"label": torch.zeros(3)}, "one row for each"), ({"batchsize": 3}, "'batchsize' has type int"), ({"batch_size": 0}, "batch_size=0"),
])
def test_wrong_batches(options, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        Batches(**({"x": points()} | options))


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    run(3, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="of shape .* and the network expects"):
        run(5, net=fresh(width=32), checkpoint=tmp_path)
    with pytest.raises(ValueError, match="batch_size=16 and now batch_size=8"):
        run(5, batches=Batches(points(), batch_size=8), checkpoint=tmp_path)
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(ValueError, match="truncated or damaged"):
        run(5, checkpoint=tmp_path)


def test_the_bar_is_hidden_where_nobody_sees_it(capsys, monkeypatch):
    monkeypatch.setenv("DIFFUSION_STATIC", "1")                 # what the tools set that execute the chapters
    run(3, progress=True)
    assert capsys.readouterr().err == ""
    run(3, progress="always")
    assert "images/s" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_are_one_with_the_doubled_batch(tmp_path):
    script = Path(__file__).parent / "faults" / "two_processes.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    for command, name, batch in ((launch, "two", 8), ([sys.executable], "one", 16)):
        ran = subprocess.run([*command, script, tmp_path / f"{name}.safetensors", str(batch)], capture_output=True, text=True,
                             env=environment, timeout=300)
        assert ran.returncode == 0, ran.stderr[-3000:]
    one, two = load_file(tmp_path / "one.safetensors"), load_file(tmp_path / "two.safetensors")
    assert int(one.pop("world")) == 1 and int(two.pop("world")) == 2
    torch.testing.assert_close(two["losses"], one["losses"], rtol=1e-6, atol=0)     # kept in float32
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-9, atol=1e-10, msg=name) if name != "losses" else None
