"""The one switch between CPU and GPU."""

import dataclasses

import pytest
import torch

from diffusion_lib import profile as module
from diffusion_lib.profile import profile


def test_the_hardware_decides_where_nothing_is_said(monkeypatch):
    monkeypatch.delenv("DIFFUSION_PROFILE", raising=False)
    monkeypatch.setattr(module, "accelerator", lambda: None)
    assert profile().name == "cpu" and profile().device.type == "cpu" and profile().dataset == "digits"
    monkeypatch.setattr(module, "accelerator", lambda: torch.device("cuda"))
    assert profile().name == "gpu" and profile().device.type == "cuda" and profile().dataset == "fashion-mnist"


def test_the_variable_and_the_argument_go_first(monkeypatch):
    monkeypatch.setattr(module, "accelerator", lambda: torch.device("cuda"))
    monkeypatch.setenv("DIFFUSION_PROFILE", "cpu")
    assert profile().name == "cpu" and profile("gpu").name == "gpu"


def test_it_is_frozen_and_scales_steps():
    settings = profile("cpu")
    assert settings.steps(300) == 300 * settings.steps_factor
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.width = 64


def test_wrong_calls(monkeypatch):
    monkeypatch.setenv("DIFFUSION_PROFILE", "gpus")
    with pytest.raises(ValueError, match="did you mean 'gpu'"):
        profile()
    monkeypatch.setattr(module, "accelerator", lambda: None)
    with pytest.raises(RuntimeError, match="torch sees no GPU; set DIFFUSION_PROFILE=cpu"):
        profile("gpu")
    with pytest.raises(ValueError, match="on_cpu=0"):
        profile("cpu").steps(0)
