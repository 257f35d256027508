"""Training: `train` runs the loop, `Batches` deals the data, `Trained` is what comes back."""

from diffusion_lib.training.batches import Batches
from diffusion_lib.training.ema import EMA
from diffusion_lib.training.loop import Trained, train
from diffusion_lib.training.precision import faster_precision

__all__ = ["EMA", "Batches", "Trained", "faster_precision", "train"]
