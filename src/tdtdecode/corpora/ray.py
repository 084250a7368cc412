"""Many machines: transcription with Ray Data (https://docs.ray.io/en/latest/data/data.html).

Each worker is an actor that loads the model once. It gets a block of recordings of similar length at a time. If it
dies, that block is given to another one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import socket
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from typing import TYPE_CHECKING, Any

from ..arguments import as_choice, as_instance, as_integer, as_number
from ..errors import DeviceError, InputError, TdtDecodeError
from ..optional import needed
from ..search import Beam, Greedy, as_search
from ..speech.audio import Audio, Segment
from ..speech.loading import load_model
from . import nemo
from .kind import ERROR, PREDICTION
from .kinds import Entry
from .settings import model_digest
from .transcription import WORDS, Fields, Outcome, transcribed

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

    from ..speech.vad import SileroVad

_PACK = "pack"
_ENTRY, _SECONDS, _FAILURE = "entry", "seconds", "failure"
"""Columns between this process and the workers: a line of the manifest, how much was read, why a worker cannot work."""
_BYTES = "bytes"
_DURATION = "duration"
_USUAL_SECONDS = 10.0
"""What a recording counts whose length is not stated."""
_BLOCK_SECONDS = 1800.0
_LEAST_BLOCK_SECONDS = 10.0
_BLOCKS_PER_WORKER = 8
"""So many blocks a worker has at least where the manifest is long enough, so that none waits long for the last one."""
_MOST_THREADS = 4
_RETRIES = 3
"""How often a block is tried again whose worker has died: the block may have killed it."""
_PATIENCE = 10.0
"""Seconds to wait for an answer of a cluster."""
_AHEAD = 2
"""Blocks that are given to a worker: one that it works on, and one that waits."""


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Model:
    """What each worker runs.

    Attributes
    ----------
    name, options:
        The arguments of `load_model`.
    digest:
        The digest of the model's files that each worker must find; None: it is not checked.
    search, fields, batch_size, language, vad:
        As for `transcribed`.
    folder:
        The current folder of the process that started it all, in which relative paths may begin.
    """

    name: str
    options: dict[str, Any]
    digest: str | None
    search: Greedy | Beam
    fields: Fields
    batch_size: int | None
    language: str | None
    vad: SileroVad | None
    folder: str


def transcribe_dataset(
    dataset: ray.data.Dataset,
    *,
    model: str | os.PathLike[str] = "demo",
    device: str = "cpu",
    batch_seconds: float = _BLOCK_SECONDS,
    search: Greedy | Beam = Greedy(),
    fields: Fields = Fields(),
    batch_size: int | None = None,
    language: str | None = None,
    vad: SileroVad | None = None,
    threads: int | None = None,
    workers: int | None = None,
    **options: Any,
) -> ray.data.Dataset:
    """Transcribe the recordings of a dataset.

    Parameters
    ----------
    dataset:
        Rows with the columns of NeMo's manifests, ``audio_filepath`` and perhaps ``offset`` and ``duration``, or
        with ``bytes``, the content of a file, as ``ray.data.read_binary_files`` makes them. The paths must be those of
        the workers' machines.
    model, options:
        As for `load_model`. Each machine must find the same model by that name.
    device:
        ``"cpu"``, ``"cuda"``: each worker has a GPU, or ``"auto"``: that if the cluster has any.
    batch_seconds:
        The most audio in a block, in seconds: so much is done again if a worker dies. For `transcribed_on_ray` it is
        less where a worker would have fewer than 8 blocks. Within each block of the dataset,
        recordings are sorted by ``duration``, the longest first. Sort the dataset to have that for the whole.
    search, fields, batch_size, language, vad:
        As for `transcribed`.
    threads:
        Cores of each worker. None: 4, or two less than the smallest machine has, if that is fewer. More workers with
        fewer cores are faster in all, and need more memory: each holds a model.
    workers:
        The most workers. None: as many as the cluster has room for.

    Returns
    -------
    The rows, in another order, with the columns ``pred_text`` and ``error``, of which one is null, and ``words`` if
    `fields` asks for them.

    Raises
    ------
    InputError
        If an option is wrong.
    DeviceError
        If no machine of the cluster has room for a worker.
    MissingDependencyError
        If Ray is not installed.
    """
    ray = import_ray()
    as_instance("dataset", dataset, ray.data.Dataset, "a ray.data.Dataset")
    batch_seconds = as_number("batch_seconds", batch_seconds, "a number of seconds above 0", above=0)
    run = _Model(
        os.fspath(model), dict(options, device=device, threads=threads), None, as_search(search), fields,
        None if batch_size is None else as_integer("batch_size", batch_size, low=1), language, vad, os.getcwd(),
    )  # fmt: skip
    packing: Any = _packed
    packs: Any = dataset.map_batches(
        packing, fn_kwargs={"batch_seconds": batch_seconds}, batch_size=None, batch_format="pyarrow", num_cpus=0
    )
    # A block is what Ray gives to a worker, and gives again.
    packs = packs.repartition(target_num_rows_per_block=1)
    return _on_workers(packs, _sized(ray, run, spare=2), workers, whole=False)


def transcribed_on_ray(
    entries: Iterable[Entry],
    model: str | os.PathLike[str],
    search: Greedy | Beam = Greedy(),
    *,
    address: str | None = None,
    digest: str | None = None,
    fields: Fields = Fields(),
    batch_size: int | None = None,
    language: str | None = None,
    vad: SileroVad | None = None,
    batch_seconds: float = _BLOCK_SECONDS,
    **options: Any,
) -> Iterator[Outcome]:
    """Transcribe the recordings of a manifest on a cluster. The longest come first.

    Parameters
    ----------
    entries:
        The recordings. Their lines are held in memory.
    address:
        The cluster, as for `ray.init`. None: the one that is known here, else a new one on this machine.
    digest:
        The model's digest (`model_digest`). A machine that has another model by that name is an error.
    model, search, fields, batch_size, language, vad, batch_seconds, options:
        As for `transcribe_dataset`.

    Yields
    ------
    An `Outcome` for each recording, as they come. A recording that kills its workers is an error in its place.

    Raises
    ------
    InputError
        If there is no such cluster, or a worker cannot load the model.
    DeviceError, MissingDependencyError
        As `transcribe_dataset`.
    """
    import pyarrow as pa

    ray = import_ray()
    waiting = {entry.index: entry for entry in entries}
    if not waiting:
        return
    order = sorted(waiting, key=lambda index: -_length(waiting[index].seconds))
    run = _Model(os.fspath(model), options, digest, search, fields, batch_size, language, vad, os.getcwd())
    with _cluster(ray, address):
        rows = [{_ENTRY: _stored(waiting[index]), _DURATION: waiting[index].seconds} for index in order]
        schema = pa.schema([(_ENTRY, pa.string()), (_DURATION, pa.float64())])
        run = _sized(ray, run, spare=0)
        share = sum(_length(entry.seconds) for entry in waiting.values()) / (_BLOCKS_PER_WORKER * _room(ray, run))
        block_seconds = min(batch_seconds, max(share, _LEAST_BLOCK_SECONDS))
        table = pa.Table.from_pylist(rows, schema)
        del rows
        for block_seconds in (block_seconds, 0.0):
            for row in _rows_of(ray, table, block_seconds, run):
                results = {name: row[name] for name in _result_types() if row.get(name) is not None}
                yield Outcome(waiting.pop(json.loads(row[_ENTRY])["index"]), results, row[_SECONDS])
            # What is left was in blocks whose workers died each time. Alone, only those are lost that cause it.
            table = table.filter(pa.array([json.loads(row)["index"] in waiting for row in table[_ENTRY].to_pylist()]))
            if not table.num_rows:
                return
            if block_seconds:
                _log.warning(
                    "%d recordings are transcribed alone: workers died of the blocks that they were in", len(waiting)
                )
    for entry in waiting.values():
        yield Outcome(entry, {ERROR: f"its worker died, {1 + _RETRIES} times"}, entry.seconds or 0.0)


def _rows_of(ray: Any, table: Any, block_seconds: float, run: _Model) -> Iterator[dict[str, Any]]:
    """The rows of a table with their results, except those of blocks that kill their workers."""
    dataset = ray.data.from_arrow(list(_packed(table, block_seconds)))
    dataset.context.max_errored_blocks = -1
    found: Any = _on_workers(dataset, run, None, whole=True)
    for block in found.iter_batches(batch_size=None, batch_format="pyarrow"):
        for row in block.to_pylist():
            if row.get(_FAILURE) is not None:
                raise InputError(f"a worker of the cluster cannot work: {row[_FAILURE]}")
            yield row


def import_ray() -> Any:
    """The module ray, with ray.data.

    Raises
    ------
    MissingDependencyError
        If Ray is not installed.
    """
    with needed("ray", "ray", "work on many machines"):
        import ray
        import ray.data
    return ray


class _Worker:
    """Transcribes packs with a model that it loads once.

    Parameters
    ----------
    run:
        What to run.
    whole:
        Whether rows are lines of a manifest: then they come back with what was read, and a worker that cannot work says
        so instead of raising what Ray would try again.
    """

    def __init__(self, run: _Model, whole: bool):
        self._run, self._whole = run, whole
        self._failure: str | None = None
        with contextlib.suppress(OSError):
            os.chdir(run.folder)
        try:
            self._model = load_model(run.name, search=run.search, **run.options)
            if run.digest is not None and run.digest != (found := model_digest(self._model.bundle)):
                raise InputError(
                    f"{run.name} is another model on {platform.node()} (its digest is {found[:12]}, not "
                    f"{run.digest[:12]}): give a path or a hub id that all machines share"
                )
        except TdtDecodeError as error:
            if not whole:
                raise
            self._failure = str(error)

    def __call__(self, packs: pa.Table) -> Iterator[pa.Table]:
        for pack in packs[_PACK]:
            yield self._done(_unpacked(pack.as_py()))

    def _done(self, rows: pa.Table) -> pa.Table:
        import pyarrow as pa

        if self._failure is None:
            try:
                run = self._run
                found = list(transcribed(
                    self._model, map(_entry, rows.to_pylist()), fields=run.fields, batch_size=run.batch_size,
                    language=run.language, vad=run.vad,
                ))  # fmt: skip
            except TdtDecodeError as error:
                if not self._whole:
                    raise
                self._failure = str(error)
        if self._failure is not None:
            return pa.table({_FAILURE: [self._failure]})
        columns: dict[str, tuple[pa.DataType, list[Any]]] = {
            name: (type, [one.results.get(name) for one in found])
            for name, type in _result_types().items() if name in self._run.fields.names
        }  # fmt: skip
        if self._whole:
            columns[_SECONDS] = pa.float64(), [one.seconds for one in found]
        for name, (type, values) in columns.items():
            if name in rows.column_names:
                rows = rows.drop_columns([name])
            rows = rows.append_column(name, pa.array(values, type))
        return rows


class _Row(Entry):
    """A row of a dataset."""

    def audio(self) -> Audio:
        if self.fields.get(_BYTES) is None and not nemo.matches(self.fields):
            raise InputError("the row has neither audio_filepath nor bytes")
        fields = {nemo.PATH: "bytes", **self.fields}
        try:
            nemo.check(fields)
        except ValueError as error:
            raise InputError(f"the row {error}") from error
        if self.fields.get(_BYTES) is None:
            return super().audio()
        _, start, duration = nemo.file(fields, "")
        content = self.fields[_BYTES]
        return Segment(content, start, duration) if start or duration is not None else content


def _entry(row: dict[str, Any]) -> Entry:
    """The recording of a row."""
    if _ENTRY in row:
        return Entry(**json.loads(row[_ENTRY]))
    return _Row(0, 0, {name: value for name, value in row.items() if value is not None}, "nemo", "")


def _stored(entry: Entry) -> str:
    return json.dumps({field.name: getattr(entry, field.name) for field in fields_of(entry)})


def _result_types() -> dict[str, pa.DataType]:
    """The columns of results."""
    import pyarrow as pa

    number = pa.float64()
    word = pa.struct([("text", pa.string()), ("start", number), ("end", number), ("confidence", number)])
    return {PREDICTION: pa.string(), WORDS: pa.list_(word), ERROR: pa.string()}


def _packed(rows: Any, batch_seconds: float) -> Iterator[Any]:
    """Rows in packs of that much audio at most, the longest first: tables of one row, which holds a table."""
    import pyarrow as pa

    stated = rows[_DURATION].to_pylist() if _DURATION in rows.column_names else [None] * rows.num_rows
    lengths = [_length(seconds) for seconds in stated]
    order = sorted(range(rows.num_rows), key=lambda i: -lengths[i])
    begin, total = 0, 0.0
    for place, i in enumerate([*order, None]):
        total += 0.0 if i is None else lengths[i]
        if place > begin and (i is None or total > batch_seconds):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, rows.schema) as stream:
                stream.write_table(rows.take(order[begin:place]))
            yield pa.table({_PACK: pa.array([sink.getvalue().to_pybytes()], pa.large_binary())})
            begin, total = place, 0.0 if i is None else lengths[i]


def _unpacked(content: bytes) -> pa.Table:
    import pyarrow as pa

    return pa.ipc.open_stream(content).read_all()


def _length(seconds: object) -> float:
    """What a recording counts."""
    return float(seconds) if isinstance(seconds, (int, float)) and 0 < seconds < float("inf") else _USUAL_SECONDS


def _machines(ray: Any) -> list[dict[str, float]]:
    """What the machines of the cluster have."""
    return [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]


def _room(ray: Any, run: _Model) -> int:
    """For how many workers the cluster has room."""
    kind, count = ("GPU", 1) if run.options["device"] == "cuda" else ("CPU", run.options["threads"])
    return max(1, sum(int(machine.get(kind, 0) // count) for machine in _machines(ray)))


def _sized(ray: Any, run: _Model, spare: int) -> _Model:
    """The same with the device and the number of threads that the cluster has room for.

    Parameters
    ----------
    spare:
        Cores of each machine to leave for what reads the dataset, and for Ray's checkpoints: workers start first, and
        would take them all. Of the whole cluster one at least is needed.
    """
    device = as_choice("device", run.options.get("device", "cpu"), ("cpu", "cuda", "auto"))
    if not ray.is_initialized():
        ray.init()
    machines = _machines(ray)
    gpus = max((machine.get("GPU", 0) for machine in machines), default=0)
    cores = [int(machine["CPU"]) for machine in machines if machine.get("CPU", 0) >= 1]
    if device == "auto":
        device = "cuda" if gpus >= 1 else "cpu"
    threads = run.options.get("threads")
    if threads is None:
        threads = 1 if device == "cuda" else max(1, min([_MOST_THREADS, *(count - spare for count in cores)]))
    if device == "cuda" and gpus < 1:
        raise DeviceError("device: no machine of the cluster has a GPU; expected one for each worker of 'cuda'")
    most = max(cores, default=0)
    if device == "cpu" and (most < threads or sum(cores) < threads + bool(spare)):
        raise DeviceError(
            f"threads: a worker has {threads} cores{' and reading needs one more' if spare else ''}, and the largest "
            f"machine of the cluster has {most}"
        )
    return replace(run, options=dict(run.options, device=device, threads=threads))


def _on_workers(packs: Any, run: _Model, workers: int | None, whole: bool) -> Any:
    """The rows of a dataset of packs, with their results."""
    from ray.data import ActorPoolStrategy

    if workers is not None:
        as_integer("workers", workers, low=1)
    needs = {"num_gpus": 1} if run.options["device"] == "cuda" else {"num_cpus": run.options["threads"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # how often a block is tried again has no other place yet
        return packs.map_batches(
            _Worker, fn_constructor_kwargs={"run": run, "whole": whole}, batch_size=1, batch_format="pyarrow",
            compute=ActorPoolStrategy(min_size=1, max_size=workers, max_tasks_in_flight_per_actor=_AHEAD),
            max_restarts=-1, max_task_retries=_RETRIES, **needs,
        )  # fmt: skip


def _check_address(address: str | None) -> None:
    """Raise an InputError if nobody is at ``host:port``. Ray would wait for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and "/" not in host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
        except (OSError, OverflowError) as error:
            raise InputError(f"no cluster of Ray at {address!r} ({error})") from error


@contextlib.contextmanager
def _cluster(ray: Any, address: str | None) -> Iterator[None]:
    """A connection to the cluster, unless there is one already."""
    if ray.is_initialized():
        yield
        return
    _check_address(address)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it prints to standard error, whatever asks it not to
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"no cluster of Ray at {address!r} ({error})") from error
    logger = logging.getLogger("ray.data")
    level, context = logger.level, ray.data.DataContext.get_current()
    bars = context.enable_progress_bars
    logger.setLevel(logging.CRITICAL)  # it shows where Ray noticed that a worker had died
    context.enable_progress_bars = False
    try:
        yield
    finally:
        logger.setLevel(level)
        context.enable_progress_bars = bars
        ray.shutdown()
