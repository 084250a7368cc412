"""The site is built without a warning, every link in it leads somewhere, and every page fits the screen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("sphinx", "furo", "myst_nb", "numpydoc", "sphinx_copybutton", "matplotlib", "onnxruntime")
MISSING = [name for name in NEEDED if find_spec(name) is None]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# The site is built once: all of these tests run in one process.
pytestmark = [
    pytest.mark.xdist_group("site"),
    pytest.mark.skipif(bool(MISSING), reason=f"the extra [docs] is not installed: {', '.join(MISSING)}"),
]


def build(source: Path, out: Path, repository: bool = False) -> subprocess.CompletedProcess[str]:
    """Build as continuous integration does, there with the variables that GitHub sets."""
    github = {"GITHUB_SERVER_URL": "https://example.org", "GITHUB_REPOSITORY": "who/tdtdecode", "GITHUB_SHA": "main"}
    environment = {name: value for name, value in os.environ.items() if name not in github}
    if repository:
        environment |= github
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", str(source), str(out)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=600)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT / "docs", out, repository=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


class Page(HTMLParser):
    """The anchors of a page, and what it links to or shows."""

    def __init__(self, file: Path):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def test_every_link_leads_somewhere(site):
    pages = {file: Page(file) for file in site.rglob("*.html")}
    wrong = []
    checked = 0
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or link in ("#", ""):
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            found = target.exists() and (not parts.fragment or parts.fragment in pages[target].anchors)
            checked += 1
            if not found:
                wrong.append(f"{file.relative_to(site)}: {link}")
    assert checked > 1000 and wrong == []


def test_links_to_the_repository_name_files_of_it(site):
    start = "https://example.org/who/tdtdecode/"
    links = {link for file in site.rglob("*.html") for link in Page(file).links if link.startswith(start)}
    paths = {link.removeprefix(start).partition("#")[0].split("/", 2)[2] for link in links}
    assert "benches/README.md" in paths and "examples/c" in paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_page_is_in_the_table_of_contents(site):
    """Sphinx warns of pages that no list has, so this is for the names that the site must have."""
    names = {file.relative_to(site).with_suffix("").as_posix() for file in site.rglob("*.html")}
    pages = {page.relative_to(ROOT / "docs").with_suffix("").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert pages <= names
    navigation = {link.partition("#")[0] for link in Page(site / "index.html").links}
    assert {f"{page}.html" for page in pages if "/" not in page} - {"index.html"} <= navigation


def test_public_names_are_described(site):
    import tdtdecode

    anchors = {anchor for file in (site / "api").glob("*.html") for anchor in Page(file).anchors}
    assert [name for name in tdtdecode.__all__ if name != "kernels" and f"tdtdecode.{name}" not in anchors] == [
        name for name in tdtdecode.__all__ if name.endswith(("Error", "Warning"))
    ]
    assert {f"tdtdecode.errors.{name}" for name in tdtdecode.__all__ if name.endswith(("Error", "Warning"))} <= anchors


def test_mistakes_stop_the_build(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    configuration = (ROOT / "docs" / "conf.py").read_text(encoding="utf-8")
    (docs / "conf.py").write_text(configuration.replace('html_static_path = ["_static"]', ""), encoding="utf-8")
    (docs / "index.md").write_text("# One\n\n```{toctree}\ntdt\n```\n", encoding="utf-8")
    for name, text, right in (
        ("right", "As it should be.", True),
        ("page", "[no such page](nowhere.md)", False),
        ("anchor", "[no such heading](index.md#nowhere)", False),
        ("name", "```{eval-rst}\nSee `tdtdecode.Bream`.\n```", False),
    ):
        (docs / "tdt.md").write_text(f"# TDT\n\n{text}\n", encoding="utf-8")
        done = build(docs, tmp_path / name)
        assert (done.returncode == 0) == right, f"{name}: {done.stderr}"


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine: install chromium")
def test_no_page_is_wider_than_the_screen(site):
    """Tables, code and pictures that are wider are moved sideways within their own boxes."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    wide = {}
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        try:
            page = browser.new_page()
            for file in sorted(site.rglob("*.html")):
                page.goto(file.as_uri())
                for screen in (390, 1100, 1320, 1440):  # a phone, and where the theme has one, two and three columns
                    page.set_viewport_size({"width": screen, "height": 844})
                    width = page.evaluate("document.documentElement.scrollWidth")
                    if width > screen:
                        wide[file.relative_to(site).as_posix(), screen] = width
        finally:
            browser.close()
    assert wide == {}
