"""Which of a directory's files are taken: those without a suffix, those of the variant asked for, the only ones."""

from __future__ import annotations

import logging

import pytest

import tdtdecode as tdt
from tdtdecode.bundle import read_bundle
from tdtdecode.prepare.inspection import inspect
from tests.bundle.helpers import small_bundle

NAMES = {"split": ("encoder", "decoder", "joiner"), "combined": ("encoder-model", "decoder_joint-model")}
SUFFIXES = [".int8", "-int8", "_fp16", ".quantized", "-q4f16", ".w4.fp16", ".w2a8", ".opt", "_uint8", "-quant"]


def bundle_with(tmp_path, layout, suffix, roles=None):
    """A bundle whose graphs have a suffix: all, or those named."""
    directory = small_bundle(tmp_path, layout, mel_bins=80)
    for name in roles or NAMES[layout]:
        (directory / f"{name}.onnx").rename(directory / f"{name}{suffix}.onnx")
    return directory


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("layout", NAMES)
def test_the_only_variant_is_taken_and_said(tmp_path, caplog, layout, suffix):
    directory = bundle_with(tmp_path, layout, suffix)
    with caplog.at_level(logging.INFO, "tdtdecode"):
        bundle = read_bundle(directory)
    assert (bundle.layout, bundle.variant, bundle.encoder.name) == (
        layout, suffix[1:], f"{NAMES[layout][0]}{suffix}.onnx")  # fmt: skip
    (message,) = (record.getMessage() for record in caplog.records if record.name.startswith("tdtdecode"))
    assert all(f"{name}{suffix}.onnx" in message for name in NAMES[layout])
    assert read_bundle(directory, variant=suffix[1:]).encoder == bundle.encoder
    assert inspect(directory).variant == suffix[1:]


@pytest.mark.parametrize("layout", NAMES)
def test_without_a_suffix_comes_first_and_nothing_is_said(tmp_path, caplog, layout):
    directory = bundle_with(tmp_path, layout, ".int8")
    small_bundle(tmp_path, layout, mel_bins=80)
    with caplog.at_level(logging.INFO, "tdtdecode"):
        assert read_bundle(directory).variant is None
    assert not caplog.records


def test_an_encoder_that_alone_is_quantised(tmp_path):
    directory = bundle_with(tmp_path, "split", ".int8", ["encoder"])
    for variant in (None, "int8"):
        bundle = read_bundle(directory, variant=variant)
        assert bundle.encoder.name == "encoder.int8.onnx"
        assert [graph.file.name for graph in bundle.transducer.graphs] == ["decoder.onnx", "joiner.onnx"]


def test_predictors_that_stayed_float32_beside_two_encoders(tmp_path):
    directory = bundle_with(tmp_path, "combined", ".int8", ["encoder-model"])
    small_bundle(tmp_path, "combined", mel_bins=80)
    assert read_bundle(directory).encoder.name == "encoder-model.onnx"
    assert read_bundle(directory, variant="int8").encoder.name == "encoder-model.int8.onnx"


def test_several_variants_are_named(tmp_path):
    directory = bundle_with(tmp_path, "combined", ".int8")
    small_bundle(tmp_path, "combined", mel_bins=80)
    bundle_with(tmp_path, "combined", ".fp16")
    with pytest.raises(tdt.BundleError, match=r"int8.onnx \(variant 'int8'\).*--variant") as caught:
        read_bundle(directory)
    assert "decoder_joint-model.fp16.onnx (variant 'fp16')" in str(caught.value)
    assert read_bundle(directory, variant="fp16").variant == "fp16"


def test_the_variant_that_predictor_and_joint_share(tmp_path):
    """A second predictor alone is no second variant."""
    directory = bundle_with(tmp_path, "split", ".int8")
    (directory / "decoder.fp16.onnx").write_bytes(b"not asked for")
    assert read_bundle(directory).variant == "int8"


def test_a_variant_that_no_graph_has(tmp_path):
    directory = small_bundle(tmp_path, "split", mel_bins=80)
    with pytest.raises(tdt.BundleError, match=r"no 'decoder.int4.onnx'.*decoder.onnx \(variant None\)"):
        read_bundle(directory, variant="int4")


def test_names_of_other_layouts_are_no_variants(tmp_path):
    """`decoder_joint-model.onnx` is no variant of `decoder.onnx`, nor `encoder-model.int8.onnx` of `encoder.onnx`."""
    directory = bundle_with(tmp_path, "combined", ".int8")
    with pytest.raises(tdt.BundleError, match="look like layout 'combined'"):
        read_bundle(directory, layout="split")
    assert read_bundle(directory).layout == "combined"


@pytest.mark.parametrize("variant", ["../int8", "int8/", "", ".int8", "int8.", "a..b"])
def test_what_is_no_suffix(tmp_path, variant):
    with pytest.raises(tdt.InputError, match="variant must be a suffix"):
        read_bundle(small_bundle(tmp_path), variant=variant)
