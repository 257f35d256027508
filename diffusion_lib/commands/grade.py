"""Grade a class: a CSV with a reason for each task, one page a student, a picture.

python -m diffusion_lib grade FOLDER --out grades.csv --feedback feedback
python -m diffusion_lib grade FOLDER --out grades.csv --student anna --fresh

FOLDER holds STUDENT/NN_slug.ipynb or, as nbgrader collects them, STUDENT/ASSIGNMENT/NN_slug.ipynb. Every notebook runs in a process of its own,
confined as far as the platform allows; the first line printed says how far. Results are kept beside the CSV (grades.state): a stopped run goes
on where it was, and what did not change is not run again. Points for answers marked by hand are entered in grades.manual.csv beside the CSV;
grades.totals.csv has one line for each student and assignment.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``grade``."""
    parser.add_argument("folder", type=Path, help="the folder with one folder for each student")
    parser.add_argument("--out", type=Path, default=Path("grades.csv"), help="the CSV to write (default grades.csv)")
    parser.add_argument("--feedback", type=Path, help="a folder for one page a student")
    parser.add_argument("--manual", type=Path, help="points entered by hand (default grades.manual.csv for --out grades.csv)")
    parser.add_argument("--masters", type=Path, help="the folder of the masters (default: the book's coursework/)")
    parser.add_argument("--jobs", type=int, default=2, help="submissions at a time (default 2)")
    parser.add_argument("--time", type=float, default=120, help="processor seconds that one submission may take (default 120; four times as many by the clock)")
    parser.add_argument("--memory", default="4G", help="memory that one submission may use (default 4G)")
    parser.add_argument("--student", help="this student alone")
    parser.add_argument("--fresh", action="store_true", help="grade anew what was graded before")


def run(options: argparse.Namespace) -> None:
    """Grade, write, print. Errors: ImportError if nbgrader is missing; ValueError, FileNotFoundError."""
    if importlib.util.find_spec("nbgrader") is None:
        raise ImportError("nbgrader is not installed; grading needs it: pip install 'diffusion_lib[teach]'.")
    if options.jobs < 1 or not options.time > 0:
        raise ValueError(f"--jobs {options.jobs} --time {options.time:g} were given; expected a whole number >= 1 and seconds > 0.")
    from diffusion_lib.grading.grade import COURSEWORK, Run, grade
    from diffusion_lib.grading.sandbox import Limits

    limits = Limits(time=options.time, cell=max(5.0, options.time / 3), memory=size(options.memory))
    try:
        grade(Run(options.folder, options.out, options.feedback, options.manual, options.masters or COURSEWORK, options.jobs, limits,
                  options.fresh, options.student))
    except KeyboardInterrupt:
        print("Stopped; what is graded is kept: give the same command again to go on.")
        os._exit(130)


def size(text: str) -> int:
    """"4G" or "512M" as bytes. Errors: ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT])i?B?", text.strip(), re.I)
    if found is None or float(found[1]) <= 0:
        raise ValueError(f"--memory {text} was given; expected a number and a unit, such as 4G or 512M.")
    return int(float(found[1]) * 2 ** {"K": 10, "M": 20, "G": 30, "T": 40}[found[2].upper()])
