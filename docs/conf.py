"""How Sphinx makes a site of the pages in this folder: ``python -m sphinx -W --keep-going -n docs build/site``.

The pages are read on GitHub too. So they are plain Markdown, and what only a site can show is on pages of its own.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

import tdtdecode
from tdtdecode.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
LOG = logging.getLogger(__name__)

project = "tdtdecode"
author = "The authors of tdtdecode"
copyright = author
release = version = tdtdecode.__version__

extensions = ["myst_nb", "numpydoc", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "tdtdecode"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"

# Markdown. Headings have the anchors that GitHub gives them.
myst_heading_anchors = 4
myst_enable_extensions = ["html_image"]

# Pages with code cells are run when the site is built. matplotlibrc in this folder has the style of their plots.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 60
copybutton_exclude = ".linenos, .gp, .go"

linkcheck_ignore = [r"http://127\.0\.0\.1"]

# Docstrings: a name in single backticks is a link if there is such a thing.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 88
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False


IMAGE_OF_A_THEME = r"!\[(.*?)\]\((.*?)#gh-(light|dark)-mode-only\)"
"""An image that GitHub shows on light pages alone, or on dark ones."""


def link_to_source(text: str, path: str, anchor: str = "") -> str:
    """A link to a file or folder of the repository, if GitHub builds the site; else its text and the path."""
    repository = os.environ.get("GITHUB_REPOSITORY")
    if repository is None:
        return text if path in text else f"{text} (`{path}`)"
    kind = "tree" if (ROOT / path).is_dir() else "blob"
    return f"[{text}]({os.environ['GITHUB_SERVER_URL']}/{repository}/{kind}/{os.environ['GITHUB_SHA']}/{path}{anchor})"


def for_the_site(app: Any, name: str, source: list[str]) -> None:
    """Links to files outside this folder lead to the repository. Images for GitHub's dark theme are for furo's."""
    folder = (Path(app.srcdir) / name).parent

    def rewritten(link: re.Match[str]) -> str:
        path = (folder / link[2]).resolve()
        if path.is_relative_to(app.srcdir) or not path.is_relative_to(ROOT):
            return link[0]
        if not path.exists():
            raise ValueError(f"{name}: a link leads to {path}, which does not exist")
        return link_to_source(link[1], path.relative_to(ROOT).as_posix(), link[3])

    source[0] = re.sub(IMAGE_OF_A_THEME, r'<img src="\2" alt="\1" class="only-\3">', source[0])
    source[0] = re.sub(r"(?<!!)\[([^\[\]]*)\]\((\.\./[^)#\s]+)((?:#[^)\s]*)?)\)", rewritten, source[0])


def link_by_last_name(app: Any, env: Any, node: Any, text: Any) -> Any:
    """A name of a docstring or a signature means what has it as its last name, if only one thing has it.

    Other names are text, if the source has them: parameters, and what is not public. So are types of other packages.
    """
    if node.get("refdomain") != "py":
        return None
    objects = env.domains["py"].objects
    last = node["reftarget"].rpartition(".")[2]
    found = [name for name in objects if name == f"tdtdecode.{last}"] or [
        name for name, entry in objects.items() if name.rpartition(".")[2] == last and not entry.aliased
    ]
    if len(found) == 1:
        entry = objects[found[0]]
        return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, text, found[0])
    last = node["reftarget"].removesuffix(".py").rpartition(".")[2]
    return text if node["reftype"] == "class" or last in names_in_the_source() else None


@lru_cache(maxsize=None)
def names_in_the_source() -> set[str]:
    """Every name in the code of the package, and of its files: what a docstring may mention without a link."""
    names = set()
    for file in (ROOT / "src").rglob("*.py"):
        names.add(file.stem)
        for node in ast.walk(ast.parse(file.read_bytes())):
            for field in ("name", "id", "attr", "arg"):
                names.add(getattr(node, field, None))
    return names


def as_numpydoc_reads_it(app: Any, kind: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Our docstrings write ``name:`` before a parameter's text, and may say what is returned in a paragraph."""
    section = ""
    for i, line in enumerate(lines):
        text_follows = i + 1 < len(lines) and lines[i + 1].startswith("    ")
        if i + 1 < len(lines) and re.fullmatch("-{3,}", lines[i + 1]):
            section = line
        elif section in ("Parameters", "Attributes", "Returns", "Yields") and re.fullmatch(r"[\w, *]+:", line):
            lines[i] = line[:-1]
        elif section in ("Parameters", "Attributes") and re.match(r"[^\s-]", line):
            LOG.warning("%s: a paragraph among the %s: numpydoc takes it for one of them", name, section.lower())
        elif section in ("Returns", "Yields") and re.match(r"[^\s-]", line) and not text_follows:
            while i + 1 < len(lines) and re.match(r"\S", lines[i + 1]):
                lines[i] += " " + lines.pop(i + 1)


class Notebooks(SphinxDirective):
    """A list of the notebooks in a folder: the title of each as a link, and its first paragraph."""

    required_arguments = 1

    def run(self) -> list[Any]:
        folder = (Path(self.env.doc2path(self.env.docname)).parent / self.arguments[0]).resolve()
        lines = []
        notebooks = [path for path in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts]
        for notebook in sorted(notebooks):
            self.env.note_dependency(str(notebook))
            cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
            text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
            title, *paragraphs = [part.strip() for part in text.split("\n\n") if part.strip()]
            about = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", paragraphs[0]) if paragraphs else ""
            link = link_to_source(title.lstrip("# "), notebook.relative_to(ROOT).as_posix())
            lines.append(f"- {link}: {' '.join(about.split())}")
        return self.parse_text_to_nodes("\n".join(lines or ["There are none yet."]))


class Commands(SphinxDirective):
    """What ``tdtdecode COMMAND --help`` prints, a section for each command."""

    def run(self) -> list[Any]:
        os.environ["COLUMNS"] = "100"  # argparse breaks lines by it
        text = ""
        for name, command in COMMANDS.items():
            parser = argparse.ArgumentParser(f"tdtdecode {name}")
            command.add_arguments(parser)
            text += f"## {name}\n\n{command.HELP}\n\n```text\n{parser.format_help()}```\n\n"
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Any) -> None:
    app.add_directive("commands", Commands)
    app.add_directive("notebooks", Notebooks)
    app.connect("source-read", for_the_site)
    app.connect("missing-reference", link_by_last_name)
    app.connect("autodoc-process-docstring", as_numpydoc_reads_it, priority=100)
