"""The Python code of the README and of pages in docs/ runs as printed, prints what stands below it, and has types."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cuda.helpers import CARDS, on

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md", "docs/decoding.md", "docs/gpu.md", "docs/streaming.md", "docs/subtitles.md", "docs/warnings.md",
]  # fmt: skip
"""Pages with Python code in ```python blocks, and what it prints in a ```text block below. Blocks of one page run one
after the other in the root of the repository, those marked ```python gpu on a card or its emulation."""

EVERY_PAGE = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "benches/*.md", "tools/*/*.md", "tests/*/*.md", "src/tdtdecode/demo/*.md")
    for path in ROOT.glob(pattern)
)


@dataclass
class Block:
    """Code with the number of its first line, and the text below it, "" if there is none."""

    code: str
    line: int
    printed: str
    on_gpu: bool


def blocks_of(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.finditer(r"^```python( gpu)?\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", text, re.DOTALL | re.MULTILINE)
    return [Block(m[2], text.count("\n", 0, m.start(2)) + 1, m[3] or "", m[1] is not None) for m in found]


def run(page: str, block: Block, names: dict) -> None:
    """Run a block with the page's line numbers."""
    exec(compile("\n" * (block.line - 1) + block.code, page, "exec"), names)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_print_what_is_printed(page, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    names: dict = {}
    for block in blocks_of(page):
        if not block.on_gpu:
            run(page, block, names)
            assert capsys.readouterr().out == block.printed, f"{page}, line {block.line}"


@pytest.mark.parametrize("card", CARDS)
def test_blocks_for_a_gpu(card, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    blocks = [(page, block) for page in PAGES for block in blocks_of(page) if block.on_gpu]
    assert blocks
    for page, block in blocks:
        with on(card):
            run(page, block, {})
        assert capsys.readouterr().out == block.printed, f"{page}, line {block.line}"


def test_blocks_have_types(tmp_path):
    """Each page's code as one module, in which every line stands where it stands in the page."""
    files = []
    for page in PAGES:
        lines: list[str] = []
        for block in blocks_of(page):
            lines += [""] * (block.line - 1 - len(lines)) + block.code.splitlines()
        files.append(tmp_path / f"{Path(page).stem.lower()}_page.py")
        files[-1].write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", "setup.cfg", *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if "No module named mypy" in done.stderr:
        pytest.skip("mypy is not installed")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_block_of_python_is_tested():
    """A page with Python code is in `PAGES`, or is the recipes, which have names of their own."""
    with_code = {page for page in EVERY_PAGE if "```python" in (ROOT / page).read_text(encoding="utf-8")}
    assert with_code == {*PAGES, "docs/recipes.md"}
    for page in PAGES:
        assert len(blocks_of(page)) == (ROOT / page).read_text(encoding="utf-8").count("```python")


def test_the_readme_has_the_two_commands():
    """Continuous integration runs the first two shell blocks of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^```sh\n(.*?)^```\n", text, re.DOTALL | re.MULTILINE)
    assert len(commands) == 2
    assert "tdtdecode transcribe src/tdtdecode/demo/speech.flac" in commands[0] and "-m pytest" in commands[1]


def anchors_of(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    for link in links:
        path, _, anchor = link.partition("#")
        if path.startswith("http"):
            continue
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/decoding.md"])
def test_paths_that_are_named_exist(page):
    """Every path in code marks; one with capital letters in it, as in NAME.py, is an example."""
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:src|csrc|tests|docs|tools|benches)/[\w./-]*)", text)
    missing = [path for path in named if path == path.lower() and not (ROOT / path).exists()]
    assert missing == []
