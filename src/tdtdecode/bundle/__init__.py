"""Reading model directories: find the files, check them, and prepare the graphs to run at any batch size."""

from .description import Bundle, FeatureSettings
from .onnx_files.graph import Graph, Port, load_graph
from .reading import LAYOUTS, read_bundle
from .transducers import CombinedTransducer, JointGraph, PredictorGraph, SplitTransducer
from .vocabulary import Vocabulary

__all__ = [
    "LAYOUTS",
    "Bundle",
    "CombinedTransducer",
    "FeatureSettings",
    "Graph",
    "JointGraph",
    "Port",
    "PredictorGraph",
    "SplitTransducer",
    "Vocabulary",
    "load_graph",
    "read_bundle",
]
