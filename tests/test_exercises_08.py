"""What chapter 8's printed solutions must do besides passing their judge (test_exercises.py)."""

from __future__ import annotations

import torch
from printed import printed_solution

from diffusion_lib.latents import LatentSpace
from diffusion_lib.nets import Codebook, KLAutoencoder
from diffusion_lib.nets.attention import CrossAttention


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_solution_of_the_scale_is_the_librarys():
    torch.manual_seed(0)
    net = KLAutoencoder(width=8, multipliers=(1, 1)).double().eval()
    pictures = torch.randn(20, 3, 16, 16, generator=seeded(), dtype=torch.float64)
    space = LatentSpace.measured(net, pictures)
    with torch.no_grad():
        shift, scale = printed_solution(8, "measure_scale")(net.latents(pictures))
    assert torch.allclose(shift, torch.tensor(space.shift, dtype=torch.float64))
    assert abs(float(scale) / space.scale - 1) < 1e-9


def test_solution_of_quantising_is_the_librarys():
    torch.manual_seed(0)
    book = Codebook(7, 3).double().eval()
    z = torch.randn(2, 3, 4, 4, generator=seeded(), dtype=torch.float64)
    flat = printed_solution(8, "quantise")(z.movedim(1, -1).reshape(-1, 3), book.table)
    assert torch.allclose(flat.view(2, 4, 4, 3).movedim(-1, 1), book(z).values)


def test_solution_of_attention_is_the_librarys():
    torch.manual_seed(0)
    layer = CrossAttention(8, 5, head=8).double()
    torch.nn.init.normal_(layer.out.weight)
    h, words = (torch.randn(shape, generator=seeded(), dtype=torch.float64) for shape in ((2, 8, 3, 3), (2, 6, 5)))
    mask = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    query = layer.query(layer.norm(h).flatten(2).transpose(1, 2))
    key, value = layer.key_value(words).chunk(2, -1)
    found = layer.out(printed_solution(8, "cross_attend")(query, key, value, mask))
    assert torch.allclose(layer(h, words, mask), h + found.transpose(1, 2).reshape(h.shape))
