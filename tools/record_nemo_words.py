"""Write tests/golden/words.json: texts and word times that NeMo makes of tokens with their frames and durations.

Run it with NeMo's wheel::

    pip download nemo_toolkit==3.0.0 --no-deps -d wheels
    python tools/record_nemo_words.py wheels/nemo_toolkit-3.0.0-py3-none-any.whl tests/golden/words.json

It needs sentencepiece and protobuf, but neither PyTorch nor NeMo's own requirements: only the functions that turn a
hypothesis into text and words are taken out of NeMo's files. They run as they stand there.
"""

from __future__ import annotations

import argparse
import ast
import copy
import itertools
import json
import random
import re
import types
import typing
import unicodedata
import zipfile
from email import message_from_bytes
from importlib.metadata import version
from pathlib import Path
from typing import Any

DECODING = "nemo/collections/asr/parts/submodules/rnnt_decoding.py"
TIMES = "nemo/collections/asr/parts/utils/timestamp_utils.py"
TOKENIZERS = "nemo/collections/asr/parts/utils/tokenizer_utils.py"

PUNCTUATED = [
    "<unk>", "▁", "▁hello", "▁he", "llo", "hello", "▁how", "how", "▁are", "▁don", "s", "t", "'t",
    ",", ".", "?", "!", "'", "’", "-", "%", "…", "—", "...", "?!",
    "▁,", "▁.", "▁'", "▁-", "▁...", "▁—",
    '"', "(", ")", "¿", "¡", "“", "”", "«", "»",
    '▁"', "▁(", "▁¿", "▁“", "▁«",
    "1", "2", "▁1", "▁20", "$", "▁$",
    "▁你好", "你", "好", "こん", "に", "ちは",
    "、", "。", "，", "？", "！", "「", "」", "▁「", "（", "）",
    "।", "؟", "▁مرحبا", "▁नम",
]  # fmt: skip
PLAIN = ["<unk>", "▁", "▁hello", "hello", "▁he", "llo", "▁how", "▁are", "s", "t"]
MARKED = ["<unk>", "▁", "▁hello", "llo", "▁how", "▁,", "▁.", "▁'"]
CHARACTERS = [" ", "a", "b", "h", "o", "'", ",", ".", "-", "?"]

VOCABULARIES = {"punctuated": PUNCTUATED, "plain": PLAIN, "marked": MARKED, "characters": CHARACTERS}
"""Name -> the pieces without blank. Characters are decoded by NeMo's class for them, all others as SentencePiece."""

SPOKEN = {
    "punctuated": [
        "▁hello , ▁how", "▁hello ▁, ▁how", "▁hello ▁ , ▁how", "▁he llo .",
        "▁hello ... ▁how", "▁hello ▁... ▁how", "▁hello ? ! ▁how", "▁hello . . . ▁how",
        "▁hello ?! ▁how", "▁hello … ▁how", "▁hello ▁— ▁how", "▁he - llo",
        "▁hello ▁- ▁how", '▁he ▁" how', '▁he ▁" hello " ▁how', "▁he ( s ) ▁how",
        "▁he ▁( how ) , ▁are", "▁he . ▁¿ how ? ▁are", "▁¿ how ?", "¿ ▁how ?",
        "▁“ hello ” , ▁he", "▁he ▁« ▁hello » .", "▁don ' t", "▁don 't",
        "▁don ’ t ▁how", "▁he ▁' s", "▁1 . 2", "▁1 , 2 ▁20 %", "▁$ 1 . 2", "▁20 ▁- 2",
        ", ▁hello", "▁, ▁hello", ". . ▁hello", "▁hello", ",", "▁", "▁ ,", "▁ ▁ , ▁how",
        "▁hello ▁ ▁, ▁how", "▁hello ▁ how", "▁ ▁hello ▁", "▁你好 。 ▁你好 ！",
        "こん に ちは 。", "こん に 、 「 ちは 」 。",
        "▁「 こん に ちは 」", "你 好 ， 你 好 ？", "你 （ 好 ）",
        "▁नम । ▁नम", "▁مرحبا ؟", "▁hello , . ▁how", "▁hello ' ▁how",
    ],
    "plain": ["▁he llo ▁how", "▁ hello", "▁hello s ▁ t", "llo ▁how"],
    "marked": ["▁hello ▁, ▁how ▁.", "▁hello ▁' ▁how", "▁, ▁how"],
    "characters": [
        "h o   a b", "h o   , a b", "h o ,   a b .", "  h o", "h o  ", "a ' b   h", "h o   - a", "h o     a ?", ", h",
        "h   . , b",
    ],
}  # fmt: skip
"""Vocabulary -> sequences of pieces, with spaces between them; for characters, each second character is one."""

