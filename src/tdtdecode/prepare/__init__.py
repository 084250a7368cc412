"""Preparing model directories: one function for each command of that name.

============  =========================================================================  ==============================
Function      What it does                                                               What it returns
============  =========================================================================  ==============================
`inspect`     Finds out what a directory is, what is wrong with it, and which systems    `Inspection`
              can use it. Writes nothing.
`repair`      Writes a copy in which every mistake is corrected that can be, or          `Repair`
              corrects the directory itself.
`convert`     Writes the same weights in another layout: split, combined or GenAI.       `tdtdecode.bundle.Bundle`
`optimize`    Writes smaller or faster graphs, made by ONNX Runtime's tools.             `Optimization`
`export`      Writes a NeMo checkpoint as a model directory, and checks it against       `Export`
              NeMo.
`pack`        Writes predictor, joint and vocabulary to one file, for decoding without   `PackedModel`
              ONNX and from C. `pack_ngram` writes a language model for it.
============  =========================================================================  ==============================

They share these parameters. The first three are given in this order, the others by name:

- `directory`: the model directory to read. Only ``repair(directory, None)`` changes it. `export` reads a `checkpoint`.
- `out`: the folder to write, which must be new or empty; for `pack` a file. It is written completely, or, after an
  error, not at all.
- `to`: what to write: a layout (`convert`, `export`), or a kind of graphs (`optimize`).
- `layout`, `variant`, `durations`: which files of the directory to read, and the model's duration table.
"""

from .conversion import convert
from .inspection import Inspection, inspect
from .nemo_export import Export, export
from .optimization import Optimization, optimize
from .packing import PackedModel, pack, pack_ngram
from .repairing import Repair, repair

__all__ = [
    "Export",
    "Inspection",
    "Optimization",
    "PackedModel",
    "Repair",
    "convert",
    "export",
    "inspect",
    "optimize",
    "pack",
    "pack_ngram",
    "repair",
]  # fmt: skip
