# cython: language_level=3
"""A packed network and the searches that run on it, in C++."""

import numpy as np

from libc.stddef cimport ptrdiff_t, size_t
from libc.stdint cimport int32_t, int64_t, uintptr_t
from libc.string cimport memcpy
from libcpp.vector cimport vector


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

cdef extern from "matrix.h" namespace "tdt::cpu":
    cdef enum class Format(int):
        pass
    cdef cppclass Matrix:
        Format format
        int outputs
        int inputs
        const void* panels
        const float* bias
        const float* scales
        const int32_t* sums

cdef extern from "matrix.h" namespace "tdt::cpu":
    cdef cppclass StagedRow:
        pass
    size_t staged_bytes(const Matrix&) noexcept nogil

cdef extern from "network_kernels.h" namespace "tdt::cpu":
    cdef enum class Activation(int):
        pass
    cdef cppclass NetworkKernels:
        void (*stage)(const Matrix&, const float* const*, int, char*, StagedRow*) noexcept nogil
        void (*multiply)(const Matrix&, const StagedRow*, int, int, int, float* const*) noexcept nogil

cdef extern from "instruction_sets.h" namespace "tdt::cpu":
    cdef cppclass InstructionSet:
        const char* name
        bint (*supported)() noexcept nogil
        bint widens_halves
        int screened_slots
        const NetworkKernels* network
    const InstructionSet* c_instruction_sets "tdt::cpu::instruction_sets"(size_t* count) noexcept nogil

cdef extern from "network.h" namespace "tdt::cpu":
    cdef enum class TableKind(int):
        pass
    cdef cppclass CNetwork "tdt::cpu::Network":
        RowLayout layout
        Activation activation
        int encoder_size
        int predictor_size
        int joint_size
        int hidden
        int joint
        TableKind table_kind
        int table_width
        const float* table
        int num_layers
        int num_cells
        const Matrix* layers
        Matrix prediction
        Matrix encoder
        Matrix output
        Matrix screen
        const float* weight_norms
        const float* weight_errors
        int screened_slots

cdef extern from "frames.h" namespace "tdt::cpu":
    cdef cppclass FrameSource:
        const float* data
        ptrdiff_t element
        ptrdiff_t frame

cdef extern from "profile.h" namespace "tdt::cpu":
    const int kPhases
    const int kCounts
    cdef cppclass Profile:
        int64_t* counts
        int64_t* nanoseconds

cdef extern from "fused_beam.h" namespace "tdt::cpu":
    cdef cppclass BeamSearch:
        pass
    cdef cppclass PredictorStates:
        vector[float] prediction
        vector[float] hidden
        vector[float] cell
    cdef cppclass BeamUtterances:
        int count
        const FrameSource* sources
        const int32_t* lengths
        const int32_t* order
        const int64_t* places
        int64_t states
        const float* prediction
        const float* hidden
        const float* cell
    bint run_beams(const CNetwork&, const InstructionSet&, BeamSearch*, const BeamUtterances&, int,
                   vector[PredictorStates]*, const Profile*) except + nogil

cdef extern from "fused_greedy.h" namespace "tdt::cpu":
    cdef cppclass Utterances:
        int count
        const FrameSource* sources
        const int32_t* lengths
        const int32_t* order
        Masks masks
        int32_t* frame
        int32_t* symbols
        float* prediction
        float* hidden
        float* cell
    cdef cppclass Emissions:
        vector[int32_t] utterance
        vector[int32_t] token
        vector[int32_t] frame
        vector[int32_t] duration
        vector[float] token_logprob
        vector[float] duration_logprob
    cdef cppclass FusedGreedy:
        FusedGreedy(const CNetwork&, const InstructionSet&, const GreedyOptions&, const Utterances&, int) except + nogil
        void run(Emissions*, const Profile*) except + nogil


cdef extern from "stream.h" namespace "tdt::cpu":
    double stream_seconds(const InstructionSet&, const char*, size_t, int, int) except + nogil


cdef const InstructionSet* _instruction_set(str name) except NULL:
    cdef size_t count
    cdef const InstructionSet* table = c_instruction_sets(&count)
    for i in range(<Py_ssize_t>count):
        if (<bytes>table[i].name).decode() == name and table[i].supported():
            return &table[i]
    raise ValueError(f"instruction set {name!r} is not available on this machine")


def widens_halves(str isa):
    """Whether an instruction set widens 16-bit weights as fast as memory delivers them."""
    return bool(_instruction_set(isa).widens_halves)


def screened_slots(str isa):
    """The most utterances in flight for which screening saves time; 0 if it never does."""
    return _instruction_set(isa).screened_slots


