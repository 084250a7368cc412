"""Model files: what `pack` writes, the package and the C library read alike, and both refuse what is wrong."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import tdtdecode as tdt
from tdtdecode.bundle.description import FeatureSettings
from tdtdecode.bundle.packed import fingerprint, model_file, packed_file, read_packed
from tdtdecode.cli import main
from tdtdecode.fusion.automaton import Automaton
from tdtdecode.prepare import pack
from tests import demo, k2_models
from tests.capi.library import CError, Model, as_search
from tests.capi.models import KINDS, NEWER, Kind, random_vocabulary, weights_of
from tests.conftest import GOLDEN
from tests.decoding.compare import check_same_hypotheses


@pytest.fixture(scope="module")
def content() -> bytes:
    return content_of(KINDS[0])


def content_of(kind: Kind) -> bytes:
    weights, spec = weights_of(kind, 0)
    assert spec.blank is not None
    return b"".join(model_file(weights, spec, random_vocabulary(spec.vocab_size, spec.blank), FeatureSettings()))


def parts(content: bytes) -> tuple[dict, bytes]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header: dict | bytes, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def refused(content: bytes, path, match: str) -> None:
    """Assert that both readers refuse a file, and say why."""
    path.write_bytes(content)
    with pytest.raises(tdt.BundleError, match=match) as error:
        read_packed(path)
    assert str(path) in str(error.value)
    with pytest.raises(CError, match=match) as c_error:
        Model(path)
    assert c_error.value.args[0] == 2 and str(path) in c_error.value.args[1]


class TestPack:
    def test_demo_model(self, tmp_path):
        """The same results as from the directory, bit for bit."""
        packed = pack(demo.DIRECTORY, tmp_path / "model.tdt")
        directory = tdt.Decoder.from_bundle(demo.DIRECTORY)
        decoder = tdt.Decoder.from_bundle(packed.path)
        assert (decoder.spec, decoder.vocabulary) == (directory.spec, directory.vocabulary)
        assert packed.features == tdt.load_model("demo").bundle.features
        frames = np.random.default_rng(0).standard_normal((3, 128, 40)).astype(np.float32)
        for search in (tdt.Greedy(), tdt.Beam()):
            check_same_hypotheses(directory.decode(frames, search=search), decoder.decode(frames, search=search))
        again = pickle.loads(pickle.dumps(decoder))
        check_same_hypotheses(again.decode(frames), decoder.decode(frames))
        assert "one file" in repr(decoder) and "256 tokens" in repr(packed)

    def test_multi_blank_model(self, tmp_path):
        """NeMo's results, through the file."""
        directory = GOLDEN.parent / "golden_streaming" / "multiblank-248"
        nemo = json.loads((directory / "nemo.json").read_text())
        for name in ("decoder.onnx", "joiner.onnx", "tokens.txt"):
            shutil.copy(directory / name, tmp_path)
        packed = pack(tmp_path, tmp_path / "model.tdt", big_blanks=nemo["big_blank_durations"])
        assert list(packed.spec.big_blanks) == nemo["big_blank_durations"]
        arrays = np.load(directory / "encoder_out.npz")
        frames, lengths = arrays["encoder_out"].astype(np.float32), arrays["lengths"]
        found = tdt.Decoder.from_bundle(packed.path).decode(frames, lengths)
        check_same_hypotheses(found, Model(packed.path).decode(frames, lengths))
        for row, expected in zip(nemo["rows_decoded"], nemo["greedy"]["max_symbols=10"], strict=True):
            assert found[row].tokens.tolist() == expected["tokens"]
            assert found[row].frames.tolist() == expected["frames"]

    @pytest.mark.parametrize("context", [1, 2, 3])
    def test_model_of_k2(self, context, tmp_path):
        """The results of the directory."""
        directory = k2_models.write_model(tmp_path / "k2", k2_models.Sizes(context=context))
        packed = pack(directory, tmp_path / "model.tdt")
        decoder = tdt.Decoder.from_bundle(directory, network="fused")
        assert packed.spec == decoder.spec and packed.weights.cells == context - 1
        frames = np.random.default_rng(0).standard_normal((3, decoder.spec.encoder_size, 40)).astype(np.float32)
        for search in (tdt.Greedy(), tdt.Beam()):
            expected = decoder.decode(frames, search=search)
            assert sum(map(len, expected)) > 10
            check_same_hypotheses(expected, tdt.Decoder.from_bundle(packed.path).decode(frames, search=search))
            check_same_hypotheses(expected, Model(packed.path).decode(frames, search=as_search(search)))

    def test_without_onnx(self, tmp_path):
        """Neither onnx nor onnxruntime is imported."""
        pack(demo.DIRECTORY, tmp_path / "model.tdt")
        code = (
            "import sys, numpy as np; sys.modules['onnx'] = sys.modules['onnxruntime'] = None; import tdtdecode as tdt;"
            "d = tdt.Decoder.from_bundle(sys.argv[1]); print(len(d.decode(np.zeros((2, 128, 9), np.float32))))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "model.tdt")], capture_output=True, text=True, check=True
        )
        assert done.stdout == "2\n"

    @pytest.mark.parametrize("kind", [*KINDS, *NEWER], ids=str)
    def test_weights_are_exact(self, kind, tmp_path):
        weights, spec = weights_of(kind, 1)
        assert spec.blank is not None
        vocabulary = random_vocabulary(spec.vocab_size, spec.blank)
        features = FeatureSettings(mel_bins=80, normalize=None, sample_rate=8000, max_frames=77, family="gigaam")
        (tmp_path / "model.tdt").write_bytes(b"".join(model_file(weights, spec, vocabulary, features)))
        packed = read_packed(tmp_path / "model.tdt")
        assert (packed.spec, packed.vocabulary, packed.features) == (spec, vocabulary, features)
        assert packed.weights.activation == weights.activation
        for a, b in zip(_arrays(weights), _arrays(packed.weights), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        model = Model(tmp_path / "model.tdt")
        info = model.info
        assert (info.mel_bins, info.normalize, info.sample_rate, info.features) == (80, b"", 8000, b"gigaam")
        assert tuple(info.durations[: info.duration_count]) == spec.durations
        assert tuple(info.big_blanks[: info.big_blank_count]) == spec.big_blanks
        assert info.max_symbols == (spec.max_symbols or 0)
        header, _ = parts((tmp_path / "model.tdt").read_bytes())
        assert header["__metadata__"]["format_version"] == ("2" if kind in NEWER else "1")

    def test_any_reader_of_safetensors_reads_it(self, content):
        """By the format's description alone: tensors lie at their offsets, aligned, without holes."""
        header, data = parts(content)
        assert (len(content) - len(data)) % 64 == 0
        end = 0
        for entry in [entry for name, entry in header.items() if name != "__metadata__"]:
            first, last = entry["data_offsets"]
            size = {"F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I64": 8}[entry["dtype"]]
            assert first == end and first % size == 0 and last - first == size * np.prod(entry["shape"], dtype=int)
            end = last
        assert end == len(data)

    def test_command(self, tmp_path, capsys):
        assert main(["pack", "demo", "-o", str(tmp_path / "model.tdt")]) == 0
        assert "256 tokens" in capsys.readouterr().out
        arpa = tmp_path / "lm.arpa"
        pieces = [piece for piece in demo.pieces()[:-1]]
        lines = ["\\data\\", f"ngram 1={len(pieces)}", "", "\\1-grams:", *(f"-2 {p}" for p in pieces), "", "\\end\\"]
        arpa.write_text("\n".join(lines), encoding="utf-8")
        for model in ("demo", str(tmp_path / "model.tdt")):
            assert main(["pack", model, "--ngram", str(arpa), "-o", str(tmp_path / "lm.tdt")]) == 0
            assert Model(tmp_path / "model.tdt").ngram(tmp_path / "lm.tdt").pointer

    def test_given_files_are_not_written_over(self, tmp_path):
        directory = demo.write_demo(tmp_path / "model", "split")
        with pytest.raises(tdt.InputError, match="written over"):
            pack(directory, directory / "joiner.onnx")

    def test_options_of_directories(self, content, tmp_path):
        (tmp_path / "model.tdt").write_bytes(content)
        for options, match in (
            ({"layout": "split"}, "model directories"), ({"durations": [0, 1]}, "model directories"),
            ({"network": "ort"}, "has no graphs"), ({"providers": ["CPUExecutionProvider"]}, "has no graphs"),
        ):  # fmt: skip
            with pytest.raises(tdt.InputError, match=match):
                tdt.Decoder.from_bundle(tmp_path / "model.tdt", **options)


class TestHostileFiles:
    @pytest.mark.parametrize(
        "content, match",
        [
            (b"", "model file"),
            (b"\x02\0\0\0\0\0\0", "model file"),
            (b"\xff" * 64, "model file"),
            (b"not a model file, but some text", "model file"),
            (b"\x40\0\0\0\0\0\0\0{}", "model file"),
            (joined(b"{}x", b""), "JSON"),
            (joined(b"{" + b'"a":[' * 3000 + b"]" * 3000 + b"}", b""), "."),
            (joined(b'{"a":1,"a":2}', b""), "twice"),
            (joined({}, b""), "metadata 'format'"),
            (joined({}, b"x"), "another length"),
            (joined({"a": []}, b""), "'a'"),
            (joined({"__metadata__": {"a\0": "b"}}, b""), "zero character"),  # found by tools/fuzz_model_files.py
            (joined({"__metadata__": {"a": "\ud800"}}, b""), "half of a surrogate pair"),  # found by it too
        ],
    )
    def test_no_model_files(self, content, match, tmp_path):
        refused(content, tmp_path / "model.tdt", match)

    @pytest.mark.parametrize(
        "name, field, value, match",
        [
            ("__metadata__", "format", "other", "'format'"),
            ("__metadata__", "format_version", "3", "'format_version'"),
            ("__metadata__", "format_version", "2", "'big_blanks'"),
            ("__metadata__", "kind", "ngram", "'kind'"),
            ("__metadata__", "blank", "31", "'blank'"),
            ("__metadata__", "blank", "-1", "'blank'"),
            ("__metadata__", "blank", "1" * 30, "'blank'"),
            ("__metadata__", "layers", "2", "layers.1.input"),
            ("__metadata__", "layers", "65", "'layers'"),
            ("__metadata__", "activation", "gelu", "'activation'"),
            ("__metadata__", "sample_rate", "0", "'sample_rate'"),
            ("__metadata__", "vocabulary", "[1, 2]", "'vocabulary'"),
            ("__metadata__", "vocabulary", "[", "'vocabulary'"),
            ("__metadata__", "vocabulary", '["a", "b"]', "'blank'"),
            ("__metadata__", "vocabulary", '["a", "\\ud800"]', "'vocabulary'"),
            ("__metadata__", "vocabulary", '["a", "\\u0000"]', "'vocabulary'"),
            ("embedding", "dtype", "F64", "'embedding'"),
            ("embedding", "dtype", "I32", "'embedding'"),
            ("embedding", "dtype", "F16", "'embedding'"),
            ("embedding", "shape", [31, 21], "'embedding'"),
            ("embedding", "shape", [-31, -20], "'embedding'"),
            ("embedding", "shape", [2**40, 2**40], "'embedding'"),
            ("embedding", "shape", [1] * 9, "'embedding'"),
            ("embedding", "shape", [620], "'embedding'"),
            ("embedding", "shape", "all", "'embedding'"),
            ("embedding", "data_offsets", [0], "'embedding'"),
            ("embedding", "data_offsets", [2**62, 2**62 + 2480], "'embedding'"),
            ("embedding", "data_offsets", [8, 4], "'embedding'"),
            ("durations", "dtype", "F32", "'durations'"),
            ("output.weight", "shape", [24, 36], "'output.weight'"),
        ],
    )
    def test_wrong_fields(self, content, name, field, value, match, tmp_path):
        header, data = parts(content)
        header[name][field] = value
        refused(joined(header, data), tmp_path / "model.tdt", match)

    @pytest.mark.parametrize(
        "kind, name, field, value, match",
        [
            (NEWER[3], "__metadata__", "earlier", "4", "earlier.3"),
            (NEWER[3], "__metadata__", "earlier", "65", "'earlier'"),
            (NEWER[3], "__metadata__", "max_symbols", "2147483648", "'max_symbols'"),
            (NEWER[3], "__metadata__", "max_symbols", "-1", "'max_symbols'"),
            (NEWER[3], "earlier.1", "shape", [17, 31], "'earlier.1'"),
            (NEWER[5], "__metadata__", "earlier", "1", "'earlier'"),
            (NEWER[0], "__metadata__", "blank", "3", "'big_blanks'"),
            (NEWER[0], "big_blanks", "dtype", "F32", "'big_blanks'"),
        ],
    )
    def test_wrong_fields_of_version_2(self, kind, name, field, value, match, tmp_path):
        header, data = parts(content_of(kind))
        header[name][field] = value
        refused(joined(header, data), tmp_path / "model.tdt", match)

    def test_predictors_of_the_wrong_width(self, tmp_path):
        """Without layers, the prediction product takes the embedding itself."""
        weights, spec = weights_of(KINDS[3], 0)
        assert spec.blank is not None
        wide = replace(weights, embedding=np.tile(weights.embedding, (1, 2)))
        vocabulary = random_vocabulary(spec.vocab_size, spec.blank)
        content = b"".join(model_file(wide, spec, vocabulary, FeatureSettings()))
        refused(content, tmp_path / "model.tdt", "takes 24 numbers, but the predictor gives 48")

    def test_big_blanks_that_are_no_frames(self, tmp_path):
        header, data = parts(content_of(NEWER[0]))
        first, last = header["big_blanks"]["data_offsets"]
        for frames in ([0, 4, 8], [2, -1, 8], [2, 4, 2**20 + 1]):
            changed = data[:first] + np.array(frames, "<i4").tobytes() + data[last:]
            refused(joined(header, changed), tmp_path / "model.tdt", "'big_blanks'")

    def test_missing_and_moved_tensors(self, content, tmp_path):
        header, data = parts(content)
        refused(joined({k: v for k, v in header.items() if k != "encoder.bias"}, data), tmp_path / "a.tdt", ".")
        refused(joined(header, data[:-4]), tmp_path / "b.tdt", ".")
        refused(joined(header, data + b"\0"), tmp_path / "c.tdt", "another length")
        moved = header | {"encoder.bias": header["prediction.bias"]}
        refused(joined(moved, data), tmp_path / "d.tdt", "overlap|hole")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2e30])
    def test_weights_that_are_no_weights(self, value, tmp_path):
        weights, spec = weights_of(KINDS[0], 0)
        assert spec.blank is not None
        vocabulary = random_vocabulary(spec.vocab_size, spec.blank)
        for part in ("embedding", "encoder"):
            array = (weights.embedding if part == "embedding" else weights.encoder.weight).copy()
            array[1, 2] = value
            changed = array if part == "embedding" else replace(weights.encoder, weight=array)
            content = b"".join(model_file(replace(weights, **{part: changed}), spec, vocabulary, FeatureSettings()))
            refused(content, tmp_path / "model.tdt", part)

    def test_sums_that_overflow(self, tmp_path):
        weights, spec = weights_of(KINDS[0], 0)
        assert spec.blank is not None
        huge = replace(weights.encoder, weight=weights.encoder.weight * np.float32(1e29))
        output = replace(weights.output, weight=weights.output.weight * np.float32(1e29))
        vocabulary = random_vocabulary(spec.vocab_size, spec.blank)
        content = model_file(replace(weights, encoder=huge, output=output), spec, vocabulary, FeatureSettings())
        refused(b"".join(content), tmp_path / "model.tdt", "overflow")

    def test_unreadable_files(self, tmp_path):
        for path in (tmp_path / "nothing.tdt", tmp_path):
            with pytest.raises(CError, match="cannot be"):
                Model(path)
            with pytest.raises(tdt.BundleError, match="cannot be read"):
                read_packed(path)

    @pytest.mark.parametrize(
        "name, change",
        [
            ("first_arc", lambda a: a[::-1]), ("first_arc", lambda a: a + 1), ("arc_token", lambda a: a + 10**6),
            ("arc_token", lambda a: a * 0), ("arc_target", lambda a: a - 1),
            ("backoff_state", lambda a: np.array([1, 0])), ("backoff_state", lambda a: a + 2),
            ("backoff_weight", lambda a: a * np.nan), ("final_weight", lambda a: a + np.inf),
            ("arc_weight", lambda a: a * np.nan),
        ],
    )  # fmt: skip
    def test_language_models(self, content, name, change):
        model = Model(content)
        vocabulary = random_vocabulary(KINDS[0].vocab_size, KINDS[0].vocab_size)
        tensors = {
            "first_arc": np.array([0, 2, 3]), "arc_token": np.array([1, 5, 2], np.int32),
            "arc_weight": np.array([-1, -2, -3], np.float32), "arc_target": np.array([0, 1, 0], np.int32),
            "backoff_state": np.zeros(2, np.int32), "backoff_weight": np.array([0, -1], np.float32),
            "final_weight": np.zeros(2, np.float32),
        }  # fmt: skip
        metadata = {"kind": "ngram", "vocabulary": fingerprint(vocabulary.pieces), "start": "0"}
        assert model.ngram(b"".join(packed_file(metadata, tensors))).pointer
        with np.errstate(invalid="ignore"):
            tensors[name] = change(tensors[name]).astype(tensors[name].dtype)
        with pytest.raises(CError, match=name):
            model.ngram(b"".join(packed_file(metadata, tensors)))
        if "weight" not in name:
            with pytest.raises(ValueError, match="automaton"):
                Automaton(**tensors, start=np.zeros(1, np.int32)).check(len(vocabulary))


def _arrays(weights) -> list[np.ndarray]:
    found = [weights.embedding, *weights.earlier]
    for layer in weights.layers:
        found += [layer.input, layer.recurrent, layer.bias]
    for affine in (weights.prediction, weights.encoder, weights.output):
        found += [affine.weight, affine.bias]
    return found
