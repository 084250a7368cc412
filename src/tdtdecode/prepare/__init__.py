"""Making model directories ready: a function for each verb of the command line.

=============  =================================================================================================
`inspect`      what a directory is, what is wrong with it, and which systems can use it; changes nothing
`repair`       a copy, or the directory itself, in which everything is right that can be known
`convert`      the same weights in another layout: split, combined or GenAI
`optimize`     smaller or faster graphs, by the tools of ONNX Runtime
`export`       a NeMo checkpoint as a model directory, checked against NeMo
=============  =================================================================================================

Each takes paths of directories, writes a new folder that is there whole or not at all, and returns what it did.
"""

from .conversion import convert
from .inspection import inspect
from .nemo_export import export
from .optimization import optimize
from .repairing import repair

__all__ = ["convert", "export", "inspect", "optimize", "repair"]
