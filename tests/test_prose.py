"""The prose around the chapters: its snippets run, its reading list is whole, its references are in order."""

from __future__ import annotations

import base64
import importlib.util
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
GENERATED = {"equations.md"}
BOOK = sorted(path for path in (ROOT / "book").glob("*.md") if path.name not in GENERATED)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *BOOK]
FENCE = re.compile(r"^([ ]*)```python[ ]*\n(.*?)^\1```[ ]*$", re.S | re.M)

# What the reading guide must hold: each arXiv number once at least, and each address in the form a browser takes.
ARXIV = """
2403.18103 2208.11970 1503.03585 2006.11239 2102.09672 2010.02502 1907.05600 2006.09011 2011.13456 2105.05233 2207.12598
2206.00364 2206.00927 2211.01095 2112.10752 2106.05931 2401.08740 2210.02747 2212.09748 2112.10741 2302.05543 2106.09685
2310.04378 2303.09769 2406.11838 1406.2661 1905.07088 1602.03253 physics/9803008 1706.03762
""".split()
ADDRESSES = """
lilianweng.github.io/posts/2021-07-11-diffusion-models lilianweng.github.io/posts/2018-08-12-vae
zhuanlan.zhihu.com/p/525106459 zhuanlan.zhihu.com/p/9140786426 zhuanlan.zhihu.com/p/666552214
zhuanlan.zhihu.com/p/605973097 zhuanlan.zhihu.com/p/670174195 zhuanlan.zhihu.com/p/565901160
zhuanlan.zhihu.com/p/595866176 zhuanlan.zhihu.com/p/622285474 zhuanlan.zhihu.com/p/597490389
zhuanlan.zhihu.com/p/619210083 www.zhihu.com/question/658056360 www.zhihu.com/question/613579202
kexue.fm/archives/9119 kexue.fm/archives/9181 zhangzhenhu.com/aigc/ddim jmtomczak.github.io/blog/10
huggingface.co/blog/annotated-diffusion yang-song.net/blog/2021/score sander.ai/2022/05/26/guidance
gwylab.com/note-vae mp.weixin.qq.com/s/BUaE2_VJwJi1VtNI3x-aIA neurips2023-ldm-tutorial.github.io
karpathy.github.io/2019/04/25/recipe nlp.seas.harvard.edu d2l.ai BV14c411J7f2 ml/2023-spring
space.bilibili.com/323109608 BV1b541197HX BV1DW41167vr BV15E411w7Pz BV1Do4y16767 L9ZegT87QK8 wMmqCMwuM2Q
8TcNXi3A5DI huggingface.co/learn/diffusion-course huggingface/diffusion-models-class
lucidrains/denoising-diffusion-pytorch lucidrains/classifier-free-guidance-pytorch bot66/MNISTDiffusion
guchengzhong/diffusion-model labmlai/annotated_deep_learning_paper_implementations openai/improved-diffusion
openai/guided-diffusion ermongroup/ddim ermongroup/ncsnv2 yang-song/score_sde NVlabs/LSGM
heejkoo/Awesome-Diffusion-Models showlab/Awesome-Video-Diffusion
""".split()
NAMES = """
AssemblyAI;Domagała;Ayan Das;Scale;Socratic;Angus Turner;Tomczak;Kristiadi;John Reid;Valse;UNC;CS231n;Mike Shou;
Karpathy;The Annotated Transformer;Mu Li;Hung-yi Lee;Alammar;Dive into Deep Learning;童发发;白板推导;Su Jianlin;Neal;
Hyvärinen;Vincent;Welling & Teh;Stanley Chan;Calvin Luo;Dieleman
""".replace("\n", "").split(";")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_python_blocks_run(page, monkeypatch, tmp_path):
    """Each block marked `python` runs, top to bottom, in one namespace a page and in an empty directory."""
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    module = types.ModuleType("snippet")
    monkeypatch.setitem(sys.modules, "snippet", module)  # dataclasses look their module up
    for match in FENCE.finditer(text):
        line = text[: match.start(2)].count("\n")
        source = re.sub(rf"^{match[1]}", "", match[2], flags=re.M)
        code = compile("\n" * line + source, str(page), "exec", dont_inherit=True)  # a failure shows the page's own line
        exec(code, vars(module))


def test_the_pages_that_promise_snippets_have_them():
    """So that a change of fence marks cannot empty the test above."""
    count = {page.name: len(FENCE.findall(page.read_text(encoding="utf-8"))) for page in PAGES}
    least = {"notation.md": 5, "README.md": 1, "running.md": 1, "CONTRIBUTING.md": 2}
    assert all(count[name] >= least[name] for name in least), count


def test_fences_are_closed_and_name_their_language():
    for page in PAGES:
        opened = None
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            match = re.match(r"\s*(`{3,})(.*)$", line)
            if not match:
                continue
            if opened is None:
                assert match[2].strip(), f"{page.name}:{number} opens a block without a language; write ```text if none"
                opened = match[1]
            elif not match[2].strip() and len(match[1]) == len(opened):
                opened = None
        assert opened is None, f"{page.name} ends inside a block"


