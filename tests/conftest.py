"""What all tests share: the golden models, and networks made of random numbers."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import tdtdecode as tdt

GOLDEN = Path(__file__).parent / "golden"
LAYOUT_FILES = {
    "split": ("decoder.onnx", "joiner.onnx"),
    "combined": ("decoder_joint-model.onnx",),
}
RANDOM_DECODES = int(os.environ.get("TDTDECODE_TEST_DECODES", "100000"))
"""How many utterances the random comparisons decode: between kernel sets, and again between networks."""
KERNELS = [kernels.name for kernels in tdt.kernels.available()]
COMPILED = [kernels.name for kernels in tdt.kernels.available() if kernels.isa is not None]
CELLS = [*(("ort", name) for name in KERNELS), *(("fused", name) for name in ("reference", *COMPILED))]
"""Networks of a bundle with the kernels that they exist for."""


def pytest_report_header() -> str:
    return f"tdtdecode kernel sets: {', '.join(KERNELS)}"


@dataclass(frozen=True)
class Golden:
    """A model with NeMo's own results on it; `utterances` lists those that were decoded."""

    name: str
    nemo: dict
    encoder_out: np.ndarray
    lengths: np.ndarray

    @property
    def durations(self) -> list[int]:
        return self.nemo["durations"] or []

    @property
    def utterances(self) -> list[int]:
        return self.nemo["rows_decoded"]

    def directory(self, layout: str, parent: Path) -> Path:
        """A model directory in that layout, made below ``parent``."""
        directory = parent / f"{self.name}-{layout}"
        directory.mkdir(exist_ok=True)
        for file in LAYOUT_FILES[layout]:
            shutil.copy(GOLDEN / self.name / file, directory)
        token_file = "tokens.txt" if layout == "split" else "vocab.txt"
        shutil.copy(GOLDEN / self.name / "tokens.txt", directory / token_file)
        return directory


def load_golden(name: str) -> Golden:
    arrays = np.load(GOLDEN / name / "encoder_out.npz")
    nemo = json.loads((GOLDEN / name / "nemo.json").read_text())
    return Golden(name, nemo, arrays["encoder_out"], arrays["lengths"])


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """Compiled tables of the tests stay among the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDTDECODE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", params=sorted(path.name for path in GOLDEN.iterdir() if path.is_dir()))
def golden(request) -> Golden:
    return load_golden(request.param)


@pytest.fixture(scope="session")
def golden_tdt() -> Golden:
    """The golden model with Parakeet's duration table."""
    return load_golden("tdt-01234")


@pytest.fixture(scope="session", params=list(LAYOUT_FILES))
def layout(request) -> str:
    return request.param


@pytest.fixture(params=KERNELS)
def kernels(request) -> str:
    return request.param


@pytest.fixture(params=CELLS, ids="-".join)
def cell(request) -> tuple[str, str]:
    """A network and kernels for it."""
    return request.param


class RandomTransducer:
    """A small random recurrent transducer as NumPy functions: joint rows depend on the whole token history.

    ``levels`` quantises the logits, so that exact ties abound; ``bad`` is the share of entries that are NaN or
    infinite. Rows depend on their own frame and history alone.
    """

    def __init__(self, spec: tdt.TransducerSpec, seed: int, levels: float | None = None, bad: float = 0.0):
        rng = np.random.default_rng(seed)
        hidden, width = 8, spec.joint_width
        self.encoder_size = 6
        self.embedding = rng.normal(size=(spec.vocab_size + 1, hidden)).astype(np.float32)
        self.from_frame = rng.normal(size=(self.encoder_size, width)).astype(np.float32)
        self.from_g = rng.normal(size=(hidden, width)).astype(np.float32)
        self.bias = np.zeros(width, np.float32)
        self.bias[spec.blank] = rng.uniform(-2, 4)
        self.levels, self.bad = levels, bad

    def predict(self, tokens, state):
        hidden = np.tanh(self.embedding[tokens] + (0 if state is None else 0.5 * state))
        return hidden, hidden

    def joint(self, frames, g):
        # Written as a sum over one axis, so that a row's bits do not depend on how many rows there are.
        rows = (frames[:, :, None] * self.from_frame).sum(1) + (g[:, :, None] * self.from_g).sum(1) + self.bias
        if self.levels:
            rows = np.round(rows * self.levels) / np.float32(self.levels)
        if self.bad:
            noise = np.abs(rows * 7919) % 1
            for value, below in ((np.nan, 0.5), (np.inf, 0.75), (-np.inf, 1.0)):
                rows[noise < self.bad * below] = value
                noise[noise < self.bad * below] = 1
        return rows

    @staticmethod
    def select(state, index):
        return state[index]

    def decoder(self, spec: tdt.TransducerSpec, **options) -> tdt.Decoder:
        return tdt.Decoder(tdt.CallableNetwork(self.predict, self.joint, self.select), spec=spec, **options)


def random_frames(batch: int, encoder_size: int, frames: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Encoder output float32 [B, E, T] and lengths [B], one of them 0 and one of them T."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, frames + 1, batch)
    lengths[rng.permutation(batch)[:2]] = [frames, 0][: min(batch, 2)]
    return rng.normal(size=(batch, encoder_size, frames)).astype(np.float32), lengths


def in_fork(function):
    """What a function returns in a forked process; AssertionError if it does not answer within a minute."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=lambda: send.send(function()))
    process.start()
    try:
        assert receive.poll(60), "the forked process did not answer"
        return receive.recv()
    finally:
        process.kill()
        process.join()


@pytest.fixture
def whole_bundle(tmp_path):
    """A small whole bundle of one layout, as this package writes it."""

    def made(layout="split", **options):
        from tdtdecode.prepare.conversion import convert
        from tests.bundle.helpers import small_bundle

        other = "combined" if layout == "split" else "split"
        small_bundle(tmp_path / "other", other, mel_bins=80, **options)
        convert(tmp_path / "other", tmp_path / "bundle", layout, durations=options.get("durations"))
        return tmp_path / "bundle"

    return made
