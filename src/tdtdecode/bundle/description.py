"""The result of reading a model directory (`Bundle`), and what the reader of each layout returns (`BundleFiles`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..reprs import counted, joined_names, one_line
from ..transducer import TransducerSpec
from .transducers import CombinedTransducer, SplitTransducer
from .vocabulary import Vocabulary

FEATURE_FRAME_SECONDS = 0.01
"""Time between two feature frames."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Stated(Generic[Value]):
    """A setting, and the file and field it was read from."""

    value: Value
    file: Path
    field: str

    def __str__(self) -> str:
        return f"{self.value} in {self.file.name} ({self.field})"


@dataclass(frozen=True)
class ChosenFiles:
    """The graph files of one variant.

    Attributes
    ----------
    variant:
        The suffix that predictor and joint have; None if they have none, or not the same one.
    graphs:
        Predictor and joint, or the combined graph.
    encoder:
        None if there is none.
    """

    variant: str | None
    graphs: tuple[Path, ...]
    encoder: Path | None


@dataclass(frozen=True)
class StatedWindows:
    """What configurations state about the windows of a cache-aware encoder; None where they state nothing.

    Attributes
    ----------
    overlap, shift:
        How many feature frames a window shares with the one before, and how many are new.
    left_context:
        Encoder frames that the cache of the attention holds.
    languages:
        The numbers of languages by name, as a configuration states them.
    default_language:
        The number to take if no language is given.
    """

    overlap: Stated[int] | None = None
    shift: Stated[int] | None = None
    left_context: Stated[int] | None = None
    languages: Stated[Any] | None = None
    default_language: Stated[Any] | None = None


@dataclass(frozen=True)
class BundleFiles:
    """The files of one layout and variant, and the settings that are written outside the graphs.

    Attributes
    ----------
    chosen:
        The graphs' files.
    symbols:
        The entries of the token file by id, the blank among them.
    blank:
        The blank's id, if a configuration states it.
    durations, mel_bins, subsampling_factor, sample_rate, normalize, model_type, windows:
        Settings from the configuration files; None, or empty, if they state none.
    """

    layout: str
    chosen: ChosenFiles
    symbols: tuple[str, ...]
    token_file: Path
    blank: Stated[int] | None = None
    durations: Stated[tuple[int, ...]] | None = None
    mel_bins: tuple[Stated[int], ...] = ()
    subsampling_factor: Stated[int] | None = None
    sample_rate: Stated[int] | None = None
    normalize: Stated[Any] | None = None
    model_type: Stated[Any] | None = None
    windows: StatedWindows = StatedWindows()


@dataclass(frozen=True)
class FeatureSettings:
    """The features that an encoder takes.

    Attributes
    ----------
    mel_bins:
        Number of mel bins in a feature frame; None if neither the encoder nor a configuration states it.
    subsampling_factor:
        Feature frames (10 ms each) per encoder frame.
    normalize:
        ``"per_feature"``, or None for features that are not normalised.
    sample_rate:
        Samples per second of the audio.
    max_frames:
        Most encoder frames per recording, from the size of the encoder's position table; None if unknown.
    fixed_input_frames:
        The number of feature frames that the encoder was exported for; None if it takes any number.
    family:
        How the features are computed: ``"nemo"``, ``"gigaam"`` or ``"gigaam-v2"``, see `FeatureExtractor`; or
        ``"kaldi"``, see `KaldiExtractor`.
    """

    mel_bins: int | None = None
    subsampling_factor: int = 8
    normalize: str | None = "per_feature"
    sample_rate: int = 16000
    max_frames: int | None = None
    fixed_input_frames: int | None = None
    family: str = "nemo"


@dataclass(frozen=True, eq=False)
class Bundle:
    """A model directory, read and checked. It is pickled as where it is: whoever unpickles it reads the directory.

    Attributes
    ----------
    directory:
        The directory's path, with links resolved.
    layout:
        ``"split"``, ``"combined"`` or ``"genai"``.
    variant:
        Suffix of the chosen files, such as ``"int8"``; None for files without a suffix.
    spec:
        The layout of a joint row, and the width of an encoder frame.
    vocabulary:
        The pieces by token id.
    encoder:
        The encoder's file; None if the directory has none of this variant.
    features:
        The features that the encoder takes.
    transducer:
        The predictor and joint graphs, which run at any batch size.
    cache_aware:
        Whether the encoder goes over a recording window by window, with caches.
    windows:
        What the configuration states about these windows.
    """

    directory: Path
    layout: str
    variant: str | None
    spec: TransducerSpec
    vocabulary: Vocabulary
    encoder: Path | None
    features: FeatureSettings
    transducer: SplitTransducer | CombinedTransducer
    cache_aware: bool = False
    windows: StatedWindows = StatedWindows()

    def __repr__(self) -> str:
        encoder = "no encoder" if self.encoder is None else self.encoder.name
        files = dict.fromkeys(graph.file.name for graph in self.transducer.graphs)
        return one_line(
            self, str(self.directory), f"layout {self.layout}", f"variant {self.variant}" if self.variant else "",
            f"{counted(self.spec.vocab_size, 'token')}", f"durations {list(self.spec.durations)}",
            joined_names([encoder, *files]),
        )  # fmt: skip

    @property
    def frame_seconds(self) -> float:
        """Duration of an encoder frame in seconds."""
        return self.features.subsampling_factor * FEATURE_FRAME_SECONDS
