# cython: language_level=3
"""Beam search over many utterances in C++. Its specification is `tdtdecode.kernels.reference_beam.BeamEngine`."""

import numpy as np

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint64_t, uintptr_t
from libc.string cimport memcpy
from libcpp.memory cimport unique_ptr
from libcpp.vector cimport vector

from .beam_steps import CANDIDATE


cdef extern from "tdt/row.h" namespace "tdt":
    cdef cppclass RowLayout:
        int vocab_size
        int blank
        int num_blanks
        int num_durations
        const int32_t* blank_frames
        const int32_t* durations
        int width()

cdef extern from "tdt/options.h" namespace "tdt":
    cdef cppclass GreedyOptions:
        pass
    cdef cppclass BeamOptions:
        pass

cdef extern from "row_kernels.h" namespace "tdt::cpu":
    cdef cppclass RankedRow:
        pass
    ctypedef void (*RankRow)(const float*, const RowLayout&, const float*, const unsigned char*, int,
                             const BeamOptions&, RankedRow*) noexcept nogil

cdef extern from "fusion.h" namespace "tdt::cpu":
    cdef cppclass Automaton:
        const int64_t* first_arc
        const int32_t* arc_token
        const float* arc_weight
        const int32_t* arc_target
        const int32_t* backoff_state
        const float* backoff_weight
        const float* final_weight
    cdef cppclass ScoringFunction:
        int state_size
        int32_t (*advance)(const int64_t*, int64_t, int64_t*) noexcept nogil
        int32_t (*scores)(const int64_t*, float*) noexcept nogil
    cdef cppclass Fusion:
        float weight
        Automaton automaton
        ScoringFunction function
        int first
    cdef enum class FailureKind "tdt::cpu::FusionFailure::Kind"(int):
        none
    cdef cppclass FusionFailure:
        FailureKind kind
        int fusion
        int64_t token
        vector[int64_t] state
    cdef cppclass Fusions:
        vector[Fusion] list
        int state_size
        int entries
        int blank

cdef extern from "beam_trace.h" namespace "tdt::cpu":
    cdef cppclass Candidate:
        pass
    cdef cppclass BeamTrace:
        vector[Candidate] candidates
        vector[int32_t] beam

cdef extern from "beam.h" namespace "tdt::cpu":
    cdef cppclass Record:
        int32_t previous, token, frame, duration
        float token_logprob, duration_logprob, statistic
    cdef cppclass BeamHypothesis:
        double score, best
        uint64_t prefix
        int32_t frame, symbols, length, record, slot, parent, token, place
    cdef cppclass BeamSizes:
        int hypotheses
        int slots
    cdef cppclass Prediction:
        int32_t parent, token, slot
    cdef cppclass Scoring:
        int32_t slot, frame, place
    cdef cppclass BeamResult "tdt::cpu::Beam::Result":
        double score
        int32_t record
        int32_t hypothesis
    cdef cppclass Beam:
        Beam(const BeamOptions&, const RowLayout&, const Fusions&, const unsigned char*) except +
        void start(const int64_t*) except +
        bint open(int) except + nogil
        bint request() except + nogil
        const vector[Prediction]& predictions() nogil
        const vector[Scoring]& scorings() nogil
        void rank(const Scoring&, const float*, RankRow) noexcept nogil
        vector[BeamResult] results() except +
        int32_t settled()
        vector[int32_t] used_slots() except +
        void close() except +
        BeamSizes sizes
        int first_frame
        vector[BeamHypothesis] hypotheses
        vector[Record] records
        vector[int64_t] fusion_states
        FusionFailure failure
        unique_ptr[BeamTrace] trace
    cdef cppclass BeamSearch:
        BeamOptions options
        RowLayout layout
        Fusions fusions
        vector[int32_t] durations
        vector[int32_t] blank_frames
        vector[unique_ptr[Beam]] beams


cdef const void* _address(array) except? NULL:
    return <const void*><uintptr_t>array.ctypes.data


