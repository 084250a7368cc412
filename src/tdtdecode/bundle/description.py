"""What a model directory holds: the result of reading one, and what its readers hand in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..transducer import TransducerSpec
from .transducers import CombinedTransducer, SplitTransducer
from .vocabulary import Vocabulary

FEATURE_FRAME_SECONDS = 0.01

Value = TypeVar("Value")


@dataclass(frozen=True)
class Stated(Generic[Value]):
    """A fact and where it is written."""

    value: Value
    file: Path
    field: str

    def __str__(self) -> str:
        return f"{self.value} in {self.file.name} ({self.field})"


@dataclass(frozen=True)
class Found:
    """The files of one layout and variant, and what is written about the model beside the graphs.

    `graphs` has the predictor and the joint, or the combined graph alone. `encoders` has the encoder files of
    all variants by variant.
    """

    layout: str
    graphs: tuple[Path, ...]
    encoders: dict[str | None, Path]
    vocabulary: Vocabulary
    token_file: Path
    durations: Stated[tuple[int, ...]] | None = None
    mel_bins: tuple[Stated[int], ...] = ()
    subsampling_factor: Stated[int] | None = None
    sample_rate: Stated[int] | None = None
    normalize: Stated[Any] | None = None


@dataclass(frozen=True)
class FeatureSettings:
    """The features an encoder takes.

    Attributes
    ----------
    mel_bins:
        Width of a feature frame; None if neither the encoder nor the bundle tells.
    subsampling_factor:
        Feature frames (10 ms each) per encoder frame.
    normalize:
        ``"per_feature"`` or None.
    max_frames:
        Encoder frames that the encoder's position table allows; None if unknown.
    fixed_input_frames:
        The number of feature frames the encoder was exported for; None if it takes any number.
    """

    mel_bins: int | None = None
    subsampling_factor: int = 8
    normalize: str | None = "per_feature"
    sample_rate: int = 16000
    max_frames: int | None = None
    fixed_input_frames: int | None = None


@dataclass(frozen=True, eq=False)
class Bundle:
    """A model directory, read and checked. It is pickled as where it is: whoever unpickles it reads the directory.

    Attributes
    ----------
    directory:
        The directory, links resolved.
    layout:
        ``"split"``, ``"combined"`` or ``"genai"``.
    variant:
        Which files were chosen; None for those without a suffix.
    spec:
        The joint row's layout and the encoder's width.
    vocabulary:
        The pieces by id.
    encoder:
        The encoder's file; None if the directory has none of this variant.
    features:
        What the encoder takes.
    transducer:
        The predictor and joint graphs, ready for any batch size.
    """

    directory: Path
    layout: str
    variant: str | None
    spec: TransducerSpec
    vocabulary: Vocabulary
    encoder: Path | None
    features: FeatureSettings
    transducer: SplitTransducer | CombinedTransducer

    @property
    def frame_seconds(self) -> float:
        """Length of an encoder frame in seconds."""
        return self.features.subsampling_factor * FEATURE_FRAME_SECONDS
