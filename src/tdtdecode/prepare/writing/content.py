"""What a layout's writer gets: the parts of a model, and the text files that several layouts have."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...bundle.big_blanks import CONFIGURATION, FIELD
from ...bundle.blank import BLANK_NAMES
from ...bundle.caches import EncoderCaches
from ...bundle.description import FeatureSettings
from ...bundle.files import find_file, read_json
from ...bundle.onnx_files.graph import Graph
from ...bundle.transducers import SplitTransducer
from ...bundle.vocabulary import Vocabulary
from ...transducer import TransducerSpec

TDT = "tdt"
"""sherpa-onnx takes a model for TDT if the URL in its metadata contains this."""


@dataclass(frozen=True, eq=False)
class Content:
    """The parts of a model, from which a writer makes a directory.

    Attributes
    ----------
    spec, vocabulary, features:
        As in `Bundle`.
    modules:
        Predictor and joint. The writer changes their graphs in place.
    encoder:
        The encoder's graph, which the writer changes in place; None if there is no encoder.
    caches:
        The ports and windows of a cache-aware encoder; None for others.
    """

    spec: TransducerSpec
    vocabulary: Vocabulary
    features: FeatureSettings
    modules: SplitTransducer
    encoder: Graph | None
    caches: EncoderCaches | None = None

    @property
    def pieces(self) -> list[str]:
        """The pieces by id, where blank has the name that all systems but GenAI use."""
        pieces = list(self.vocabulary.pieces)
        pieces[self.vocabulary.blank] = BLANK_NAMES[0]
        return pieces

    @property
    def hidden_size(self) -> int:
        """H, the width of the predictor's LSTM states."""
        return self.modules.predictor.state_shapes[0][1]

    @property
    def layers(self) -> int:
        """Number of the predictor's LSTM layers."""
        return self.modules.predictor.state_shapes[0][0]

    def metadata(self) -> dict[str, str]:
        """The encoder's metadata. The names are sherpa-onnx's, except for the durations, which it has no name for."""
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
        if self.features.family != "nemo":  # sherpa-onnx knows no version
            entries["is_giga_am"] = 1
        windows = {} if self.caches is None else self.caches.metadata()
        return {name: str(value) for name, value in entries.items()} | windows | {"url": self.url}

    @property
    def url(self) -> str:
        """The URL to write into the encoder's metadata.

        It is the present one, unless sherpa-onnx would take TDT for RNN-T by it, or RNN-T for TDT. Then it is a word.
        """
        given = {} if self.encoder is None else {e.key: e.value for e in self.encoder.model.metadata_props}
        stated = given.get("url", "")
        if stated and (TDT in stated) == bool(self.spec.durations):
            return stated
        return TDT if self.spec.durations else "rnnt"


def write_symbols(file: Path, pieces: list[str]) -> None:
    """Write a token file of ``symbol id`` lines."""
    file.write_text("".join(f"{piece} {i}\n" for i, piece in enumerate(pieces)), encoding="utf-8", newline="\n")


def write_json(file: Path, value: dict[str, Any]) -> None:
    """Write a JSON object, indented."""
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def state_big_blanks(folder: Path, frames: Sequence[int], target: Callable[[str], Path]) -> None:
    """Write the frames of a model's big blanks into the config.json of a folder, beside what stands there.

    ``target`` gives the path at which to write a file of that name.
    """
    file = find_file(folder, CONFIGURATION)
    stated = {} if file is None else read_json(file)
    write_json(target(CONFIGURATION), stated | {FIELD: list(frames)})
