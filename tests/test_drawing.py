"""What `sample` and `evaluate` share: the sampler, grid and guidance that the options choose, and what they cost."""

from __future__ import annotations

import pytest
import torch

from diffusion_lib.checkpoints import denoiser_of
from diffusion_lib.commands.drawing import SAMPLERS, Walk, draw, evaluations
from diffusion_lib.guidance import classifier_free_guided
from diffusion_lib.nets import C_NOISE_RANGE, build
from diffusion_lib.samplers import dpmpp, final
from diffusion_lib.schedules import VESchedule, time_grid


def tiny(schedule=None, **card):
    """An untrained network no layer of which is zero, and its card."""
    torch.manual_seed(0)
    net = build("UNet", {"channels": 1, "width": 8, "multipliers": [1, 2], "classes": 3})
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    schedule = VESchedule(0.05, 9.0) if schedule is None else schedule
    return net, {"shape": [1, 8, 8], "schedule": schedule.config, "target": "eps", "clip": 1.0, "architecture": "UNet", "config": net.config} | card


def count_calls(net, monkeypatch):
    """The batch size of every forward pass, in a list that grows."""
    seen, forward = [], net.forward
    monkeypatch.setattr(net, "forward", lambda x, t, **condition: (seen.append(len(x)), forward(x, t, **condition))[1])
    return seen


@pytest.mark.parametrize("sampler", [s for s in SAMPLERS if s != "annealed_langevin"])
@pytest.mark.parametrize("steps", [1, 2, 7, 8])
def test_every_sampler_spends_what_it_says_and_no_more_than_asked(sampler, steps, monkeypatch):
    net, card = tiny()
    seen = count_calls(net, monkeypatch)
    drawn = draw(net, card, 4, seed=0, sampler=sampler, steps=steps, label=torch.zeros(4, dtype=torch.long))
    assert drawn.shape == (4, 1, 8, 8) and len(seen) == evaluations(Walk(sampler, steps), card) <= steps
    assert set(seen) == {4} and (sampler == "heun" or len(seen) == steps)


def test_the_card_chooses_the_grid_unless_one_is_named():
    """uniform where it says nothing, karras for EDM's; the grids differ in what they draw."""
    net, card = tiny()

    def of(card, **options):
        return draw(net, card, 2, seed=0, steps=5, label=torch.zeros(2, dtype=torch.long), **options)

    assert torch.equal(of(card), of(card, grid="uniform")) and not torch.equal(of(card), of(card, grid="karras"))
    net.conditioning.time_range = C_NOISE_RANGE
    assert torch.equal(of(card | {"sigma_data": 0.7}), of(card | {"sigma_data": 0.7}, grid="karras"))


def test_guidance_is_the_librarys_and_doubles_the_batch_inside_its_interval(monkeypatch):
    net, card = tiny()
    label, schedule = torch.tensor([0, 1, 2, 0]), VESchedule(0.05, 9.0)
    seen = count_calls(net, monkeypatch)
    options = {"sampler": "dpmpp", "steps": 6, "grid": "karras"}
    plain, guided = (draw(net, card, 4, seed=0, label=label, guidance=w, **options) for w in (1.0, 3.0))
    assert seen == [4] * 6 + [8] * 6 and not torch.equal(plain, guided)
    seen.clear()
    cut = draw(net, card, 4, seed=0, label=label, guidance=3.0, interval=(0.1, 2.0), rescale=0.5, **options)
    levels = schedule.noise_level(time_grid(schedule, 6, "karras")[:-1])
    assert seen == [8 if 0.1 < float(v) <= 2 else 4 for v in levels] and {4, 8} == set(seen)
    wrapped = classifier_free_guided(denoiser_of(net, card), {"label": label}, 3.0, interval=(0.1, 2.0), rescale=0.5)
    noise = schedule.noise((4, 1, 8, 8), torch.Generator().manual_seed(0), dtype=torch.float32)
    assert torch.equal(cut, final(dpmpp(wrapped, schedule, noise, time_grid(schedule, 6, "karras"))).clamp(-1, 1))


def test_annealed_langevin_spends_no_more_than_was_asked_for(tmp_path, monkeypatch):
    net, card = tiny(levels={"sigma_max": 8.0, "sigma_min": 0.1, "count": 6})
    seen, forward = [], net.forward
    monkeypatch.setattr(net, "forward", lambda x, t, **condition: (seen.append(float(t[0])), forward(x, t, **condition))[1])
    for asked, spent in ((13, 13), (24, 19), (25, 25)):
        seen.clear()
        draw(net, card, 2, steps=asked, sampler="annealed_langevin", seed=0)
        assert len(seen) == spent == evaluations(Walk("annealed_langevin", asked), card) and len(set(seen)) == 6


def test_eta_makes_ddim_and_dpmpp_random_and_no_other():
    net, card = tiny()
    label = torch.zeros(2, dtype=torch.long)
    for sampler in ("ddim", "dpmpp"):
        a, b = (draw(net, card, 2, seed=0, sampler=sampler, steps=5, eta=eta, label=label) for eta in (0.0, 1.0))
        assert not torch.equal(a, b)
    for sampler in ("ddpm", "heun", "unipc", "deis", "annealed_langevin"):
        with pytest.raises(ValueError, match=f"with the sampler {sampler}; expected ddim or dpmpp"):
            draw(net, card, 2, seed=0, sampler=sampler, steps=5, eta=1.0, label=label)


def test_guidance_needs_classes_and_refuses_idle_options():
    net, card = tiny()
    with pytest.raises(ValueError, match="guidance=2 was given to a model without classes"):
        draw(net, card, 2, seed=0, guidance=2.0)
    for options in ({"interval": (0.1, 1.0)}, {"rescale": 0.5}):
        with pytest.raises(ValueError, match="guidance=1, which is none"):
            draw(net, card, 2, seed=0, label=torch.zeros(2, dtype=torch.long), **options)
    with pytest.raises(TypeError, match="guidence"):
        draw(net, card, 2, seed=0, guidence=2.0)
