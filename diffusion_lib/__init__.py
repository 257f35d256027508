"""diffusion_lib: the library behind the book. Two nouns and a verb: a Schedule, a Denoiser, and sampling.

Import by module, so that you know which file to open: ``from diffusion_lib.samplers import ddim``.
"""

__version__ = "0.1.0"
