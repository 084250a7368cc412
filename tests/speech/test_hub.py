"""Naming a model: the demo, a directory, a hub id; and a hub snapshot's links, read from a cache without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tdtdecode.errors import InputError, MissingDependencyError
from tdtdecode.speech.hub import find_model


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from benches.random_bundle import make_bundle

    directory = make_bundle(
        tmp_path_factory.mktemp("bundle"), "combined", vocab_size=64, encoder_size=16, predictor_size=16, joint_size=16,
        mel_bins=80, external_weights=True,
    )
    (directory / "encoder-model.int8.onnx").write_bytes(b"large, and not asked for")
    (directory / "README.md").write_text("not needed")
    return directory


def hub_cache(bundle: Path, cache: Path) -> Path:
    """The cache that huggingface_hub keeps of acme/tiny: blobs by hash, snapshots that are links to them."""
    repository = cache / "models--acme--tiny"
    snapshot = repository / "snapshots" / ("0" * 40)
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    for number, file in enumerate(sorted(bundle.iterdir())):
        blob = repository / "blobs" / f"{number:040}"
        shutil.copy(file, blob)
        try:
            (snapshot / file.name).symlink_to(Path("..", "..", "blobs", blob.name))
        except OSError:
            pytest.skip("this system does not let us make links")
    return snapshot


def test_the_demo_is_in_the_package():
    assert find_model("demo").parts[-2:] == ("tdtdecode", "demo")


def test_a_directory(tmp_path):
    assert find_model(tmp_path) == tmp_path
    assert find_model(str(tmp_path)) == tmp_path


def test_a_directory_that_looks_like_a_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "acme" / "tiny").mkdir(parents=True)
    assert find_model("acme/tiny") == Path("acme/tiny")


@pytest.mark.parametrize("name", ["", "parakeet", "/no/such/directory", "../models/x", "a/b/c", "acme/ti ny", None, 3])
def test_none_of_the_three(name):
    with pytest.raises(InputError, match="'demo', an existing directory, or a Hugging Face hub id"):
        find_model(name)


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(InputError, match="directory"):
        find_model(tmp_path / "model.onnx")


def test_without_huggingface_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match=r"'acme/tiny' .*nor a dir.*huggingface_hub.*tdtdecode\[hub\]"):
        find_model("acme/tiny")


@pytest.mark.parametrize(("variant", "wanted", "unwanted"), [
    (None,
     ["encoder.onnx", "encoder.weights", "encoder.onnx.data", "encoder-model.onnx_data", "joiner.onnx", "joint.onnx",
      "decoder_joint-model.onnx", "tokens.txt", "genai_config.json"],
     ["encoder.int8.onnx", "encoder-model.int8.onnx", "README.md", "model.safetensors", "audio.wav"]),
    ("int8",
     ["encoder.int8.onnx", "encoder-model.int8.onnx", "encoder-model.int8.onnx.data", "decoder.int8.onnx", "vocab.txt"],
     ["encoder.onnx", "encoder-model.onnx", "encoder-model.fp16.onnx"]),
])
def test_only_the_files_needed(monkeypatch, tmp_path, variant, wanted, unwanted):
    utils = pytest.importorskip("huggingface_hub.utils", reason="huggingface_hub is not installed")
    asked = {}

    def snapshot_download(repo_id, allow_patterns):
        asked.update(repo_id=repo_id, patterns=allow_patterns)
        (tmp_path / "encoder.onnx").touch()
        return str(tmp_path)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    assert find_model("acme/tiny", variant) == tmp_path
    assert asked["repo_id"] == "acme/tiny"
    kept = list(utils.filter_repo_objects(wanted + unwanted, allow_patterns=asked["patterns"]))
    assert kept == wanted


def hub_of(monkeypatch, folder: Path, names: list[str]) -> list[str]:
    """Stands for a hub that has a repository of these files. Returns the names of those that will be downloaded."""
    utils = pytest.importorskip("huggingface_hub.utils", reason="huggingface_hub is not installed")
    taken: list[str] = []

    def snapshot_download(repo_id, allow_patterns):
        for name in utils.filter_repo_objects(names, allow_patterns=allow_patterns):
            (folder / name).touch()
            taken.append(name)
        return str(folder)

    hub = SimpleNamespace(snapshot_download=snapshot_download, list_repo_files=lambda repo_id: names)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    return taken


@pytest.mark.parametrize("names", [
    ["encoder.int8.onnx", "decoder.int8.onnx", "joiner.int8.onnx", "tokens.txt"],
    ["encoder-model.quantized.onnx", "encoder-model.quantized.onnx.data", "decoder_joint-model.quantized.onnx"],
    ["encoder.int8.onnx", "decoder.onnx", "joiner.onnx", "tokens.txt"],
])
def test_a_repository_with_one_variant(monkeypatch, tmp_path, names):
    taken = hub_of(monkeypatch, tmp_path, [*names, "README.md", "speech.wav"])
    find_model("acme/tiny")
    assert set(taken) == set(names)


def test_a_repository_with_several_variants(monkeypatch, tmp_path):
    hub_of(monkeypatch, tmp_path, ["encoder.int8.onnx", "encoder.fp16.onnx", "decoder.fp16.onnx"])
    with pytest.raises(InputError, match=r"choose a variant \(fp16, int8\)"):
        find_model("acme/tiny")


def test_the_hub_cannot_provide_it(monkeypatch):
    def snapshot_download(repo_id, allow_patterns):
        raise ConnectionError("no network")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    with pytest.raises(InputError, match="'acme/tiny'.*'demo'.*directory.*hub.*no network"):
        find_model("acme/tiny")


def test_a_snapshot_of_links_as_a_directory(bundle, tmp_path):
    from tdtdecode.speech.loading import load_model

    model = load_model(hub_cache(bundle, tmp_path))
    assert model.bundle.layout == "combined"


def test_from_the_hubs_cache_without_a_network(bundle, tmp_path):
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    hub_cache(bundle, tmp_path)
    program = (
        "import numpy as np; from tdtdecode.speech.loading import load_model\n"
        "model = load_model('acme/tiny'); print(model.bundle.directory.parent.name)\n"
        "print(model.recognize((np.zeros(16000, np.float32), 16000)).duration)\n"
        "try: load_model('acme/other')\n"
        "except ValueError as error: print(error)\n"
    )
    # The hub's constants are read when it is imported: hence a process of its own.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    parent, duration, message = result.stdout.splitlines()[:3]
    assert (parent, duration) == ("snapshots", "1.0")
    assert message.startswith("no model 'acme/other': it is neither 'demo' nor a directory here, and the Hugging Face")
