# cython: language_level=3
"""The search kernels in C++, with loops over joint rows for each instruction set. Specification: `reference.py`."""

from libc.stddef cimport ptrdiff_t, size_t
from libc.stdint cimport int32_t, uintptr_t
from libc.string cimport memcpy


cdef extern from "tdt/options.h" namespace "tdt":
    cdef cppclass GreedyOptions:
        pass

cdef extern from "tdt/row.h" namespace "tdt":
    cdef cppclass RowLayout:
        int vocab_size
        int blank
        int num_blanks
        int num_durations
        const int32_t* blank_frames
        const int32_t* durations

cdef extern from "row_kernels.h" namespace "tdt::cpu":
    cdef cppclass Masks:
        const unsigned char* table
        const int32_t* numbers
        ptrdiff_t entries

cdef extern from "instruction_sets.h" namespace "tdt::cpu":
    ctypedef void (*DecideRows)(const float*, size_t, const RowLayout&, const GreedyOptions&, const Masks&,
                                const float*, int32_t*, int32_t*, float*, float*) noexcept nogil
    cdef cppclass InstructionSet:
        const char* name
        bint (*supported)() noexcept nogil
        DecideRows decide
        void* rank
    const InstructionSet* c_instruction_sets "tdt::cpu::instruction_sets"(size_t* count) noexcept nogil

cdef extern from "greedy.h" namespace "tdt::cpu":
    cdef cppclass Decisions:
        const int32_t* tokens
        const int32_t* durations
        const float* token_logprobs
        const float* duration_logprobs
    cdef cppclass Positions:
        int32_t* frame
        int32_t* symbols
        const int32_t* length
    cdef cppclass TokenLog:
        int32_t* slot
        int32_t* token
        int32_t* frame
        int32_t* duration
        float* token_logprob
        float* duration_logprob
    cdef cppclass StepCounts:
        size_t logged
        size_t pending
    StepCounts c_advance "tdt::cpu::advance"(
        int32_t*, int32_t*, size_t, const Decisions&, int, const GreedyOptions&, bint, const Positions&,
        const TokenLog&, size_t) noexcept nogil


def instruction_sets():
    """Every instruction set of this build, slowest first: (name, whether this machine has it)."""
    cdef size_t count
    cdef const InstructionSet* table = c_instruction_sets(&count)
    return [((<bytes>table[i].name).decode(), bool(table[i].supported())) for i in range(<Py_ssize_t>count)]


cdef const InstructionSet* _instruction_set(str name) except NULL:
    cdef size_t count
    cdef const InstructionSet* table = c_instruction_sets(&count)
    for i in range(<Py_ssize_t>count):
        if (<bytes>table[i].name).decode() == name and table[i].supported():
            return &table[i]
    raise ValueError(f"instruction set {name!r} is not available on this machine")


def rank_row(str isa):
    """The address of the function that ranks a joint row, for `_beam.BeamEngine`."""
    return <uintptr_t>_instruction_set(isa).rank


cdef int _read(object options, GreedyOptions* read) except -1:
    cdef bytes memory = options.tobytes()
    if len(memory) != sizeof(GreedyOptions):
        raise ValueError("options must be a GREEDY_OPTIONS")
    memcpy(read, <const char*>memory, sizeof(GreedyOptions))
    return 0