@pytest.fixture(scope="module")
def reading() -> str:
    return (ROOT / "book" / "reading.md").read_text(encoding="utf-8")


def test_reading_guide_is_whole(reading):
    missing = [number for number in ARXIV if f"https://arxiv.org/abs/{number})" not in reading]
    missing += [address for address in ADDRESSES if address not in reading]
    missing += [name for name in NAMES if name not in reading]
    assert not missing, f"the reading guide lacks {missing}"


def test_reading_guide_links_are_well_formed(reading):
    links = re.findall(r"\[[^\]]+\]\(([^)]+)\)", reading)
    assert len(links) > 90
    for link in links:
        assert re.fullmatch(r"https://[\w.-]+\.[a-z]+(/[\w./~%?=&#+-]*)?|[\w./-]+\.(md|ipynb)", link), link
        if "arxiv.org" in link:
            assert re.fullmatch(r"https://arxiv\.org/abs/(\d{4}\.\d{4,5}|physics/\d{7})", link), link
        if "bilibili.com/video" in link:
            assert re.fullmatch(r"https://www\.bilibili\.com/video/BV[0-9A-Za-z]{10}", link), link
        if "youtube.com" in link:
            assert re.fullmatch(r"https://www\.youtube\.com/watch\?v=[\w-]{11}", link), link


def test_every_entry_of_the_guide_says_role_language_and_level(reading):
    rows = [line for line in reading.splitlines() if line.startswith("| [") or line.startswith("| *")]
    assert len(rows) > 70
    for row in rows:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip().strip("|"))]
        assert len(cells) == 5, row
        what, role, language, level, adds = cells
        assert set(role.split()) <= set("TVCPL"), row
        assert set(language.split()) <= {"en", "zh"}, row
        assert level in {"first", "second", "research"}, row
        assert len(adds) >= 20 and adds.endswith("."), row


def bib_entries() -> dict[str, str]:
    text = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    parts = re.split(r"^@\w+\{", text, flags=re.M)[1:]
    keys = [part.split(",")[0] for part in parts]
    assert len(keys) == len(set(keys)), "two entries share a key"
    return dict(zip(keys, parts, strict=True))


def test_bibliography_is_in_order(reading):
    entries = bib_entries()
    assert len(entries) >= 45
    for key, body in entries.items():
        for field in ("author", "title", "year"):
            assert re.search(rf"\b{field}\s*=", body), f"{key} has no {field}"
    everything = "\n".join(entries.values())
    papers = set(ARXIV)
    missing = [number for number in papers if f"https://arxiv.org/abs/{number}" not in everything]
    assert not missing, f"references.bib lacks {missing}"


def test_arxiv_numbers_of_pages_and_chapters_are_in_the_bibliography():
    everything = "\n".join(bib_entries().values())
    for page in [*PAGES, *sorted((ROOT / "notebooks").glob("*.md"))]:
        for number in re.findall(r"arxiv\.org/abs/([\w./-]+?)[).\s]", page.read_text(encoding="utf-8")):
            assert f"arxiv.org/abs/{number}" in everything, f"{page.name} cites {number}; add it to references.bib"


def test_glossary():
    text = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    body = re.search(r"```\{glossary\}\n(.*?)^```", text, re.S | re.M)[1]
    terms = [line for line in body.splitlines() if line and not line.startswith(" ") and not line.startswith(":")]
    assert len(terms) >= 60
    assert len({term.lower() for term in terms}) == len(terms), "a term is defined twice"
    definitions = re.split(r"^\S.*\n", body, flags=re.M)[1:]
    for term, definition in zip(terms, definitions, strict=True):
        assert len(definition.split()) >= 8, term
        assert re.search(r"\[[^\]]+\]\([^)]+\)", definition), f"the entry {term!r} points nowhere"


def landing_tool() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("landing", ROOT / "tools" / "landing.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_strip_shows_each_executed_chapter():
    """book/_static/chain_NN.png is the first figure of chapter NN as executed, and the landing page shows it."""
    index = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    for path, content in landing_tool().chapter_pictures().items():
        assert path.exists() and path.read_bytes() == content, f"{path.name} is out of date; run: python tools/landing.py"
        assert f"_static/{path.name}" in index, f"book/index.md has no card for {path.name}"


def test_landing_animation():
    """Small, self-contained, deterministic: the fragment is what tools/landing.py makes from the library today."""
    path = ROOT / "book" / "_static" / "landing.html"
    fragment = path.read_text(encoding="utf-8")
    assert len(fragment.encode()) < 300_000
    assert not re.search(r"""(src|href)=["']?https?:""", fragment), "the animation must work offline"
    assert 'type="range"' in fragment and "<button" in fragment and "aria-label" in fragment
    landing = landing_tool()
    stored = np.frombuffer(base64.b64decode(re.search(r'data-paths="([^"]+)"', fragment)[1]), dtype="<i2")
    made = landing.quantise(landing.trajectories())
    assert stored.size == made.size
    assert np.abs(stored.astype(int) - made.reshape(-1).astype(int)).max() <= 2, "run: python tools/landing.py"
