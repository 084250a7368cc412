"""`export`: writing a NeMo checkpoint as a model directory, and checking it against NeMo."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import as_instance, as_integer, as_path, refusal
from ..bundle import Bundle, read_bundle
from ..bundle.blank import BLANK_NAMES
from ..bundle.names import COMBINED_NAMES
from ..decoder import Decoder
from ..errors import BundleError, InputError
from ..optional import needed
from ..outputs import new_directory
from ..reprs import counted, one_line
from ..search import Greedy
from ..speech.audio import FeatureExtractor
from ..speech.audio.features import SAMPLE_RATE
from ..speech.audio.reading import read_audio
from ..speech.encoder import Encoder
from ..speech.hub import demo_directory
from ..speech.streaming.cache_aware import CacheAwareEncoder
from .nemo_streaming import compare_steps, has_prompt, prepare_streaming, write_prompt
from .writing import check_layout, write_layout
from .writing.content import write_json, write_symbols

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")

_FEATURES = {"window_size": 0.025, "window_stride": 0.01, "window": "hann", "n_fft": 512, "log": True}
"""The preprocessor settings that this package's features implement. A checkpoint with others is refused."""

FEATURE_TOLERANCE = 1e-2
"""Largest accepted difference of features from NeMo's, in standard deviations."""
ENCODER_TOLERANCE = 1e-3
"""Largest accepted difference of encoder output from NeMo's, relative to the largest absolute value."""


@dataclass(frozen=True, eq=False)
class Export:
    """What was written, and how it compares with NeMo on the demo recording.

    Attributes
    ----------
    bundle:
        The new directory, as `read_bundle` reads it.
    kind:
        The checkpoint's class, and which of its heads was exported.
    tokens:
        Number of tokens that were decoded. NeMo decodes the same ones.
    feature_difference:
        Largest difference of the features, in standard deviations.
    encoder_difference:
        Largest difference of the encoder output, relative to its largest absolute value.
    """

    bundle: Bundle
    kind: str
    tokens: int
    feature_difference: float
    encoder_difference: float

    def __repr__(self) -> str:
        checked = f"the same {counted(self.tokens, 'token')} as NeMo"
        return one_line(self, self.kind, str(self.bundle.directory), checked)


def export(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    to: str = "combined",
    *,
    streaming: bool = False,
    context: Sequence[int] | None = None,
) -> Export:
    """Export a NeMo transducer as a model directory, and check that it decodes the same tokens as NeMo.

    NeMo exports the encoder, the predictor and the joint, and this package writes them in the layout. Of a hybrid model
    the transducer head is exported. To restore a checkpoint, NeMo runs code that the checkpoint names: only export
    checkpoints that you trust.

    Parameters
    ----------
    checkpoint:
        A ``.nemo`` file, or a hub name such as ``"nvidia/parakeet-tdt-0.6b-v2"``.
    out:
        A new folder for the result. It is complete, or, after an error, not there.
    to:
        The layout to write: ``"split"``, ``"combined"`` or ``"genai"``.
    streaming:
        Export the encoder with its caches, for live streams: of checkpoints that were trained for streaming. It is
        compared with NeMo window by window. A language prompt is exported too.
    context:
        With `streaming`, how many encoder frames the attention sees to the left and to the right, such as (70, 6): one
        of those that the checkpoint was trained with. The right one is the look-ahead. None: the first of them.

    Returns
    -------
    The new directory, and how it compares with NeMo.

    Raises
    ------
    InputError
        If there is no such checkpoint, it is not a transducer that can be exported, an argument is wrong, or `out`
        exists and is not empty.
    BundleError
        If the files do not compute what NeMo computes, or the layout cannot hold the model.
    MissingDependencyError
        If NeMo is not installed.
    """
    check_layout(to)
    as_path("checkpoint", checkpoint, "a .nemo file, or a hub name such as 'nvidia/parakeet-...'")
    as_path("out", out, "the path of a new folder")
    as_instance("streaming", streaming, bool, "True or False")
    context = None if context is None else _checked_context(context, streaming)
    model, kind = _restored(checkpoint)
    if streaming:
        try:
            prepare_streaming(model, context)
        except InputError as error:
            raise InputError(f"{os.fspath(checkpoint)}: {error}") from None
    elif has_prompt(model):
        raise InputError(
            f"{os.fspath(checkpoint)}: its frames depend on a language prompt, which is exported with its caches only: "
            "use streaming=True, or --streaming on the command line"
        )
    durations = _durations(model)
    with new_directory(out) as folder, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        raw = Path(scratch)
        _write_nemo_files(model, raw, durations)
        write_layout(read_bundle(raw, "combined", durations=durations), folder, to)
        found = _check(model, read_bundle(folder, to), kind)
    return Export(read_bundle(out, to), kind, *found)


