"""Train a U-Net for a few steps and write its weights and loss curve: the same script under one process and under two.

``[accelerate launch --num_processes 2] two_processes.py OUT BATCH``. Everything is float64, so that "to rounding" is sharp.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from diffusion_lib.losses import DenoisingLoss
from diffusion_lib.nets import UNet
from diffusion_lib.profile import accelerator
from diffusion_lib.schedules import CosineSchedule
from diffusion_lib.training import Batches, train
from diffusion_lib.training.processes import Processes

out, batch = Path(sys.argv[1]), int(sys.argv[2])
device = None if accelerator() is None else "cpu"               # gloo, also where there is a GPU
rank = Processes(device).rank
torch.manual_seed(rank)                                         # the processes start apart: train must give all the first one's weights
net = UNet(1, 8, (1, 2), classes=3).double()
g = torch.Generator().manual_seed(7)
data, labels = torch.rand(40, 1, 8, 8, generator=g).double() * 2 - 1, torch.randint(0, 3, (40,), generator=g)
done = train(net, DenoisingLoss(CosineSchedule(), label_dropout=0.2), Batches(data, labels, batch_size=batch, seed=3), steps=12,
             device=device, precision="fp32", checkpoint=out.with_suffix(""), every=5, progress=False)
if rank == 0:
    weights = {f"ema.{name}": tensor for name, tensor in done.ema.state_dict().items()}
    save_file(weights | {"losses": done.losses, "world": torch.tensor(done.world)}, out)
