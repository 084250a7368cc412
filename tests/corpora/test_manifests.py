"""Reading manifests: NeMo's lines, what is damaged, what is something else."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import sys

import pytest

from tdtdecode.corpora import read_manifest
from tdtdecode.errors import InputError
from tdtdecode.speech.audio import Segment
from tests.corpora.helpers import SPEECH, parts, write_lines


def refused(path, *named):
    with pytest.raises(InputError) as raised:
        read_manifest(path)
    for part in (path.name, *named):
        assert part in str(raised.value), str(raised.value)


def test_lines_of_nemo(tmp_path):
    lines = [
        {"audio_filepath": "a.wav", "duration": 2.5, "text": "one two"},
        {"audio_filepath": "a.wav", "offset": 1, "duration": 2, "normalized_text": "three"},
        {"audio_filename": "/b.wav", "duration": None, "offset": None, "text": None},
        {"audio_filepath": "~/c.wav", "duration": 0, "offset": 0.5, "anything": {"else": [1]}},
    ]
    manifest = read_manifest(write_lines(tmp_path / "m.json", ["\ufeff", lines[0], "\n", *lines[1:], "  \n"]))
    assert (manifest.kind, len(manifest), manifest.seconds, manifest.stated) == ("nemo", 4, 4.5, 2)
    entries = list(manifest)
    assert [entry.fields for entry in entries] == lines
    assert [(entry.index, entry.line) for entry in entries] == [(0, 1), (1, 3), (2, 4), (3, 5)]
    assert [entry.reference for entry in entries] == ["one two", "three", None, None]
    assert [entry.audio() for entry in entries] == [
        Segment("a.wav", 0, 2.5), Segment("a.wav", 1, 2), "/b.wav", Segment(os.path.expanduser("~/c.wav"), 0.5)
    ]


def test_paths_are_relative_to_the_manifest_first(tmp_path, monkeypatch):
    """As in NeMo: to the manifest's folder if the file is there, else to the current one."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    shutil.copy(SPEECH, there / "both.flac")
    shutil.copy(SPEECH, here / "both.flac")
    shutil.copy(SPEECH, here / "one.flac")
    monkeypatch.chdir(here)
    path = write_lines(there / "m.jsonl", [{"audio_filepath": name} for name in ("both.flac", "one.flac")])
    assert [entry.audio() for entry in read_manifest(path)] == [str(there / "both.flac"), "one.flac"]
    assert [entry.audio() for entry in read_manifest("../there/m.jsonl")] == [str(there / "both.flac"), "one.flac"]


@pytest.mark.parametrize("suffix, module", [(".gz", gzip), (".bz2", bz2), (".xz", lzma), ("", gzip)])
def test_compressed(tmp_path, suffix, module):
    content = "".join(json.dumps(line) + "\n" for line in parts(5)).encode()
    path = tmp_path / f"m.jsonl{suffix}"
    path.write_bytes(module.compress(content))
    assert len(read_manifest(path)) == 5
    path.write_bytes(module.compress(content)[:-20])
    refused(path, "cannot be read")


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_pipes_and_standard_input(tmp_path, monkeypatch):
    content = "".join(json.dumps(line) + "\n" for line in parts(3)).encode()
    read, write = os.pipe()
    os.write(write, content)
    os.close(write)
    assert len(list(read_manifest(f"/dev/fd/{read}"))) == 3
    os.close(read)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    manifest = read_manifest("-")
    assert manifest.name == "standard input" and len(list(manifest)) == len(list(manifest)) == 3
    copy = manifest.path
    del manifest
    assert not copy.exists()


@pytest.mark.parametrize(
    "line, problem",
    [
        ('{"audio_filepath": "a.wav", "dur', "not JSON"),
        ('["a.wav"]', "no object"),
        ('{"path": "a.wav"}', "audio_filepath"),
        ('{"audio_filepath": ""}', "''"),
        ('{"audio_filepath": 5}', "5"),
        ('{"audio_filepath": ["a.wav", "b.wav"]}', "2 files"),
        ('{"audio_filepath": "a.wav", "offset": -1}', "offset"),
        ('{"audio_filepath": "a.wav", "offset": "1.5"}', "offset"),
        ('{"audio_filepath": "a.wav", "duration": NaN}', "duration"),
        ('{"audio_filepath": "a.wav", "duration": true}', "duration"),
        ('{"id": "a", "type": "MonoCut", "duration": 1}', "another kind"),
        ("[" * 100_000, "not JSON"),
        ("\x00" * 100, "not JSON"),
    ],
)
def test_damaged_lines_are_named(tmp_path, line, problem):
    sound = {"audio_filepath": "a.wav"}
    refused(write_lines(tmp_path / "m.jsonl", [sound, sound, line + "\n", sound]), "line 3 ", problem)
    refused(write_lines(tmp_path / "m.jsonl", [sound, "\n", line]), "line 3 ", problem)


def test_many_damaged_lines(tmp_path):
    path = write_lines(tmp_path / "m.jsonl", [{"audio_filepath": "a.wav"}, *["x\n"] * 12])
    refused(path, *(f"line {number} " for number in range(2, 7)), "and 7 more lines")


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"", "no lines"), (b"\n \n", "no lines"), (b"path,text\na.wav,hello\n", "one JSON object on each line"),
        (b'[\n {"audio_filepath": "a.wav"}\n]\n', "one JSON object on each line"), (b"\xff\xfe{\0", "UTF-16"),
        (b"\x28\xb5\x2f\xfd123", "unzstd"), (b"PAR1 and more", "Parquet"), (b'{"audio_filepath": "\xe9.wav"}', "UTF-8"),
    ],
)  # fmt: skip
def test_what_is_no_manifest(tmp_path, content, problem):
    (tmp_path / "m.jsonl").write_bytes(content)
    refused(tmp_path / "m.jsonl", problem)


def test_no_file_and_folders(tmp_path):
    refused(tmp_path / "none.jsonl", "no such file")
    refused(tmp_path, "is a folder")


def test_shards_are_refused_by_name(tmp_path):
    line = {"audio_filepath": "a.wav", "duration": 1}
    for name in ("manifest__OP_0..63_CL_.json", "manifest_{0..63}.json"):
        refused(tmp_path / name, "several manifests", "cat")
    refused(write_lines(tmp_path / "tarred_audio_manifest.json", [line]), "tar -xf")
    (tmp_path / "sharded_manifests").mkdir()
    refused(write_lines(tmp_path / "sharded_manifests" / "manifest_3.json", [line]), "tar -xf")
    refused(write_lines(tmp_path / "m.jsonl", [line | {"shard_id": 4}]), "line 1 ", "shard_id", "tar -xf")
    assert len(read_manifest(write_lines(tmp_path / "manifest_3.json", [line]))) == 1


def test_a_manifest_that_changes_while_it_is_read(tmp_path):
    path = write_lines(tmp_path / "m.jsonl", parts(3))
    manifest = read_manifest(path)
    path.write_text(path.read_text()[:-9])
    with pytest.raises(InputError, match="line 3 is not JSON"):
        list(manifest)


def test_names_of_recordings(tmp_path):
    """Names that are no text stand as escapes, and control characters in messages too."""
    lines = [{"audio_filepath": "\udcff.wav"}, {"audio_filepath": "a\u001b[31m.wav", "offset": 2, "duration": 1}]
    entries = list(read_manifest(write_lines(tmp_path / "m.jsonl", lines)))
    assert entries[0].audio() == "\udcff.wav" and entries[1].name == "a\u001b[31m.wav from 2 s to 3 s"
