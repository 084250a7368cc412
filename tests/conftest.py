"""What all tests share: the choice of tests that run, the golden models, and networks made of random numbers."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import multiprocessing
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import tdtdecode as tdt

with contextlib.suppress(ImportError):
    from hypothesis import HealthCheck, settings

    # On a busy machine a test may take long. That is no failure.
    settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("tests")

GOLDEN = Path(__file__).parent / "golden"
LAYOUT_FILES = {
    "split": ("decoder.onnx", "joiner.onnx"),
    "combined": ("decoder_joint-model.onnx",),
}
random_decodes = pytest.mark.parametrize(
    "decodes", [pytest.param(5_000, id="sample"), pytest.param(100_000, id="all", marks=pytest.mark.exhaustive)]
)
"""How many utterances the random comparisons decode: between kernel sets, and again between networks."""
KERNELS = [kernels.name for kernels in tdt.kernels.available()]
COMPILED = [kernels.name for kernels in tdt.kernels.available() if kernels.isa is not None]
CELLS = [*(("ort", name) for name in KERNELS), *(("fused", name) for name in ("reference", *COMPILED))]
"""Networks of a bundle with the kernels that they exist for."""


def usual(names: list[str]) -> list:
    """Kernel sets as parameters of a test. The instruction sets between AVX2 and the best are for the exhaustive tests.

    Their kernels are compared one by one (`test_instruction_sets`), and NeMo's results are decoded with each of them.
    """
    between = COMPILED[2:-1]
    return [pytest.param(name, marks=pytest.mark.exhaustive if name in between else ()) for name in names]


HANGING = 900
"""Seconds after which a test stops waiting: far more than it needs on a busy machine."""


def pytest_configure(config) -> None:
    from tests.installed import check_installed

    problem = None if hasattr(config, "workerinput") else check_installed()
    if problem:
        raise pytest.UsageError(problem)


def pytest_report_header(config) -> list[str]:
    lines = [f"tdtdecode kernel sets: {', '.join(KERNELS)}"]
    if _leaves_out_exhaustive(config):
        lines.append("without the tests marked exhaustive: python -m pytest -m exhaustive runs them")
    return lines


def _leaves_out_exhaustive(config) -> bool:
    """Whether the tests marked exhaustive are left out, except those that the command line names."""
    return "exhaustive" not in config.option.markexpr


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config) -> int | None:
    """No workers if the command line names only files or tests: these would be done before the workers have started."""
    if all(argument.partition("::")[0].endswith(".py") for argument in config.args):
        return 0
    return None


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config, items) -> None:
    for item in items:
        if item.get_closest_marker("card"):
            item.add_marker(pytest.mark.xdist_group("card"))  # one process at a time uses the card
    if _leaves_out_exhaustive(config):
        long = [
            item
            for item in items
            if item.get_closest_marker("exhaustive") and not any(name.endswith(item.nodeid) for name in config.args)
        ]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


def pytest_runtest_setup(item) -> None:
    """Skip tests that need a card, or ONNX Runtime on a card, if it is missing."""
    marks = list(item.iter_markers("card"))
    if marks:
        from tests.cuda.helpers import missing_card, missing_provider

        reason = missing_card()
        if reason is None and any(mark.kwargs.get("provider") for mark in marks):
            reason = missing_provider()
        if reason is not None:
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Skip a test that needs a package that is not installed, with that reason."""
    report = yield
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, ImportError) and report.failed and _is_missing(error.name):
        report.outcome = "skipped"
        report.longrepr = (__file__, 0, f"{error.name} is not installed")
    return report


def _is_missing(package: str | None) -> bool:
    """Whether an optional package is not installed. Packages for GPUs do not count: the marker card asks for them."""
    if package is None or package.startswith(("cupy", "onnxruntime-gpu", "tdtdecode", "tests", "benches")):
        return False
    return importlib.util.find_spec(package.partition(".")[0].replace("-", "_")) is None


@dataclass(frozen=True)
class Golden:
    """A model with NeMo's own results. `utterances` lists those that NeMo decoded, by their places in the batch."""

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
    """Compiled tables of language models go to a folder of this run."""
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


@pytest.fixture(params=usual(KERNELS))
def kernels(request) -> str:
    return request.param


@pytest.fixture(params=CELLS, ids="-".join)
def cell(request) -> tuple[str, str]:
    """A network and kernels for it."""
    return request.param


class RandomTransducer:
    """A small random recurrent transducer as NumPy functions.

    A joint row depends on its frame and on all tokens before it, and on nothing else. ``levels`` quantises the logits,
    so that there are many exact ties. ``bad`` is the share of entries that are NaN or infinite.
    """

    def __init__(self, spec: tdt.TransducerSpec, seed: int, levels: float | None = None, bad: float = 0.0):
        rng = np.random.default_rng(seed)
        hidden, width = 8, spec.joint_width
        self.encoder_size = 6
        self.embedding = rng.normal(size=(spec.vocab_size + 1, hidden)).astype(np.float32)
        self.from_frame = rng.normal(size=(self.encoder_size, width)).astype(np.float32)
        self.from_g = rng.normal(size=(hidden, width)).astype(np.float32)
        self.bias = np.zeros(width, np.float32)
        self.bias[spec.blank : spec.blank + len(spec.layout.blank_frames)] = rng.uniform(-2, 4)
        self.levels, self.bad = levels, bad

    def predict(self, tokens, state):
        hidden = np.tanh(self.embedding[tokens] + (0 if state is None else 0.5 * state))
        return hidden, hidden

    def joint(self, frames, g):
        # A sum over one axis, because the bits of a matrix product would depend on the number of rows.
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


def without_leftovers(caught):
    """Recorded warnings without those of earlier tests' objects, which may be collected here: they were not closed."""
    return [one for one in caught if not issubclass(one.category, ResourceWarning)]


def in_fork(function, garbage_left=False):
    """What a function returns in a forked process; AssertionError if that ends, or hangs, without an answer.

    Garbage is collected before, unless it is to be left. A session that ONNX Runtime opened for somebody else, such as
    a peer of this package, hangs the process that collects it: it waits for threads which are the parent's.
    """
    if not garbage_left:
        gc.collect()
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=lambda: send.send(function()))
    process.start()
    try:
        send.close()  # here: so that the end of the process is noticed
        assert receive.poll(HANGING), "the forked process did not answer"
        return receive.recv()
    except EOFError:
        raise AssertionError("the forked process ended without an answer") from None
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