cdef class BeamEngine:
    cdef BeamSearch search
    cdef RankRow kernel
    cdef object kept
    cdef readonly int slots

    def __cinit__(self, size_t rank_row, layout, options, fusions, masks, int batch, bint trace=False):
        cdef int vocab_size = layout.vocab_size, blank = layout.blank
        cdef const unsigned char[:, ::1] mask_table = masks.table
        cdef const int32_t[::1] numbers = masks.numbers
        cdef const unsigned char* allowed
        self.kernel = <RankRow>rank_row
        self.kept = fusions, masks
        for frames in layout.durations:
            self.search.durations.push_back(frames)
        for frames in layout.blank_frames:
            self.search.blank_frames.push_back(frames)
        self.search.layout.vocab_size = vocab_size
        self.search.layout.blank = blank
        self.search.layout.num_blanks = <int>self.search.blank_frames.size()
        self.search.layout.blank_frames = self.search.blank_frames.data()
        self.search.layout.num_durations = <int>self.search.durations.size()
        self.search.layout.durations = self.search.durations.data()
        cdef bytes memory = options.tobytes()
        # Padding can make structures with different fields equally long, so the part is compared as well.
        if len(memory) != sizeof(BeamOptions) or options["greedy"].nbytes != sizeof(GreedyOptions):
            raise ValueError("options must be a BEAM_OPTIONS")
        memcpy(&self.search.options, <const char*>memory, sizeof(BeamOptions))
        self.search.fusions.entries = vocab_size + 1
        self.search.fusions.blank = blank
        self.search.fusions.state_size = 0
        cdef Fusion fusion
        for bound in fusions:
            fusion.weight = bound.weight
            fusion.first = self.search.fusions.state_size
            if bound.function is None:
                table = bound.automaton
                fusion.automaton.first_arc = <const int64_t*>_address(table.first_arc)
                fusion.automaton.arc_token = <const int32_t*>_address(table.arc_token)
                fusion.automaton.arc_weight = <const float*>_address(table.arc_weight)
                fusion.automaton.arc_target = <const int32_t*>_address(table.arc_target)
                fusion.automaton.backoff_state = <const int32_t*>_address(table.backoff_state)
                fusion.automaton.backoff_weight = <const float*>_address(table.backoff_weight)
                fusion.automaton.final_weight = <const float*>_address(table.final_weight)
                fusion.function.state_size = 1
                fusion.function.scores = NULL
                fusion.function.advance = NULL
            else:
                fusion.function.state_size = bound.state_size
                fusion.function.scores = <int32_t (*)(const int64_t*, float*) noexcept nogil><uintptr_t>(
                    bound.function.scores_address)
                fusion.function.advance = <int32_t (*)(const int64_t*, int64_t, int64_t*) noexcept nogil><uintptr_t>(
                    bound.function.advance_address)
            self.search.fusions.state_size += fusion.function.state_size
            self.search.fusions.list.push_back(fusion)
        if numbers.shape[0] < batch or mask_table.shape[0] and mask_table.shape[1] != vocab_size + 1:
            raise ValueError("masks must be [M, V + 1], with a number for each utterance")
        for utterance in range(batch):
            if numbers[utterance] >= mask_table.shape[0]:
                raise ValueError("the number of a mask must be below M")
            allowed = &mask_table[numbers[utterance], 0] if numbers[utterance] >= 0 else NULL
            self.search.beams.push_back(unique_ptr[Beam](
                new Beam(self.search.options, self.search.layout, self.search.fusions, allowed)))
            if trace:
                self.search.beams.back().get().trace.reset(new BeamTrace())
        self.slots = 0
        if batch:
            self.slots = self.search.beams[0].get().sizes.slots

    @property
    def address(self):
        return <uintptr_t>&self.search

    def start(self, int utterance, const int64_t[::1] fusion_state):
        if fusion_state.shape[0] != self.search.fusions.state_size:
            raise ValueError("fusion_state does not fit the fusions")
        cdef const int64_t* states = NULL
        if fusion_state.shape[0]:
            states = &fusion_state[0]
        self.search.beams[utterance].get().start(states)

    def restore(self, int utterance, state):
        cdef Beam* beam = self.search.beams[utterance].get()
        cdef const double[:, ::1] scores = state.scores
        cdef const uint64_t[::1] prefixes = state.prefixes
        cdef const int32_t[:, ::1] numbers = state.numbers
        cdef const int32_t[:, ::1] records = state.records
        cdef const float[:, ::1] logprobs = state.logprobs
        cdef const int64_t[:, ::1] fusion = state.fusion
        cdef BeamHypothesis hypothesis
        cdef Record record
        cdef Py_ssize_t i, j
        beam.hypotheses.clear()
        for i in range(scores.shape[1]):
            hypothesis.score, hypothesis.best = scores[0, i], scores[1, i]
            hypothesis.prefix = prefixes[i]
            hypothesis.frame, hypothesis.symbols, hypothesis.length = numbers[0, i], numbers[1, i], numbers[2, i]
            hypothesis.record, hypothesis.slot, hypothesis.parent = numbers[3, i], numbers[4, i], numbers[5, i]
            hypothesis.token, hypothesis.place = numbers[6, i], -1
            beam.hypotheses.push_back(hypothesis)
        beam.records.clear()
        for i in range(records.shape[1]):
            record.previous, record.token, record.frame = records[0, i], records[1, i], records[2, i]
            record.duration = records[3, i]
            record.token_logprob, record.duration_logprob = logprobs[0, i], logprobs[1, i]
            record.statistic = logprobs[2, i]
            beam.records.push_back(record)
        beam.fusion_states.clear()
        for i in range(fusion.shape[0]):
            for j in range(fusion.shape[1]):
                beam.fusion_states.push_back(fusion[i, j])
        beam.first_frame = state.first_frame

    def open(self, const int32_t[::1] lengths):
        cdef Py_ssize_t utterance
        cdef bint good = True
        with nogil:
            for utterance in range(lengths.shape[0]):
                good = self.search.beams[utterance].get().open(lengths[utterance])
                if not good:
                    break
        if not good:
            self._raise(utterance)

    def request(self):
        cdef Py_ssize_t utterance, i, count = <Py_ssize_t>self.search.beams.size(), predictions = 0, scorings = 0
        cdef bint good = True
        cdef Beam* beam
        cdef Prediction prediction
        cdef Scoring scoring
        with nogil:
            for utterance in range(count):
                beam = self.search.beams[utterance].get()
                good = beam.request()
                if not good:
                    break
                predictions += <Py_ssize_t>beam.predictions().size()
                scorings += <Py_ssize_t>beam.scorings().size()
        if not good:
            self._raise(utterance)
        cdef int32_t[:, ::1] predicted = np.empty((3, predictions), np.int32)
        cdef int32_t[:, ::1] scored = np.empty((3, scorings), np.int32)
        predictions = scorings = 0
        with nogil:
            for utterance in range(count):
                beam = self.search.beams[utterance].get()
                for i in range(<Py_ssize_t>beam.predictions().size()):
                    prediction = beam.predictions()[i]
                    predicted[0, predictions] = <int32_t>(utterance * self.slots + prediction.parent)
                    predicted[1, predictions] = prediction.token
                    predicted[2, predictions] = <int32_t>(utterance * self.slots + prediction.slot)
                    predictions += 1
                for i in range(<Py_ssize_t>beam.scorings().size()):
                    scoring = beam.scorings()[i]
                    scored[0, scorings] = <int32_t>(utterance * self.slots + scoring.slot)
                    scored[1, scorings] = <int32_t>utterance
                    scored[2, scorings] = scoring.frame
                    scorings += 1
        return np.asarray(predicted), np.asarray(scored)

    def answer(self, const float[:, ::1] rows):
        cdef Py_ssize_t utterance, i = 0, j, count = <Py_ssize_t>self.search.beams.size()
        cdef Beam* beam
        if rows.shape[1] != self.search.layout.width():
            raise ValueError("rows must be [N, V + B + D]")
        with nogil:
            for utterance in range(count):
                beam = self.search.beams[utterance].get()
                for j in range(<Py_ssize_t>beam.scorings().size()):
                    if i < rows.shape[0]:
                        beam.rank(beam.scorings()[j], &rows[i, 0], self.kernel)
                    i += 1
        if i != rows.shape[0]:
            raise ValueError("there must be one row for each that was asked for")

    def results(self, int utterance, int nbest):
        cdef Beam* beam = self.search.beams[utterance].get()
        cdef vector[BeamResult] results = beam.results()
        cdef Py_ssize_t count = min(nbest, <Py_ssize_t>results.size())
        return [(results[i].score, *self._chain(beam, results[i].record)) for i in range(count)]

    def trace(self, int utterance):
        cdef Beam* beam = self.search.beams[utterance].get()
        cdef BeamTrace* trace = beam.trace.get()
        cdef size_t count = trace.candidates.size()
        if CANDIDATE.itemsize != sizeof(Candidate):
            raise ValueError("CANDIDATE has another layout than the compiled search")
        candidates = np.empty(count, CANDIDATE)
        if count:
            memcpy(<void*>_address(candidates), trace.candidates.data(), count * sizeof(Candidate))
        cdef vector[BeamResult] results = beam.results()
        ends = [trace.beam[results[i].hypothesis] for i in range(<Py_ssize_t>results.size())]
        return candidates, np.array(ends, np.int32)

    def settled(self, int utterance):
        cdef Beam* beam = self.search.beams[utterance].get()
        return self._chain(beam, beam.settled())

    cdef _chain(self, Beam* beam, int32_t last):
        cdef Py_ssize_t count = 0
        cdef int32_t at = last
        cdef Record* record
        while at >= 0:
            count += 1
            at = beam.records[at].previous
        cdef int32_t[:, ::1] numbers = np.empty((3, count), np.int32)
        cdef float[:, ::1] values = np.empty((3, count), np.float32)
        at = last
        while at >= 0:
            count -= 1
            record = &beam.records[at]
            numbers[0, count], numbers[1, count], numbers[2, count] = record.token, record.frame, record.duration
            values[0, count], values[1, count] = record.token_logprob, record.duration_logprob
            values[2, count] = record.statistic
            at = record.previous
        return np.asarray(numbers), np.asarray(values)

    def raise_failure(self):
        """Raise a FusionError if a user's function ended a compiled run."""
        for utterance in range(<Py_ssize_t>self.search.beams.size()):
            if <int>self.search.beams[utterance].get().failure.kind:
                self._raise(utterance)

    def close(self, int utterance):
        cdef Beam* beam = self.search.beams[utterance].get()
        cdef vector[int32_t] slots = beam.used_slots()
        beam.close()
        cdef Py_ssize_t i, count = <Py_ssize_t>beam.hypotheses.size(), kept = <Py_ssize_t>beam.records.size()
        cdef Py_ssize_t width = self.search.fusions.state_size
        cdef BeamHypothesis* h
        cdef Record* r
        scores = np.empty((2, count), np.float64)
        prefixes = np.empty(count, np.uint64)
        numbers = np.empty((7, count), np.int32)
        records = np.empty((4, kept), np.int32)
        logprobs = np.empty((3, kept), np.float32)
        fusion = np.empty((<Py_ssize_t>slots.size() if width else 0, width), np.int64)
        for i in range(count):
            h = &beam.hypotheses[i]
            scores[:, i] = h.score, h.best
            prefixes[i] = h.prefix
            numbers[:, i] = h.frame, h.symbols, h.length, h.record, h.slot, h.parent, h.token
        for i in range(kept):
            r = &beam.records[i]
            records[:, i] = r.previous, r.token, r.frame, r.duration
            logprobs[:, i] = r.token_logprob, r.duration_logprob, r.statistic
        for i in range(fusion.size):
            fusion.flat[i] = beam.fusion_states[i]
        return scores, prefixes, numbers, records, logprobs, fusion, beam.first_frame, np.array(slots, np.intp)

    cdef _raise(self, Py_ssize_t utterance):
        from .beam_state import FusionError

        cdef FusionFailure* failure = &self.search.beams[utterance].get().failure
        raise FusionError(int(failure.kind), failure.fusion, failure.token, list(failure.state))
