"""The one switch from CPU minutes to a GPU: ``settings = profile()`` at the top of a chapter, and no other edit.

``DIFFUSION_PROFILE=cpu`` or ``DIFFUSION_PROFILE=gpu`` chooses; without it the hardware does.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from diffusion_lib.validate import check_choice, check_count


@dataclass(frozen=True)
class Profile:
    """What a chapter lets the hardware decide.

    name: "cpu" or "gpu"
    device: where networks and data live
    dtype: the dtype of data and weights (autocast is `train`'s business)
    dataset: "digits" (1 x 8 x 8, ships with scikit-learn) or "fashion-mnist" (1 x 28 x 28)
    width: channels of the U-Net's first level
    multipliers: channels of each level in units of ``width``
    batch_size: pictures in a training batch, on each process
    steps_factor: how many times more training steps than the chapter's CPU count
    samples: pictures drawn where a chapter measures a distance
    """

    name: str
    device: torch.device
    dtype: torch.dtype
    dataset: str
    width: int
    multipliers: tuple[int, ...]
    batch_size: int
    steps_factor: int
    samples: int

    def steps(self, on_cpu: int) -> int:
        """Training steps for this hardware, given the number (>= 1) that fits the CPU's minutes."""
        return check_count("on_cpu", on_cpu) * self.steps_factor


def accelerator() -> torch.device | None:
    """The GPU that torch sees (CUDA first, then Apple's), or None."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return None


def profile(name: str | None = None) -> Profile:
    """The settings for this machine.

    name: "cpu" | "gpu"; None reads the environment variable DIFFUSION_PROFILE, and where that is unset looks for a GPU.
    Errors: ValueError for another name; RuntimeError for "gpu" where torch sees none.
    """
    gpu = accelerator()
    name = name or os.environ.get("DIFFUSION_PROFILE") or ("gpu" if gpu else "cpu")
    check_choice("profile", name, ("cpu", "gpu"))
    if name == "cpu":
        return Profile("cpu", torch.device("cpu"), torch.float32, "digits", width=32, multipliers=(1, 2),
                       batch_size=128, steps_factor=1, samples=512)
    if gpu is None:
        raise RuntimeError("The profile 'gpu' was asked for and torch sees no GPU; set DIFFUSION_PROFILE=cpu, or install torch for your GPU.")
    return Profile("gpu", gpu, torch.float32, "fashion-mnist", width=64, multipliers=(1, 2, 2),
                   batch_size=256, steps_factor=20, samples=4096)
