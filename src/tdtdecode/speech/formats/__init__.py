"""Transcripts as text: one file for each format, and the table of them.

To add a format, write a file here that ends with its ``FORMAT``, and give it a line in the table.
"""

from . import ctm, json, srt, tsv, txt, vtt
from .format import Format
from .options import CueOptions

FORMATS: dict[str, Format] = {
    "txt": txt.FORMAT,
    "json": json.FORMAT,
    "srt": srt.FORMAT,
    "vtt": vtt.FORMAT,
    "tsv": tsv.FORMAT,
    "ctm": ctm.FORMAT,
}
"""Name -> format. The name is also the suffix of the format's files, and a choice of ``--format``."""

__all__ = ["FORMATS", "CueOptions", "Format"]
