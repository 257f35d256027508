"""U-Net training, images per second and loss at equal steps, side by side with peers in one run.

    OMP_NUM_THREADS=2 python benchmarks/unet_training.py --size 8 --batch 128 --loss-steps 400
    OMP_NUM_THREADS=2 python benchmarks/unet_training.py --size 28 --batch 64 --loss-steps 200

Every network has the same parameter count within 5 % (asserted), the same batches, times and noise, and the same optimizer.
The timed rounds are interleaved (A, B, C, A, B, C, ...) and the median is kept, so that a busy machine slows all alike.
benchmarks/README.md says how each network was chosen.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lib.nets import UNet, parameter_count

OURS = {
    8: dict(width=24, multipliers=(1, 2, 4), blocks=(2, 1, 1)),
    28: dict(width=24, multipliers=(1, 2, 4), blocks=(1, 1, 2)),
}
DIFFUSERS = {
    8: dict(block_out_channels=(32, 64), layers_per_block=1),
    28: dict(block_out_channels=(32, 64, 64), layers_per_block=1),
}
DDP = {8: dict(dim=30, dim_mults=(1, 2)), 28: dict(dim=28, dim_mults=(1, 2, 2))}
LEARNING_RATE = 1e-3


class Peer(nn.Module):
    """A peer's network under our calling convention: t in [0, 1] becomes the step 1000 t that it was written for."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        out = self.net(x, 1000 * t)
        return out if isinstance(out, Tensor) else out.sample


def diffusers_unet(size: int) -> nn.Module:
    from diffusers import UNet2DModel

    levels = len(DIFFUSERS[size]["block_out_channels"])
    return Peer(UNet2DModel(
        sample_size=size, in_channels=1, out_channels=1, norm_num_groups=8, attention_head_dim=32,
        down_block_types=("DownBlock2D",) * (levels - 1) + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (levels - 1), **DIFFUSERS[size],
    ))


def ddp_unet(size: int) -> nn.Module:
    """denoising-diffusion-pytorch's Unet. Its package imports torchvision, which this class does not use.

    Where torchvision is missing (it has no build for every CPU torch), an empty stub stands in for it during the import.
    """
    stubs = {}
    if importlib.util.find_spec("torchvision") is None:
        stubs = {name: types.ModuleType(name) for name in ("torchvision", "torchvision.transforms", "torchvision.utils")}
        stubs["torchvision"].transforms = stubs["torchvision.transforms"]
        stubs["torchvision"].utils = stubs["torchvision.utils"]
    sys.modules.update(stubs)
    try:
        from denoising_diffusion_pytorch.denoising_diffusion_pytorch import Unet
    finally:
        for name in stubs:
            del sys.modules[name]
    return Peer(Unet(channels=1, **DDP[size]))


def pictures(size: int, parquet: Path | None) -> Tensor:
    """(N, 1, size, size) in [-1, 1]: scikit-learn's 1797 digits, at 28x28 enlarged; or MNIST from a parquet file."""
    if parquet is not None:
        import io

        import numpy as np
        import pyarrow.parquet as pq
        from PIL import Image

        column = pq.read_table(parquet).column("image").to_pylist()[:10_000]
        stack = np.stack([np.asarray(Image.open(io.BytesIO(entry["bytes"]))) for entry in column])
        x = torch.from_numpy(stack).float()[:, None] / 127.5 - 1
    else:
        from sklearn.datasets import load_digits

        x = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1
    return x if x.shape[-1] == size else F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)


def denoising_loss(net: nn.Module, x0: Tensor, generator: torch.Generator) -> Tensor:
    """Mean squared error of the predicted noise on x_t = cos(pi t / 2) x0 + sin(pi t / 2) eps, with t uniform."""
    t = torch.rand(len(x0), generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    angle = (torch.pi / 2 * t)[:, None, None, None]
    return F.mse_loss(net(angle.cos() * x0 + angle.sin() * eps, t), eps)


class Trainer:
    """One network and its optimizer, fed the same pictures, times and noise as its rivals (same seeds)."""

    def __init__(self, make: Callable[[], nn.Module], data: Tensor, batch: int, seed: int):
        torch.manual_seed(seed)
        self.net = make()
        self.train, self.held_out, self.batch = data[len(data) // 6 :], data[: len(data) // 6], batch
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
        self.generator = torch.Generator().manual_seed(seed)

    def step(self) -> None:
        index = torch.randint(len(self.train), (self.batch,), generator=self.generator)
        loss = denoising_loss(self.net, self.train[index], self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    @torch.no_grad()
    def held_out_loss(self, repeats: int = 4) -> float:
        """Loss on the held-out pictures with fixed times and noise, the same for every network."""
        generator = torch.Generator().manual_seed(12345)
        self.net.eval()
        losses = [float(denoising_loss(self.net, self.held_out[:256], generator)) for _ in range(repeats)]
        self.net.train()
        return statistics.mean(losses)


def speed(trainers: dict[str, Trainer], rounds: int, steps: int) -> dict[str, float]:
    """Images per second of each, from the median over interleaved rounds of ``steps`` training steps."""
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for number in range(rounds + 1):  # the first round warms up and is not counted
        for name, trainer in trainers.items():
            start = time.perf_counter()
            for _ in range(steps):
                trainer.step()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: trainers[name].batch * steps / statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, choices=(8, 28), default=8)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="training steps in one timed turn")
    parser.add_argument("--loss-steps", type=int, default=0, help="train each this long and report the held-out loss")
    parser.add_argument("--seeds", type=int, default=1, help="repeat the loss comparison with this many seeds")
    parser.add_argument("--mnist", type=Path, help="a parquet file of MNIST, instead of enlarged scikit-learn digits")
    parser.add_argument("--skip-ddp", action="store_true", help="leave out denoising-diffusion-pytorch")
    args = parser.parse_args()

    makers = {"diffusion_lib": lambda: UNet(**OURS[args.size]), "diffusers": lambda: diffusers_unet(args.size)}
    if not args.skip_ddp:
        makers["denoising-diffusion-pytorch"] = lambda: ddp_unet(args.size)
    data = pictures(args.size, args.mnist)
    data = data[torch.randperm(len(data), generator=torch.Generator().manual_seed(0))]
    trainers = {name: Trainer(make, data, args.batch, seed=0) for name, make in makers.items()}
    counts = {name: parameter_count(trainer.net) for name, trainer in trainers.items()}
    reference = counts["diffusers"]
    for name, count in counts.items():
        assert abs(count / reference - 1) <= 0.05, f"{name} has {count} parameters, diffusers {reference}: not within 5%"

    rates = speed(trainers, args.rounds, args.steps)
    losses: dict[str, list[float]] = {name: [] for name in makers}
    for seed in range(args.seeds if args.loss_steps else 0):
        for name, make in makers.items():
            trainer = Trainer(make, data, args.batch, seed)
            for _ in range(args.loss_steps):
                trainer.step()
            losses[name].append(trainer.held_out_loss())
    print(json.dumps(dict(size=args.size, batch=args.batch, threads=torch.get_num_threads(), torch=torch.__version__)))
    for name, rate in rates.items():
        row = dict(net=name, parameters=counts[name], images_per_s=round(rate, 1))
        row["over_diffusers"] = round(rate / rates["diffusers"], 2)
        if losses[name]:
            row |= dict(loss_steps=args.loss_steps, held_out_loss=[round(value, 5) for value in losses[name]])
        print(json.dumps(row))


if __name__ == "__main__":
    main()