def read_seconds(str isa, const unsigned char[::1] memory, int threads, int repeats):
    """Seconds that ``threads`` threads take to read memory once, each its share; the shortest of ``repeats`` times."""
    cdef const InstructionSet* instructions = _instruction_set(isa)
    cdef double seconds
    if memory.shape[0] < 4096 * threads or threads < 1 or repeats < 1:
        raise ValueError("memory must be at least a page for each thread")
    with nogil:
        seconds = stream_seconds(instructions[0], <const char*>&memory[0], memory.shape[0], threads, repeats)
    return seconds


cdef const void* _address(array) except NULL:
    return <const void*><uintptr_t>array.ctypes.data


cdef Matrix _matrix(packed) except *:
    cdef Matrix matrix
    matrix.format = <Format><int>packed.format
    matrix.outputs = packed.outputs
    matrix.inputs = packed.inputs
    matrix.panels = _address(packed.panels)
    matrix.bias = <const float*>_address(packed.bias)
    matrix.scales = NULL
    matrix.sums = NULL
    if packed.scales is not None:
        matrix.scales = <const float*>_address(packed.scales)
        matrix.sums = <const int32_t*>_address(packed.sums)
    return matrix


def product(packed, str isa, const float[:, ::1] rows, float[:, ::1] out):
    """Multiply rows float32 [N, inputs] with a `packing.PackedMatrix`; write the result to out float32 [N, outputs]."""
    cdef Matrix matrix = _matrix(packed)
    cdef const NetworkKernels* kernels = _instruction_set(isa).network
    cdef int count = <int>rows.shape[0]
    if not count or rows.shape[1] != matrix.inputs or out.shape[0] != count or out.shape[1] != matrix.outputs:
        raise ValueError("rows and out do not fit the matrix")
    cdef vector[const float*] row_pointers
    cdef vector[float*] out_pointers
    cdef vector[char] scratch
    cdef vector[StagedRow] staged
    for i in range(count):
        row_pointers.push_back(&rows[i, 0])
        out_pointers.push_back(&out[i, 0])
    scratch.resize(staged_bytes(matrix) * count)
    staged.resize(count)
    with nogil:
        kernels.stage(matrix, row_pointers.data(), count, scratch.data(), staged.data())
        kernels.multiply(matrix, staged.data(), count, 0, matrix.outputs // 64, out_pointers.data())


cdef bint _profile(int64_t[::1] counts, int64_t[:, ::1] nanoseconds, int threads, Profile* profile) except -1:
    """Point a profile at the arrays; False if there are none."""
    if counts is None:
        return False
    if counts.shape[0] != kCounts or nanoseconds.shape[0] != threads or nanoseconds.shape[1] != kPhases:
        raise ValueError("counts and nanoseconds do not fit")
    profile.counts = &counts[0]
    profile.nanoseconds = &nanoseconds[0, 0]
    return True


cdef class CompiledNetwork:
    """A `packing.PackedNetwork` for one instruction set. It keeps the arrays and does not check their shapes."""
    cdef CNetwork network
    cdef const InstructionSet* isa
    cdef vector[Matrix] layers
    cdef object packed

    def __cinit__(self, packed, str isa):
        self.packed = packed
        self.isa = _instruction_set(isa)
        for layer in packed.layers:
            self.layers.push_back(_matrix(layer))
        layout = packed.layout
        self.network.layout.vocab_size = layout.vocab_size
        self.network.layout.blank = layout.blank
        self.network.layout.num_blanks = len(layout.blank_frames)
        self.network.layout.num_durations = len(layout.durations)
        self.network.layout.blank_frames = <const int32_t*>_address(layout.blank_frames)
        self.network.layout.durations = NULL
        if len(layout.durations):
            self.network.layout.durations = <const int32_t*>_address(layout.durations)
        self.network.activation = <Activation><int>packed.activation
        self.network.encoder_size = packed.encoder.inputs
        self.network.predictor_size = packed.predictor_size
        self.network.joint_size = packed.joint_size
        self.network.hidden = packed.hidden
        self.network.joint = packed.encoder.outputs
        self.network.table_kind = <TableKind><int>packed.table_kind
        self.network.table_width = packed.table.shape[1]
        self.network.table = <const float*>_address(packed.table)
        self.network.num_layers = <int>self.layers.size()
        self.network.num_cells = packed.cells
        self.network.layers = self.layers.data()
        self.network.encoder = _matrix(packed.encoder)
        self.network.output = _matrix(packed.output)
        if packed.prediction is not None:
            self.network.prediction = _matrix(packed.prediction)
        if packed.screen is not None:
            self.network.screen = _matrix(packed.screen.matrix)
            self.network.weight_norms = <const float*>_address(packed.screen.norms)
            self.network.weight_errors = <const float*>_address(packed.screen.errors)
            self.network.screened_slots = packed.screen.slots

    def greedy(self, list utterances, const int32_t[::1] order, int32_t[:, ::1] positions,
               float[:, ::1] prediction, float[:, :, ::1] hidden, float[:, :, ::1] cell, object options, masks,
               int threads, int64_t[::1] counts=None, int64_t[:, ::1] nanoseconds=None):
        """Greedy search over B > 0 utterances.

        Parameters
        ----------
        utterances:
            The encoder output: B arrays float32 [E, T], in any memory layout; T may exceed the utterance's length.
        order:
            [B], a permutation: the order in which utterances are decoded.
        positions:
            int32 [3, B]: next frame, tokens emitted there, length. The first two are updated.
        prediction, hidden, cell:
            [B, J], [L, B, H], [C, B, H]: the predictor states; updated. C is the number of `PackedNetwork.cells`.
        options:
            `tdtdecode.options.GREEDY_OPTIONS`.
        masks:
            The tokens that each utterance may emit.
        counts, nanoseconds:
            int64 [`traces.COUNTS`] and [threads, `traces.PHASES`], to which the decode adds its own; None: it is not
            measured.

        Returns
        -------
        int32 [4, N]: utterance, token, frame and duration of every emission; and float32 [2, N]: its two log-probs. If
        the options ask for a trace, blanks are among the emissions.
        """
        cdef Py_ssize_t count = len(utterances)
        if positions.shape[0] != 3 or positions.shape[1] != count \
                or order.shape[0] != count or prediction.shape[0] != count \
                or prediction.shape[1] != self.network.joint_size or not count or threads < 1:
            raise ValueError("arrays do not fit the network")
        self._check_states(hidden, self.network.num_layers, count)
        self._check_states(cell, self.network.num_cells, count)
        cdef vector[FrameSource] sources
        self._sources(utterances, positions[2], &sources)
        cdef const unsigned char[:, ::1] table = masks.table
        cdef const int32_t[::1] numbers = masks.numbers
        if numbers.shape[0] < count or table.shape[0] and table.shape[1] != self.network.layout.vocab_size + 1:
            raise ValueError("masks must be [M, V + 1], with a number for each utterance")
        for i in range(count):
            if numbers[i] >= table.shape[0]:
                raise ValueError("the number of a mask must be below M")
        cdef Utterances batch
        batch.masks.table = &table[0, 0] if table.shape[0] else NULL
        batch.masks.numbers = &numbers[0] if table.shape[0] else NULL
        batch.masks.entries = table.shape[1]
        batch.count = <int>count
        batch.sources = sources.data()
        batch.order = &order[0]
        batch.frame = &positions[0, 0]
        batch.symbols = &positions[1, 0]
        batch.lengths = &positions[2, 0]
        batch.prediction = &prediction[0, 0]
        batch.hidden = &hidden[0, 0, 0] if self.network.num_layers else NULL
        batch.cell = &cell[0, 0, 0] if self.network.num_cells else NULL
        cdef GreedyOptions read
        cdef bytes memory = options.tobytes()
        if len(memory) != sizeof(GreedyOptions):
            raise ValueError("options must be a GREEDY_OPTIONS")
        memcpy(&read, <const char*>memory, sizeof(GreedyOptions))
        cdef Emissions emissions
        cdef FusedGreedy* search
        cdef Profile profile
        cdef bint profiled = _profile(counts, nanoseconds, threads, &profile)
        with nogil:
            search = new FusedGreedy(self.network, self.isa[0], read, batch, threads)
            try:
                search.run(&emissions, &profile if profiled else NULL)
            finally:
                del search
        cdef Py_ssize_t emitted = <Py_ssize_t>emissions.token.size()
        cdef int32_t[:, ::1] log = np.empty((4, emitted), np.int32)
        cdef float[:, ::1] logprobs = np.empty((2, emitted), np.float32)
        if emitted:
            memcpy(&log[0, 0], emissions.utterance.data(), 4 * emitted)
            memcpy(&log[1, 0], emissions.token.data(), 4 * emitted)
            memcpy(&log[2, 0], emissions.frame.data(), 4 * emitted)
            memcpy(&log[3, 0], emissions.duration.data(), 4 * emitted)
            memcpy(&logprobs[0, 0], emissions.token_logprob.data(), 4 * emitted)
            memcpy(&logprobs[1, 0], emissions.duration_logprob.data(), 4 * emitted)
        return np.asarray(log), np.asarray(logprobs)

    def beam(self, size_t address, list utterances, const int32_t[::1] order, const int32_t[::1] lengths,
             const int64_t[::1] places, const float[:, ::1] prediction, const float[:, :, ::1] hidden,
             const float[:, :, ::1] cell, int threads, bint keep,
             int64_t[::1] counts=None, int64_t[:, ::1] nanoseconds=None):
        """Beam search over B > 0 utterances.

        Parameters
        ----------
        address:
            The address of a `_beam.BeamEngine`'s search, whose beams are started or restored.
        utterances, order:
            As for `greedy`.
        lengths, places:
            [B], frames of each utterance; [B + 1], where the states of each utterance begin.
        prediction, hidden, cell:
            [N, J], [L, N, H], [C, N, H]: the predictor states of all beams.
        keep:
            Whether to return the states to go on from.
        counts, nanoseconds:
            As for `greedy`.

        Returns
        -------
        The predictor states that the beams need to go on, [N, J], [L, N, H], [C, N, H], utterance by utterance; N = 0
        without ``keep``. None if a user's function failed.
        """
        cdef Py_ssize_t count = len(utterances), layers = self.network.num_layers, width = self.network.predictor_size
        cdef Py_ssize_t cells = self.network.num_cells
        cdef Py_ssize_t joint = self.network.joint_size, states = prediction.shape[0]
        if order.shape[0] != count or lengths.shape[0] != count or places.shape[0] != count + 1 or not count \
                or threads < 1 or prediction.shape[1] != joint or places[count] != states:
            raise ValueError("arrays do not fit the network")
        self._check_states(hidden, layers, states)
        self._check_states(cell, cells, states)
        cdef vector[FrameSource] sources
        self._sources(utterances, lengths, &sources)
        cdef BeamUtterances batch
        batch.count = <int>count
        batch.sources = sources.data()
        batch.lengths = &lengths[0]
        batch.order = &order[0]
        batch.places = &places[0]
        batch.states = states
        batch.prediction = &prediction[0, 0]
        batch.hidden = &hidden[0, 0, 0] if layers else NULL
        batch.cell = &cell[0, 0, 0] if cells else NULL
        cdef vector[PredictorStates] after
        after.resize(count if keep else 0)
        cdef bint good = False
        cdef Profile profile
        cdef bint profiled = _profile(counts, nanoseconds, threads, &profile)
        with nogil:
            good = run_beams(self.network, self.isa[0], <BeamSearch*><uintptr_t>address, batch, threads,
                             &after if keep else NULL, &profile if profiled else NULL)
        if not good:
            return None
        numbers = [<Py_ssize_t>after[i].prediction.size() // joint for i in range(<Py_ssize_t>after.size())]
        cdef float[:, ::1] kept_prediction = np.empty((sum(numbers), joint), np.float32)
        cdef float[:, :, ::1] kept_hidden = np.empty((sum(numbers), layers, width), np.float32)
        cdef float[:, :, ::1] kept_cell = np.empty((sum(numbers), cells, width), np.float32)
        cdef Py_ssize_t first = 0
        for i in range(len(numbers)):
            memcpy(&kept_prediction[first, 0], after[i].prediction.data(), 4 * after[i].prediction.size())
            if layers:
                memcpy(&kept_hidden[first, 0, 0], after[i].hidden.data(), 4 * after[i].hidden.size())
            if cells:
                memcpy(&kept_cell[first, 0, 0], after[i].cell.data(), 4 * after[i].cell.size())
            first += numbers[i]
        return (
            np.asarray(kept_prediction), np.asarray(kept_hidden).transpose(1, 0, 2),
            np.asarray(kept_cell).transpose(1, 0, 2),
        )

    cdef int _check_states(self, const float[:, :, ::1] states, Py_ssize_t vectors, Py_ssize_t count) except -1:
        if states.shape[0] != vectors or (vectors and (
                states.shape[1] != count or states.shape[2] != self.network.predictor_size)):
            raise ValueError("states do not fit the network")
        return 0

    cdef int _sources(self, list utterances, const int32_t[:] lengths, vector[FrameSource]* sources) except -1:
        """Check every array and list where its frames lie."""
        cdef FrameSource source
        cdef const float[:, :] frames
        for i in range(len(utterances)):
            frames = utterances[i]
            if frames.shape[0] != self.network.encoder_size or frames.shape[1] < lengths[i]:
                raise ValueError("frames do not fit the network, or are too few")
            source.data = &frames[0, 0] if frames.shape[1] else NULL
            source.element = frames.strides[0] // <Py_ssize_t>sizeof(float)
            source.frame = frames.strides[1] // <Py_ssize_t>sizeof(float)
            sources.push_back(source)
        return 0
