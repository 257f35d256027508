"""``python -m diffusion_lib train | train-latent | sample | evaluate | info | grade``."""

import sys

from diffusion_lib.commands import main

if __name__ == "__main__":
    sys.exit(main())