def _checked_context(context: Any, streaming: bool) -> tuple[int, ...]:
    if not isinstance(context, (list, tuple)) or len(context) != 2:
        raise refusal("context", "two numbers of encoder frames, such as (70, 6)", context)
    if not streaming:
        raise InputError("context: only a streaming export has one (streaming=True, or --streaming)")
    return tuple(as_integer(f"context[{i}]", size, low=0) for i, size in enumerate(context))


def pieces_of(vocabulary: Sequence[str] | Mapping[Any, Any]) -> list[str]:
    """The pieces by id of a vocabulary, which is a list of pieces, or a map from piece to id or from id to piece.

    Raises
    ------
    InputError
        If it is none of these, or its ids have gaps.
    """
    if isinstance(vocabulary, Mapping):
        if all(isinstance(i, int) for i in vocabulary.values()):
            by_id = {i: str(piece) for piece, i in vocabulary.items()}
        elif all(isinstance(i, int) for i in vocabulary):
            by_id = {i: str(piece) for i, piece in vocabulary.items()}
        else:
            raise InputError("a vocabulary that is a map must map from pieces to ids, or from ids to pieces")
        if sorted(by_id) != list(range(len(vocabulary))):
            raise InputError(f"a vocabulary of {len(vocabulary)} pieces must have the ids 0 to {len(vocabulary) - 1}")
        return [by_id[i] for i in range(len(by_id))]
    if isinstance(vocabulary, (str, bytes)) or not all(isinstance(piece, str) for piece in vocabulary):
        raise InputError(f"a vocabulary must be a list of pieces or a map, got {vocabulary!r:.60}")
    return list(vocabulary)


def _restored(checkpoint: str | os.PathLike[str]) -> tuple[Any, str]:
    """The model, in evaluation mode and with its transducer head selected, and its `Export.kind`."""
    name = os.fspath(checkpoint)
    if not os.path.isfile(name) and not _HUB_ID.fullmatch(name):
        raise InputError(f"no checkpoint {name!r}: expected a .nemo file, or a hub name such as 'nvidia/parakeet-...'")
    with needed("nemo_toolkit[asr]", "export", f"Exporting {name}"):
        from nemo.collections.asr.models import ASRModel
        from nemo.utils import logging as nemo_logging
    nemo_logging.setLevel(logging.ERROR)
    try:
        if os.path.isfile(name):
            model = ASRModel.restore_from(name, map_location="cpu")
        else:
            model = ASRModel.from_pretrained(name, map_location="cpu")
    except Exception as error:  # a checkpoint, and the code that it names, can raise anything
        raise InputError(f"{name}: NeMo cannot restore it ({type(error).__name__}: {error})") from error
    model.eval()
    kind = type(model).__name__
    if not hasattr(model, "joint") or not hasattr(model, "decoder"):
        raise InputError(f"{name} is a {kind}, which has no transducer head")
    if hasattr(model, "ctc_decoder"):
        model.change_decoding_strategy(decoder_type="rnnt", verbose=False)
        model.set_export_config({"decoder_type": "rnnt"})
        kind += ", its transducer head (the CTC head is left out)"
    return model, kind


def _durations(model: Any) -> tuple[int, ...]:
    """The duration table, from the first place in the configuration that has one; empty for RNN-T."""
    outputs = int(getattr(model.joint, "num_extra_outputs", 0) or 0)
    for where in ("model_defaults.tdt_durations", "decoding.durations", "loss.tdt_kwargs.durations"):
        section: Any = model.cfg
        for key in where.split("."):
            section = section.get(key) if section is not None and hasattr(section, "get") else None
        if section is not None and outputs and len(section) == outputs:
            return tuple(int(d) for d in section)
    if outputs:
        raise InputError(
            f"the checkpoint's joint has {outputs} duration outputs, but its configuration has no duration table of "
            "that length"
        )
    return ()


def _write_nemo_files(model: Any, folder: Path, durations: tuple[int, ...]) -> None:
    """Let NeMo export the graphs, and write what it does not: the vocabulary and the settings of the features."""
    preprocessor = model.cfg.preprocessor
    for name, value in _FEATURES.items():
        if preprocessor.get(name, value) != value:
            raise InputError(
                f"the checkpoint's features have {name} = {preprocessor.get(name)}; this package only computes {value}"
            )
    if int(preprocessor.get("sample_rate", SAMPLE_RATE)) != SAMPLE_RATE:
        raise InputError(
            f"the checkpoint takes audio of {preprocessor.sample_rate} Hz; this package computes features at "
            f"{SAMPLE_RATE} Hz"
        )
    write_symbols(folder / "vocab.txt", [*_pieces(model), BLANK_NAMES[0]])
    normalize = preprocessor.get("normalize", "per_feature")
    configuration = {
        "model_type": "nemo-conformer-tdt" if durations else "nemo-conformer-rnnt",
        "features_size": int(preprocessor.features),
        "subsampling_factor": int(model.cfg.encoder.subsampling_factor),
        "normalize_type": normalize if normalize == "per_feature" else "NA",
        "tdt_durations": list(durations),
    }
    if normalize not in ("per_feature", None, "NA", "none"):
        raise InputError(
            f"the checkpoint's features are normalised by {normalize!r}; this package can normalise them per feature, "
            "or not at all"
        )
    write_json(folder / "config.json", configuration)
    model.export(str(folder / "model.onnx"))
    if has_prompt(model):
        write_prompt(model, folder / COMBINED_NAMES[0].encoder)


