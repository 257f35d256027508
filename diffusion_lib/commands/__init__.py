"""The command line: train on digits or on your own pictures, sample a grid, measure it, see what is installed,
grade coursework."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from diffusion_lib.commands import evaluate, grade, info, sample, train, train_latent

EXPECTED = (ValueError, TypeError, OSError, ImportError, FloatingPointError, RuntimeError)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaint is one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help.\n")


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = Parser(prog="python -m diffusion_lib", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True, metavar="train | train-latent | sample | evaluate | info | grade", parser_class=Parser)
    for module in (train, train_latent, sample, evaluate, info, grade):
        name = module.__name__.rsplit(".", 1)[1].replace("_", "-")
        one = commands.add_parser(name, help=module.__doc__.splitlines()[0], description=module.__doc__,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
        module.add_arguments(one)
        one.set_defaults(run=module.run)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0, or 2 after one sentence on stderr (130 after Ctrl-C).

    With DIFFUSION_DEBUG=1 an error keeps its traceback.
    """
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt:
        print("Stopped; a training run goes on from its last checkpoint when the same command is given again.", file=sys.stderr)
        return 130
    except EXPECTED as error:
        if os.environ.get("DIFFUSION_DEBUG") == "1":
            raise
        text = error.strerror if isinstance(error, OSError) and error.strerror and error.filename is None else str(error)
        print(" ".join(f"{text or type(error).__name__}".split()), file=sys.stderr)
        return 2
    return 0
