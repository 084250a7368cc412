"""Which entry is the blank: the embedding's rows and its row of zeros decide, not what a token file calls it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import tdtdecode as tdt
from tdtdecode.bundle import read_bundle
from tdtdecode.prepare import convert, inspect, repair
from tests.bundle.helpers import configure, edit, rewrite, set_metadata, small_bundle

TOKENS = {"split": "tokens.txt", "combined": "vocab.txt"}
PRECISIONS = ["fp32", "fp16", "int8"]


def renumbered(symbols):
    return [f"{symbol} {i}" for i, symbol in enumerate(symbols)]


def with_symbols(directory, layout, change):
    """Change the symbols of a token file; ids follow."""
    rewrite(directory / TOKENS[layout], lambda lines: renumbered(change([line.rsplit(" ", 1)[0] for line in lines])))
    return directory


def codes(directory, **options):
    return [problem.code for problem in inspect(directory, **options).problems]


@pytest.fixture(params=TOKENS)
def layout(request):
    return request.param


@pytest.mark.parametrize("name", ["<pad>", "<eps>", "[PAD]", "<b>", "<BLK>", "\u2205", "_", "<|nospeech|>"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_last_of_as_many_as_the_embedding_has_is_the_blank(tmp_path, layout, precision, name):
    directory = small_bundle(tmp_path / "a", layout, precision=precision, mel_bins=80)
    right = read_bundle(directory)
    with_symbols(directory, layout, lambda symbols: [*symbols[:-1], name])
    bundle = read_bundle(directory)
    assert bundle.spec == right.spec and bundle.vocabulary.pieces == (*right.vocabulary.pieces[:-1], name)
    assert codes(directory) == []
    other = next(other for other in TOKENS if other != layout)
    converted = convert(directory, tmp_path / "b", other)
    assert converted.vocabulary == right.vocabulary  # other systems look for the name


@pytest.mark.parametrize("name", ["<pad>", "<eps>"])
def test_repair_names_the_blank_and_appends_none(tmp_path, layout, name):
    directory = small_bundle(tmp_path / "a", layout, mel_bins=80)
    right = (directory / TOKENS[layout]).read_text()
    with_symbols(directory, layout, lambda symbols: [*symbols[:-1], name])
    result = repair(directory, tmp_path / "b")
    assert not result.problems and (tmp_path / "b" / TOKENS[layout]).read_text() == right


@pytest.mark.parametrize("change", [
    lambda symbols: [*symbols[:-1], "<s>", "<blk>"],
    lambda symbols: [*symbols, "<pad>"],
    lambda symbols: ["<s>", *symbols],
    lambda symbols: [*symbols[:-1], "<s>", "</s>", "<pad>", "<blk>"],
], ids=["before the blank", "after it", "in front", "three"])  # fmt: skip
def test_too_many_entries_are_counted(tmp_path, layout, change):
    directory = with_symbols(small_bundle(tmp_path, layout, mel_bins=80), layout, change)
    count = len((directory / TOKENS[layout]).read_text().splitlines())
    with pytest.raises(tdt.BundleError, match=rf"has {count} entries.* has 13 rows: {count - 13} too many") as caught:
        read_bundle(directory)
    assert caught.value.file.endswith(TOKENS[layout])
    assert "tokens-count" in codes(directory)


def test_too_few_entries_are_counted(tmp_path, layout):
    directory = with_symbols(small_bundle(tmp_path, layout, mel_bins=80), layout, lambda symbols: symbols[1:])
    with pytest.raises(tdt.BundleError, match="has 12 entries.* has 13 rows: the file is incomplete"):
        read_bundle(directory)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("blank", "moved"), [
    ("last", lambda symbols: [symbols[-1], *symbols[:-1]]),
    ("first", lambda symbols: [*symbols[1:], symbols[0]]),
], ids=["to the front", "to the end"])  # fmt: skip
def test_a_blank_elsewhere_than_the_graph_s_is_reported_and_mended(tmp_path, layout, precision, blank, moved):
    directory = small_bundle(tmp_path / "a", layout, precision=precision, blank=blank, mel_bins=80)
    right = read_bundle(directory)
    right_text = (directory / TOKENS[layout]).read_text()
    with_symbols(directory, layout, moved)
    with pytest.raises(tdt.BundleError, match=rf"row of zeros.* is {right.spec.blank} .*shifted by one") as caught:
        read_bundle(directory)
    assert caught.value.file.endswith(TOKENS[layout])
    assert codes(directory) == ["blank-place"]
    repair(directory, tmp_path / "b")
    assert (tmp_path / "b" / TOKENS[layout]).read_text() == right_text


def test_a_blank_in_the_middle_where_the_graph_has_it(tmp_path, layout):
    """No known model has one, but what the graph says is followed."""
    directory = small_bundle(tmp_path, layout, mel_bins=80)

    def swap(model):
        tensor = next(t for t in model.graph.initializer if list(t.dims) == [13, 8])
        values = numpy_helper.to_array(tensor).copy()
        values[[5, 12]] = values[[12, 5]]
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    edit(directory / ("decoder.onnx" if layout == "split" else "decoder_joint-model.onnx"), swap)
    with_symbols(directory, layout, lambda symbols: [*symbols[:5], "<blk>", *symbols[6:-1], symbols[5]])
    assert read_bundle(directory).spec.blank == 5


@pytest.mark.parametrize("zeros", [(), (3, 12)], ids=["no row of zeros", "two rows of zeros"])
def test_names_decide_where_the_embedding_does_not(tmp_path, layout, zeros):
    directory = small_bundle(tmp_path, layout, mel_bins=80)

    def fill(model):
        tensor = next(t for t in model.graph.initializer if list(t.dims) == [13, 8])
        values = np.ones((13, 8), np.float32)
        values[list(zeros)] = 0
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    edit(directory / ("decoder.onnx" if layout == "split" else "decoder_joint-model.onnx"), fill)
    assert read_bundle(directory).spec.blank == 12
    with_symbols(directory, layout, lambda symbols: [symbols[-1], *symbols[:-1]])
    assert read_bundle(directory).spec.blank == 0
    with_symbols(directory, layout, lambda symbols: [*symbols[1:], "<pad>"])
    assert read_bundle(directory).spec.blank == 12
    with_symbols(directory, layout, lambda symbols: [*symbols[:4], "<blk>", *symbols[5:]])
    with pytest.raises(tdt.BundleError, match="first .0. or last"):
        read_bundle(directory)


def hide_the_embedding(model):
    """The table is made by a sum, so that none is found where the tokens look it up."""
    tensor = next(t for t in model.graph.initializer if list(t.dims) == [13, 8])
    name, tensor.name = tensor.name, "half"
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 8), np.float32), "other_half"))
    model.graph.node.insert(0, onnx.helper.make_node("Add", ["half", "other_half"], [name]))


@pytest.mark.parametrize(("durations", "stated"), [((), False), ((0, 1, 2, 3, 4), True), ((0, 1, 2, 3, 4), False)])
def test_the_joint_s_width_decides_where_there_is_no_table(tmp_path, layout, durations, stated):
    directory = small_bundle(tmp_path, layout, durations=durations, mel_bins=80)
    edit(directory / ("decoder.onnx" if layout == "split" else "decoder_joint-model.onnx"), hide_the_embedding)
    assert read_bundle(directory).spec.blank == 12
    with_symbols(directory, layout, lambda symbols: [*symbols[:-1], "<pad>"])
    if stated or not durations:
        assert read_bundle(directory, durations=durations or None).spec.blank == 12
    else:
        with pytest.raises(tdt.BundleError, match="no blank"):
            read_bundle(directory)


@pytest.mark.parametrize("blank", ["first", "last"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_sound_neighbours(tmp_path, layout, precision, blank):
    directory = small_bundle(tmp_path, layout, precision=precision, blank=blank, mel_bins=80)
    assert read_bundle(directory).spec.blank == (0 if blank == "first" else 12)
    assert codes(directory) == []


def test_genai_s_blank_is_checked_too(tmp_path):
    directory = small_bundle(tmp_path / "a", "genai", mel_bins=80)
    rewrite(directory / "vocab.txt", lambda lines: [line for line in lines if line != "<blank>"])
    configure(directory / "genai_config.json", lambda data: data["model"].update(blank_id=0))
    with pytest.raises(tdt.BundleError, match="blank_id: the blank has id 0, but .* is 12"):
        read_bundle(directory)
    assert "blank-place" in codes(directory)


def test_a_bundle_of_sherpa_onnx_with_a_repeated_pad(tmp_path):
    """RNN-T, whose joint has as many outputs as there are entries."""
    directory = small_bundle(tmp_path, "split", durations=(), mel_bins=80)
    with_symbols(directory, "split", lambda symbols: [*symbols[:-1], "<pad>"])
    bundle = read_bundle(directory)
    assert (bundle.spec.blank, bundle.spec.durations) == (12, ())
    set_metadata(directory / "encoder.onnx", vocab_size="13")
    assert codes(directory) == ["vocab-size"]
    assert onnx.load(directory / "joiner.onnx").graph.output[0].type.tensor_type.shape.dim[-1].dim_value == 13
