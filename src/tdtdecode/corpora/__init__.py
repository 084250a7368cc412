"""Recordings by the thousand: lists of them in, lists of results out."""

from .kinds import Entry
from .manifests import Manifest, read_manifest
from .results import Results
from .transcription import Fields, transcribed

__all__ = ["Entry", "Fields", "Manifest", "Results", "read_manifest", "transcribed"]
