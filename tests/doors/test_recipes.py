"""The recipes are run as they stand, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import tdtdecode as tdt
from tdtdecode.speech.audio import FeatureExtractor
from tests import demo
from tests.cuda.helpers import PROVIDER_CARDS, on
from tests.decoding.test_fusion_ngram import random_arpa, write_arpa

RECIPES = Path(__file__).parents[2] / "docs" / "recipes.md"


@pytest.mark.parametrize("card", PROVIDER_CARDS)
def test_recipes_for_a_gpu(card):
    blocks = re.findall(r"```python gpu\n(.*?)```", RECIPES.read_text(encoding="utf-8"), re.DOTALL)
    waveforms = [samples for samples, _ in list(demo.recordings().values())[:2]]
    model = tdt.load_model("demo")
    said = [transcript.text for transcript in model.recognize([(w, 16000) for w in waveforms])]
    encoder_out, lengths = model.encoder(*FeatureExtractor(80)(waveforms))
    names = {"tdt": tdt, "directory": demo.DIRECTORY, "encoder_out": encoder_out.numpy(), "lengths": lengths}
    with on(card):
        for block in blocks:
            exec(block, names)
    assert len(blocks) == 1 and names["texts"] == said


def test_recipes(tmp_path, capsys):
    write_arpa(tmp_path / "lm.arpa", random_arpa(np.random.default_rng(0), 2, demo.pieces()[:-1], keep=0.01))
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
        "arpa_file": tmp_path / "lm.arpa",
    }
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 11
    assert names["texts"] == names["same_texts"] == said
    assert names["near"] == said
    for name in ("best", "boosted", "with_lm", "varied", "sure"):
        assert [names["decoder"].detokenize(h.tokens) for h in names[name]] == said
    assert capsys.readouterr().out.count("\n") >= 2
    assert [result.text for result in names["results"]] == said