RANDOM = {"punctuated": 250, "plain": 20, "marked": 30, "characters": 60}
"""Vocabulary -> how many random sequences are recorded."""


def taken(source: str, names: set[str], space: dict[str, Any]) -> dict[str, Any]:
    """Run the functions of these names, of a file or of its classes, in a namespace; returns them by ``Class.name``."""
    found: dict[str, Any] = {}
    for node in ast.parse(source).body:
        owner = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for function in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(function, ast.FunctionDef) and owner + function.name in names:
                function.decorator_list = []
                local = dict(space)
                exec(compile(ast.Module([function], []), "nemo", "exec"), space, local)
                found[owner + function.name] = local[function.name]
    return found


class NeMo:
    """NeMo's own functions, around a vocabulary."""

    def __init__(self, files: dict[str, str], pieces: list[str], characters: bool):
        space: dict[str, Any] = {
            **vars(typing), "re": re, "unicodedata": unicodedata, "copy": copy, "Hypothesis": object,
            "torch": types.SimpleNamespace(Tensor=type("Tensor", (), {})), "AggregateTokenizer": type("None", (), {}),
        }  # fmt: skip
        times = taken(files[TIMES], {"flatten_char_offsets", "get_words_offsets", "get_segment_offsets"}, space)
        space |= times
        tokenizers = taken(files[TOKENIZERS], {"extract_punctuation_from_vocab", "define_spe_tokenizer_type"}, space)
        kind = "RNNTDecoding" if characters else "RNNTBPEDecoding"
        methods = taken(files[DECODING], {
            *(f"AbstractRNNTDecoding.{name}" for name in (
                "decode_ids_to_str", "decode_tokens_to_str_with_strip_punctuation", "compute_rnnt_timestamps",
                "_compute_offsets", "_compute_offsets_tdt", "_refine_timestamps", "_refine_timestamps_tdt")),
            f"{kind}.decode_tokens_to_str", f"{kind}.decode_ids_to_tokens",
        }, space)  # fmt: skip
        self._methods = {name.partition(".")[2]: method for name, method in methods.items()}
        self._punctuation = tokenizers["extract_punctuation_from_vocab"](pieces)
        self._attributes = {
            "supported_punctuation": self._punctuation, "blank_id": len(pieces), "strip_lang_tags": False,
            "num_extra_outputs": 0, "word_seperator": " ", "segment_seperators": [".", "!", "?"],
            "segment_gap_threshold": None,
            "tokenizer_type": "char" if characters else tokenizers["define_spe_tokenizer_type"](pieces),
            "labels_map": dict(enumerate(pieces)), "tokenizer": None if characters else _Tokenizer(pieces),
            # As AbstractRNNTDecoding.__init__ makes it.
            "space_before_punct_pattern": re.compile(r"(\s)(" + "|".join(map(re.escape, self._punctuation)) + ")"),
        }  # fmt: skip

    def __call__(self, tokens: list[int], frames: list[int], durations: list[int] | None) -> dict[str, Any]:
        """The text and the words, as (text, first frame, end frame), of a TDT model, or of RNN-T without durations."""
        decoding = types.SimpleNamespace(**self._attributes)
        for name, method in self._methods.items():
            static = name.startswith(("_compute_offsets", "_refine_timestamps"))
            setattr(decoding, name, method if static else types.MethodType(method, decoding))
        if durations is not None:
            decoding._compute_offsets = decoding._compute_offsets_tdt
            decoding._refine_timestamps = decoding._refine_timestamps_tdt
        found = types.SimpleNamespace(y_sequence=list(tokens), timestamp=list(frames), token_duration=durations)
        text = decoding.decode_tokens_to_str_with_strip_punctuation(list(tokens))
        words = decoding.compute_rnnt_timestamps(found, "word").timestamp["word"]
        return {"text": text, "words": [[word["word"], word["start_offset"], word["end_offset"]] for word in words]}