def _pieces(model: Any) -> list[str]:
    vocabulary = model.joint.vocabulary
    size = int(model.joint.num_classes_with_blank) - 1 - int(getattr(model.joint, "num_extra_outputs", 0) or 0)
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is not None and hasattr(tokenizer, "ids_to_tokens"):
        pieces = [str(piece) for piece in tokenizer.ids_to_tokens(list(range(size)))]
    else:
        pieces = pieces_of(vocabulary)
    if len(pieces) != size:
        raise InputError(
            f"the checkpoint's vocabulary has {len(pieces)} pieces, but its joint has {size} outputs for them"
        )
    return pieces


def _check(model: Any, bundle: Bundle, kind: str) -> tuple[int, float, float]:
    """Decode the demo recording with NeMo and with the files, and compare features, encoder output and tokens.

    Returns
    -------
    The number of tokens, `Export.feature_difference` and `Export.encoder_difference`.
    """
    import torch

    speech = read_audio(demo_directory() / "speech.flac")
    assert bundle.features.mel_bins is not None
    features, lengths = FeatureExtractor(bundle.features.mel_bins, bundle.features.normalize)([speech])
    features = features[:, :, : lengths[0]]
    with torch.inference_mode():
        theirs, _ = model.preprocessor(input_signal=torch.from_numpy(speech[None]), length=torch.tensor([len(speech)]))
        if bundle.cache_aware:
            encoder_out, difference = compare_steps(model, CacheAwareEncoder(bundle), features[0])
            frames, counts = torch.from_numpy(encoder_out), torch.tensor([encoder_out.shape[2]])
            same_counts = True
        else:
            frames, counts = model.encoder(audio_signal=torch.from_numpy(features), length=torch.from_numpy(lengths))
            encoder_out = frames.numpy()
            difference, same_counts = _whole_difference(bundle, features, lengths, encoder_out, counts.numpy())
        hypotheses = model.decoding.rnnt_decoder_predictions_tensor(
            encoder_output=frames, encoded_lengths=counts, return_hypotheses=True
        )
    while isinstance(hypotheses, (list, tuple)):
        hypotheses = hypotheses[0]
    deviation = 1.0 if bundle.features.normalize is not None else float(features.std())
    feature_difference = float(np.abs(features - theirs.numpy()[:, :, : lengths[0]]).max()) / deviation
    greedy = model.cfg.decoding.get("greedy") or {}
    search = Greedy(max_symbols=int(greedy.get("max_symbols") or greedy.get("max_symbols_per_step") or 10))
    (ours,) = Decoder.from_bundle(bundle).decode(encoder_out, counts.numpy(), search)
    expected = torch.as_tensor(hypotheses.y_sequence).tolist()
    problems = []
    if not same_counts or not difference <= ENCODER_TOLERANCE:
        problems.append(f"the encoder output differs from NeMo's by {difference:.2g} of its largest value")
    if not feature_difference <= FEATURE_TOLERANCE:
        problems.append(f"the features differ from NeMo's by up to {feature_difference:.2g} standard deviations")
    if ours.tokens.tolist() != expected:
        problems.append(
            f"from the same encoder output, NeMo decodes {expected[:12]} and the exported files decode "
            f"{ours.tokens.tolist()[:12]}"
        )
    if problems:
        raise BundleError(
            f"the exported {kind} differs from the checkpoint: {'; '.join(problems)}", file=bundle.directory
        )
    return len(expected), feature_difference, difference


def _whole_difference(
    bundle: Bundle, features: np.ndarray, lengths: np.ndarray, expected: np.ndarray, counts: np.ndarray
) -> tuple[float, bool]:
    """The largest difference of the encoder output of a whole recording, relative to its largest value; and whether it
    has as many frames."""
    exported, exported_counts = Encoder(bundle)(features, lengths)
    largest = max(float(np.abs(expected).max()), 1e-6)
    count = int(counts[0])
    difference = float(np.abs(exported.numpy()[:, :, :count] - expected[:, :, :count]).max()) / largest
    return difference, exported_counts.tolist() == counts.tolist()
