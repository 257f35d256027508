"""One process or many: `accelerate` says which devices there are and carries what the processes tell each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from diffusion_lib.profile import accelerator


class Processes:
    """Rank, world size and device of this process, and the few exchanges that training needs.

    Gradients are averaged by hand, in one message after the backward pass, rather than by wrapping the network: so a loss may
    call any method of its network, and checkpoints carry no wrapper's names. On networks of the size of this book the message
    is short beside the step.

    device: None takes accelerate's choice; "cpu" keeps training on the CPU where there is a GPU
    """

    def __init__(self, device: torch.device | str | None = None) -> None:
        from accelerate import PartialState

        wanted = accelerator() if device is None else torch.device(device)
        self._state = PartialState(cpu=wanted is None or wanted.type == "cpu")  # else it would not look for gloo's processes
        self.rank, self.world = self._state.process_index, self._state.num_processes
        self.device = self._state.device if device is None or self.world > 1 else torch.device(device)
        if self.device.type == "cpu":
            self.device = torch.device("cpu")  # accelerate says cpu:0

    def copy_from_first(self, net: nn.Module) -> None:
        """Give every process the first one's weights."""
        if self.world > 1:
            from accelerate.utils import broadcast

            with torch.no_grad():
                for tensor in net.state_dict().values():
                    tensor.copy_(broadcast(tensor.contiguous()))

    def average_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the processes (a parameter without one counts as zero)."""
        if self.world > 1:
            with torch.no_grad():
                whole = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
                parts = self.mean(whole).split([p.numel() for p in parameters])
                for p, part in zip(parameters, parts, strict=True):
                    p.grad = part.view_as(p).clone()

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of ``tensor`` over the processes."""
        if self.world == 1:
            return tensor
        from accelerate.utils import reduce

        return reduce(tensor, "mean")

    def agree(self, word: Any) -> Any:
        """The first process's ``word``, on every process."""
        if self.world == 1:
            return word
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([word])[0]
