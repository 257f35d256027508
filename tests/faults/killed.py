"""Train a small network in child processes that are killed with SIGKILL at random moments, then compare with an undisturbed run.

Run by test_kill.py in a process of its own (it forks, so that a child need not import torch again):
``python tests/faults/killed.py FOLDER KILLS SEED`` prints one JSON line.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

from diffusion_lib import checkpoints
from diffusion_lib.nets import MLP
from diffusion_lib.training import Batches, train
from diffusion_lib.training.state import read_state

STEPS = 300


class Dropped(nn.Module):
    """A network with dropout, so that what torch's own generator draws counts too."""

    def __init__(self) -> None:
        super().__init__()
        self.net = MLP(dim=2, width=32, depth=2)
        self.drop = nn.Dropout(0.1)

    def forward(self, x, t):
        return self.net(self.drop(x), t)


def loss(net, x0, *, generator=None):
    t = torch.rand(len(x0), generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    x = (1 - t)[:, None] * x0 + t[:, None] * eps                # (B, 2)
    return (net(x, t) - eps).square().mean()


def run(folder: Path, steps: int = STEPS) -> None:
    torch.manual_seed(0)
    data = torch.randn(300, 2, generator=torch.Generator().manual_seed(1))
    train(Dropped(), loss, Batches(data, batch_size=32), steps=steps, checkpoint=folder, every=2, precision="fp32", progress=False)


def child(folder: Path) -> int:
    pid = os.fork()
    if pid == 0:
        run(folder)
        os._exit(0)
    return pid


def written(folder: Path) -> int:
    """When the checkpoint was last replaced; 0 if there is none yet."""
    path = folder / "state.safetensors"
    return path.stat().st_mtime_ns if path.exists() else 0


def main(folder: Path, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    run(folder / "warm", steps=2)                               # what torch imports at its first step, before the forks
    whole, broken = folder / "whole", folder / "broken"
    os.waitpid(child(whole), 0)
    seconds = read_state(whole)[1]["seconds"]                   # of the undisturbed run, without its start

    moments, steps, killed = random.Random(seed), [], 0
    for _ in range(kills):
        before = written(broken)
        pid = child(broken)
        while written(broken) == before and os.waitpid(pid, os.WNOHANG) == (0, 0):
            time.sleep(0.002)                                   # until it trains, however slow the machine is
        time.sleep(moments.uniform(0, seconds / kills))         # so the kills are spread over the whole run
        os.kill(pid, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        steps.append(read_state(broken)[1]["step"])             # raises if the file is half written
    os.waitpid(child(broken), 0)

    (left, _), (right, numbers) = read_state(whole), read_state(broken)
    differ = [name for name in left if not torch.equal(left[name], right[name])]
    print(json.dumps({"steps_at_kill": steps, "killed": killed, "differ": differ, "tensors": len(left), "step": numbers["step"],
                      "same_names": left.keys() == right.keys(), "version": checkpoints.__version__}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
