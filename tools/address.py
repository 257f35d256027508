"""The book's public address stands in one place, `repository: url:` of _config.yml; this copies it to all others.

    python tools/address.py [--set URL] [--check]

They are the Colab badge, the download link and the first code cell of each chapter, CITATION.cff, pyproject.toml,
README.md, CONTRIBUTING.md and the book's own pages.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from chapters import ROOT, config, masters  # noqa: E402

REPOSITORY = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+?)(?:\.git)?/?")
NAME = r"[\w.-]+/[\w-]+(?:\.(?!git\b)[\w-]+)*"
PLACES = [  # what comes before owner/name wherever the book speaks of itself, and what comes after
    (r"https://colab\.research\.google\.com/github/", r"/blob/\w+/notebooks/"),
    (r"https://github\.com/", r"/raw/\w+/notebooks/"),
    (r"git\+https://github\.com/", r"(?=[\"'`)\s@]|\.git|$)"),
    (r'Repository = "https://github\.com/', r'"'),
    (r'repository-code: "https://github\.com/', r'"'),
    (r"git clone https://github\.com/", r"(?=[\"'`)\s]|\.git|$)"),
]


def address() -> str:
    url = config()["repository"]["url"]
    if not REPOSITORY.fullmatch(url):
        raise SystemExit(
            f"_config.yml gives the repository as {url!r}; write it as https://github.com/OWNER/NAME "
            "(Colab opens notebooks from GitHub only)"
        )
    return url.rstrip("/").removesuffix(".git").removeprefix("https://github.com/")


def places() -> list[Path]:
    files = [*masters(), *sorted((ROOT / "book").glob("*.md")), *sorted((ROOT / "coursework").glob("*.md"))]
    files += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CITATION.cff", "pyproject.toml")]
    return [path for path in files if path.exists()]


def stamped(text: str, name: str) -> str:
    """`text` with every address of the book set to owner/name."""
    for before, after in PLACES:
        text = re.sub(f"({before}){NAME}(?:\\.git)?({after})", rf"\g<1>{name}\g<2>", text)
    return text


def wrong() -> list[str]:
    """The files whose address is not the one in _config.yml, and chapters that lack the badge or the install cell."""
    name, problems = address(), []
    for path in places():
        text = path.read_text(encoding="utf-8")
        if stamped(text, name) != text:
            problems.append(f"{path.relative_to(ROOT)} carries another address than _config.yml")
    branch = config()["repository"].get("branch", "main")
    for path in masters():
        text = path.read_text(encoding="utf-8")
        paired = f"notebooks/{path.stem}.ipynb"
        for wanted in (
            f"https://colab.research.google.com/github/{name}/blob/{branch}/{paired}",
            f"https://github.com/{name}/raw/{branch}/{paired}",
            f'%pip install -q "diffusion_lib @ git+https://github.com/{name}"',
        ):
            if wanted not in text:
                problems.append(f"notebooks/{path.name} lacks {wanted}")
    return problems


def set_address(url: str) -> None:
    if not REPOSITORY.fullmatch(url):
        raise SystemExit(f"{url!r} is no repository address; write it as https://github.com/OWNER/NAME")
    path = ROOT / "_config.yml"
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"(?m)^(  url: ).*$", rf"\g<1>{url.rstrip('/')}", text, count=1), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", metavar="URL", help="the new address, https://github.com/OWNER/NAME")
    parser.add_argument("--check", action="store_true", help="change nothing; say what differs")
    arguments = parser.parse_args()
    if arguments.set:
        set_address(arguments.set)
    if arguments.check:
        problems = wrong()
        print("\n".join(problems) + ("\nmend it with: python tools/address.py" if problems else ""), end="")
        return 1 if problems else 0
    for path in places():
        text = path.read_text(encoding="utf-8")
        new = stamped(text, address())
        if new != text:
            path.write_text(new, encoding="utf-8")
            print(f"stamped {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
