"""What is written of a model, in whatever layout."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...bundle.description import FeatureSettings
from ...bundle.onnx_files.graph import Graph
from ...bundle.tokens import BLANK_NAMES
from ...bundle.transducers import SplitTransducer
from ...bundle.vocabulary import Vocabulary
from ...transducer import TransducerSpec

TDT = "tdt"
"""sherpa-onnx takes a model for TDT if the address in its metadata has this word."""


@dataclass(frozen=True, eq=False)
class Content:
    """A model taken apart: what a layout's writer puts together.

    Attributes
    ----------
    modules:
        Predictor and joint, whose graphs the writer changes.
    encoder:
        The encoder's graph, which the writer changes; None where there is none.
    """

    spec: TransducerSpec
    vocabulary: Vocabulary
    features: FeatureSettings
    modules: SplitTransducer
    encoder: Graph | None

    @property
    def pieces(self) -> list[str]:
        """The pieces by id, blank as all systems but GenAI call it."""
        pieces = list(self.vocabulary.pieces)
        pieces[self.vocabulary.blank] = BLANK_NAMES[0]
        return pieces

    @property
    def hidden_size(self) -> int:
        """H, the width of the predictor's states."""
        return self.modules.predictor.state_shapes[0][1]

    @property
    def layers(self) -> int:
        """LSTM layers of the predictor."""
        return self.modules.predictor.state_shapes[0][0]

    def metadata(self) -> dict[str, str]:
        """What is written into the encoder: by sherpa-onnx's names, but for the durations, for which it has none."""
        entries = {
            "vocab_size": self.spec.vocab_size,
            "normalize_type": self.features.normalize or "NA",
            "pred_rnn_layers": self.layers,
            "pred_hidden": self.hidden_size,
            "subsampling_factor": self.features.subsampling_factor,
            "model_type": "EncDecRNNTBPEModel",
        }
        if self.features.mel_bins is not None:
            entries["feat_dim"] = self.features.mel_bins
        if self.spec.durations:
            entries["tdt_durations"] = ",".join(map(str, self.spec.durations))
        return {name: str(value) for name, value in entries.items()} | {"url": self.url}

    @property
    def url(self) -> str:
        """The address in the encoder's metadata, if it says what sherpa-onnx looks for there; else a word that does."""
        given = {} if self.encoder is None else {e.key: e.value for e in self.encoder.model.metadata_props}
        stated = given.get("url", "")
        if stated and (TDT in stated) == bool(self.spec.durations):
            return stated
        return TDT if self.spec.durations else "rnnt"


def write_symbols(file: Path, pieces: list[str]) -> None:
    """``symbol id`` lines."""
    file.write_text("".join(f"{piece} {i}\n" for i, piece in enumerate(pieces)), encoding="utf-8", newline="\n")


def write_json(file: Path, value: dict[str, Any]) -> None:
    """An object, readable."""
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
