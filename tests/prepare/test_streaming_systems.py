"""`inspect` says which systems can use a streaming model: its answers, and what the systems really do."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tdtdecode.prepare import convert
from tests import conventions
from tests.bundle.helpers import edit
from tests.conventions import LAYERS_FIRST, TIME_FIRST, edited, fixed, for_one_stream, in_float16, metadata, rename
from tests.prepare.test_systems import Row, check_agreement, genai, without

pytestmark = [
    pytest.mark.filterwarnings("ignore::tdtdecode.errors.SlowerWarning"),
    pytest.mark.skipif(sys.platform == "win32", reason="systems are tried in forked processes"),
]


def encoder(*edits: conventions.Edit) -> Callable[[Path], None]:
    return lambda directory: [edit(directory / "encoder.onnx", one) for one in edits] and None


def row(*edits: conventions.Edit, **options) -> Row:
    """A model with another encoder, which says what the sound one says."""
    return Row("split", encoder(*edits), kind="online", **({"copy": "rnnt-8-1"} | options))


FIELDS = [
    "vocab_size", "window_size", "chunk_shift", "chunk_size_ms", "normalize_type", "cache_last_channel_dim1",
    "cache_last_channel_dim3", "cache_last_time_dim2", "pred_rnn_layers", "pred_hidden", "subsampling_factor",
    "feat_dim", "model_type", "url",
]  # fmt: skip
STATIC = {"*": {0: 1}, "audio_signal": {2: 25}, "cache_last_channel": {2: 8}, "cache_last_time": {3: 8}}
SHERPA = {
    "sound": row(like=None),
    **{f"no {name}": row(metadata(**{name: None})) for name in FIELDS},
    "window_size of another model": row(metadata(window_size="33")),
    "chunk_shift of another model": row(metadata(chunk_shift="8")),
    "layers of another model": row(metadata(cache_last_channel_dim1="2")),
    "context of another model": row(metadata(cache_last_channel_dim2="16")),
    "width of another model": row(metadata(cache_last_channel_dim3="12")),
    "kernel of another model": row(metadata(cache_last_time_dim3="4")),
    "subsampling of another model": row(metadata(subsampling_factor="4")),
    "normalize_type NA": row(metadata(normalize_type="NA")),
    "vocab_size of another model": row(metadata(vocab_size="99")),
    "pred_hidden of another model": row(metadata(pred_hidden="99")),
    "a url with tdt": row(metadata(url="https://example.org/tdt")),
    "layers first": row(LAYERS_FIRST),
    "time first": row(TIME_FIRST),
    "parakeet-rs's names": row(rename({"audio_signal": "processed_signal", "outputs": "encoded"})),
    "every size fixed": row(fixed(STATIC)),
    "a batch of one": row(for_one_stream),
    "float16 with its ports": row(in_float16, like=None),
    "a prompt": row(copy="prompt-70-13", like=None),
    "a prompt without names": row(metadata(prompt_dictionary=None), copy="prompt-70-13", like="a prompt"),
    "a prompt without a default": row(metadata(auto_prompt_id=None), copy="prompt-70-13", like="a prompt"),
    "a prompt of another name": row(rename({"prompt_index": "lang_id"}), copy="prompt-70-13", like="a prompt"),
}  # fmt: skip


def sections(name: str, key: str) -> Callable[[Path], None]:
    return genai(lambda model: model[name].pop(key))


def ports(section: str, side: str, key: str) -> Callable[[Path], None]:
    return genai(lambda model: model[section][side].pop(key))


def genai_row(change: Callable[[Path], object] = lambda directory: None, **options) -> Row:
    return Row("genai", change, kind="online", **({"copy": "rnnt-8-1"} | options))


MODEL = [
    "type", "context_length", "blank_id", "bos_token_id", "eos_token_id", "max_symbols_per_step",
    "sample_rate", "num_mels", "fft_size", "hop_length", "win_length", "preemph", "log_eps", "subsampling_factor",
    "left_context", "conv_context", "pre_encode_cache_size", "chunk_samples", "encoder", "decoder", "joiner", "speech",
]  # fmt: skip
GENAI = {
    "sound": genai_row(like=None),
    **{f"no {name}": genai_row(genai(lambda model, name=name: model.pop(name))) for name in MODEL},
    "no hidden_size": genai_row(sections("encoder", "hidden_size")),
    "no layers": genai_row(sections("decoder", "num_hidden_layers")),
    "the name of the features": genai_row(ports("encoder", "inputs", "audio_features")),
    "the name of a cache": genai_row(ports("encoder", "inputs", "cache_last_time")),
    "the name of the tokens": genai_row(ports("decoder", "inputs", "targets")),
    "the name of the rows": genai_row(ports("joiner", "outputs", "logits")),
    "left_context of another model": genai_row(genai(lambda model: model.update(left_context=4))),
    "conv_context of another model": genai_row(genai(lambda model: model.update(conv_context=4))),
    "another overlap": genai_row(genai(lambda model: model.update(pre_encode_cache_size=5))),
    "another chunk": genai_row(genai(lambda model: model.update(chunk_samples=1280))),
    "the blank elsewhere": genai_row(genai(lambda model: model.update(blank_id=0))),
    "num_mels of another model": genai_row(genai(lambda model: model.update(num_mels=80))),
    "the end is another token": genai_row(genai(lambda model: model.update(eos_token_id=[3]))),
    "an unknown field": genai_row(genai(lambda model: model.update(mystery=1))),
    "the type of whole recordings": genai_row(genai(lambda model: model.update(type="parakeet_tdt"))),
    "layers first": genai_row(encoder(LAYERS_FIRST)),
    "mel first": genai_row(encoder(TIME_FIRST)),
    "no tokenizer.json": genai_row(without("tokenizer.json")),
    "no joint": genai_row(without("joint.onnx")),
    "no encoder": genai_row(without("encoder.onnx"), like=None),
    "a prompt": genai_row(copy="prompt-70-13", like=None),
}  # fmt: skip


def made(directory: Path, row: Row) -> Path:
    if row.layout == "split":
        edited(directory, row.copy)
    else:
        source = directory.parent / f"{row.copy}-{row.layout}"
        if not source.exists():
            convert(edited(directory.parent / row.copy, row.copy), source, row.layout)
        shutil.copytree(source, directory)
    row.change(directory)
    return directory


TABLES = {"split": SHERPA, "genai": GENAI}
ALWAYS = {
    "split": [
        "sound", "no chunk_shift", "no normalize_type", "no cache_last_time_dim2", "window_size of another model",
        "context of another model", "subsampling of another model", "layers first", "every size fixed", "a prompt",
        "a prompt of another name",
    ],
    "genai": [
        "sound", "no blank_id", "no eos_token_id", "no pre_encode_cache_size", "no hidden_size", "another chunk",
        "the name of a cache", "the name of the tokens", "layers first", "mel first", "a prompt",
    ],
}  # fmt: skip
"""What is tried in each run; the rest takes a minute."""


@pytest.mark.parametrize("layout", TABLES)
def test_inspect_agrees_with_the_systems(tmp_path, layout, record_property):
    table = {name: TABLES[layout][name] for name in ALWAYS[layout]}
    check_agreement(tmp_path, layout, table, made, record_property)


@pytest.mark.exhaustive
@pytest.mark.parametrize("layout", TABLES)
def test_inspect_agrees_in_every_row(tmp_path, layout, record_property):
    check_agreement(tmp_path, layout, TABLES[layout], made, record_property)