class _Tokenizer:
    """What NeMo's SentencePieceTokenizer does with pieces: it asks SentencePiece."""

    def __init__(self, pieces: list[str]):
        from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

        model = sentencepiece_model_pb2.ModelProto()
        for piece in pieces:
            model.pieces.add(piece=piece, score=-1.0, type=2 if piece == "<unk>" else 1)
        self._processor = SentencePieceProcessor()
        self._processor.LoadFromSerializedProto(model.SerializeToString())

    def ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self._processor.id_to_piece(i) for i in ids]

    def tokens_to_text(self, tokens: list[str]) -> str:
        return self._processor.decode_pieces(tokens)


def cases(name: str, pieces: list[str]) -> list[dict[str, Any]]:
    """What is recorded for a vocabulary: tokens with frames and durations (TDT), or without durations (RNN-T)."""
    draw = random.Random(f"words of {name}")
    found = []
    for spoken in SPOKEN[name]:
        parts = list(spoken[::2]) if name == "characters" else spoken.split(" ")
        tokens = [pieces.index(part) for part in parts]
        # Every token lasts 2 frames, and a pause of 5 comes before each of them.
        frames = [7 * i for i in range(len(tokens))]
        found.append({"tokens": tokens, "frames": frames, "durations": [2] * len(tokens)})
        found.append({"tokens": tokens, "frames": frames})
    first = 1 if pieces[0] == "<unk>" else 0
    for _ in range(RANDOM[name]):
        tokens = [draw.randrange(first, len(pieces)) for _ in range(draw.randint(1, 9))]
        durations = [draw.choice((0, 1, 2, 3, 4)) for _ in tokens]
        pauses = [draw.choice((0, 0, 1, 9)) for _ in tokens]
        # A token of duration 0 leaves the next one at the same frame.
        steps = [duration + (pause if duration else 0) for duration, pause in zip(durations, pauses, strict=True)]
        found.append({"tokens": tokens, "frames": [0, *itertools.accumulate(steps)][:-1], "durations": durations})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nemo", type=Path, help="NeMo's wheel")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    with zipfile.ZipFile(arguments.nemo) as wheel:
        files = {name: wheel.read(name).decode() for name in (DECODING, TIMES, TOKENIZERS)}
        (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        nemo_version = message_from_bytes(wheel.read(metadata))["Version"]
    vocabularies = []
    for name, pieces in VOCABULARIES.items():
        nemo = NeMo(files, pieces, characters=name == "characters")
        recorded = [
            {**case, **nemo(case["tokens"], case["frames"], case.get("durations"))} for case in cases(name, pieces)
        ]
        vocabularies.append({"name": name, "pieces": pieces, "cases": recorded})
    document = {
        "versions": {"nemo_toolkit": nemo_version, "sentencepiece": version("sentencepiece")},
        "vocabularies": vocabularies,
    }
    lines = json.dumps(document, ensure_ascii=True, separators=(",", ":")).replace('{"tokens"', '\n{"tokens"')
    arguments.out.write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