cdef class RowDecider:
    """`reference.decide`, compiled for one instruction set. This machine must have it."""
    cdef DecideRows kernel

    def __cinit__(self, str isa):
        self.kernel = _instruction_set(isa).decide

    def __call__(self, const float[:, ::1] rows, layout, object options, masks, int32_t[:, ::1] decisions,
                 float[:, ::1] logprobs):
        cdef RowLayout c_layout
        cdef Masks c_masks
        cdef GreedyOptions read
        cdef Py_ssize_t count = rows.shape[0]
        cdef int vocab_size = layout.vocab_size, blank = layout.blank
        cdef const int32_t[::1] blank_frames = layout.blank_frames
        cdef const int32_t[::1] durations = layout.durations
        cdef const unsigned char[:, ::1] table = masks.table
        cdef const int32_t[::1] numbers = masks.numbers
        if not blank_frames.shape[0] or not 0 <= blank <= vocab_size \
                or rows.shape[1] != vocab_size + blank_frames.shape[0] + durations.shape[0]:
            raise ValueError("rows must be [N, V + B + D] and blank from 0 to V")
        if numbers.shape[0] < count or table.shape[0] and table.shape[1] != vocab_size + 1:
            raise ValueError("masks must be [M, V + 1], with a number for each row")
        for i in range(count):
            if numbers[i] >= table.shape[0]:
                raise ValueError("the number of a mask must be below M")
        if decisions.shape[0] != 2 or logprobs.shape[0] != 2 or min(decisions.shape[1], logprobs.shape[1]) < count:
            raise ValueError("decisions and logprobs must be [2, N] or longer")
        if count == 0:
            return
        _read(options, &read)
        c_layout.vocab_size = vocab_size
        c_layout.blank = blank
        c_layout.num_blanks = <int>blank_frames.shape[0]
        c_layout.num_durations = <int>durations.shape[0]
        c_layout.blank_frames = &blank_frames[0]
        c_layout.durations = &durations[0] if durations.shape[0] else NULL
        c_masks.table = &table[0, 0] if table.shape[0] else NULL
        c_masks.numbers = &numbers[0] if table.shape[0] else NULL
        c_masks.entries = table.shape[1]
        with nogil:
            self.kernel(&rows[0, 0], count, c_layout, read, c_masks, NULL, &decisions[0, 0], &decisions[1, 0],
                        &logprobs[0, 0], &logprobs[1, 0])


def advance(int32_t[:, ::1] queue, Py_ssize_t count, const int32_t[:, ::1] decisions, const float[:, ::1] logprobs,
            int blank, object options, bint hold, int32_t[:, ::1] positions, int32_t[:, ::1] log,
            float[:, ::1] log_logprobs, Py_ssize_t cursor):
    cdef GreedyOptions read
    cdef Decisions decided
    cdef Positions at
    cdef TokenLog out
    cdef StepCounts counts
    if queue.shape[0] != 2 or decisions.shape[0] != 2 or logprobs.shape[0] != 2 or positions.shape[0] != 3 \
            or log.shape[0] != 4 or log_logprobs.shape[0] != 2:
        raise ValueError(
            "queue, decisions, logprobs, positions, log and log_logprobs must be [2, B], [2, N], [2, N], [3, B], [4, L] "
            "and [2, L]")
    if not 0 <= count <= min(queue.shape[1], decisions.shape[1], logprobs.shape[1]):
        raise ValueError("count must be from 0 to the length of the queue and of the decisions")
    if not 0 <= cursor <= min(log.shape[1], log_logprobs.shape[1]) - count:
        raise ValueError("the log has no room for so many entries")
    if count == 0:
        return 0, 0
    _read(options, &read)
    decided.tokens = &decisions[0, 0]
    decided.durations = &decisions[1, 0]
    decided.token_logprobs = &logprobs[0, 0]
    decided.duration_logprobs = &logprobs[1, 0]
    at.frame = &positions[0, 0]
    at.symbols = &positions[1, 0]
    at.length = &positions[2, 0]
    out.slot = &log[0, 0]
    out.token = &log[1, 0]
    out.frame = &log[2, 0]
    out.duration = &log[3, 0]
    out.token_logprob = &log_logprobs[0, 0]
    out.duration_logprob = &log_logprobs[1, 0]
    with nogil:
        counts = c_advance(&queue[0, 0], &queue[1, 0], count, decided, blank, read, hold, at, out, cursor)
    return counts.logged, counts.pending
