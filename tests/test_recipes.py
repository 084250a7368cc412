"""The recipes are run as they stand, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnxruntime

import tdtdecode as tdt
from tdtdecode.audio import FeatureExtractor
from tests import demo

RECIPES = Path(__file__).parent.parent / "docs" / "recipes.md"


def test_recipes():
    blocks = re.findall(r"```python\n(.*?)```", RECIPES.read_text(encoding="utf-8"), re.DOTALL)
    waveforms = [samples for samples, _ in list(demo.recordings().values())[:3]]
    said = [transcript.text for transcript in tdt.load_model("demo").recognize([(w, 16000) for w in waveforms])]
    features, feature_lengths = FeatureExtractor(80)(waveforms)
    file = demo.DIRECTORY / "encoder-model.onnx"
    names = {
        "directory": demo.DIRECTORY,
        "session": onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]),
        "features": features,
        "feature_lengths": np.asarray(feature_lengths, np.int64),
        "waveforms": waveforms,
    }
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 6
    assert names["texts"] == names["same_texts"] == said
    assert names["near"] == said
    assert [result.text for result in names["results"]] == said
