"""Token-and-duration transducer loss on a packed lattice. Numba compiles the forward-backward pass.

The loss is -log P, where P is the sum over alignments of Xu et al., "Efficient Sequence Transduction by Jointly
Predicting Tokens and Durations" (2023), equations 5-8 and appendix; sigma is their logit under-normalisation:

    alpha(t, u) = sum_d [ alpha(t-d, u)   blank(t-d, u)     dur_d(t-d, u)      for d > 0
                        + alpha(t-d, u-1) label(t-d, u-1)   dur_d(t-d, u-1) ]
    P           = sum_{d > 0} alpha(T-d, U) blank(T-d, U) dur_d(T-d, U)

For each frame t, a lattice has only the cells first[t] <= u < stop[t]. All cells of a batch are packed one after
another, frame by frame, with u running fastest. So padding costs nothing. Nor do cells that are known to be impossible,
here because sentences were joined at known times.
"""

from dataclasses import dataclass

import numba
import numpy as np
import torch


@dataclass
class Lattice:
    """N cells of B utterances. In every array the utterances follow each other.

    cell_frame, cell_state (int64 [N]): each cell's place among the packed encoder frames and predictor states.
    cell_label (int64 [N]): the next label, which leads from the cell to u + 1; blank if there is none.
    first, stop (int64 [sum T]): the range of u of each frame. offset (int64 [sum T]): each frame's first cell.
    frames, labels (int64 [B]): T and U of each utterance.
    """

    cell_frame: np.ndarray
    cell_state: np.ndarray
    cell_label: np.ndarray
    first: np.ndarray
    stop: np.ndarray
    offset: np.ndarray
    frames: np.ndarray
    labels: np.ndarray


def build_lattice(
    frames: list[int],
    labels: list[list[int]],
    blank: int,
    max_frames: int,
    max_states: int,
    ranges: list[tuple[np.ndarray, np.ndarray]] | None = None,
) -> Lattice:
    """The lattice of a batch whose encoder output is [B, max_frames, .] and predictor output [B, max_states, .].

    ranges: first and stop ([T] each) for every utterance. None allows all cells, 0 <= u <= U.
    """
    cell_frame, cell_state, cell_label, firsts, stops, offsets = [], [], [], [], [], []
    cells = 0
    for b, (count, ids) in enumerate(zip(frames, labels)):
        if ranges is None:
            first, stop = np.zeros(count, np.int64), np.full(count, len(ids) + 1, np.int64)
        else:
            first, stop = ranges[b]
        width = stop - first
        offset = np.cumsum(width) - width
        t = np.repeat(np.arange(count), width)
        u = np.arange(width.sum()) - np.repeat(offset - first, width)
        cell_frame.append(b * max_frames + t)
        cell_state.append(b * max_states + u)
        cell_label.append(np.append(np.asarray(ids, np.int64), blank)[u])
        firsts.append(first)
        stops.append(stop)
        offsets.append(offset + cells)
        cells += len(u)
    packed = (np.concatenate(parts) for parts in (cell_frame, cell_state, cell_label, firsts, stops, offsets))
    return Lattice(*packed, np.asarray(frames, np.int64), np.asarray([len(ids) for ids in labels], np.int64))


@numba.njit(cache=True)
def _log_add(a, b):
    if a < b:
        a, b = b, a
    if b == -np.inf:
        return a
    return a + np.log1p(np.exp(b - a))


@numba.njit(cache=True)
def _forward_backward(blank_lp, label_lp, duration_lp, durations, first, stop, offset, frames, labels):
    """The inputs are log-probs of each cell: of blank and label [N], and of the durations [N, D].

    Returns losses [B] and the posterior probability of each arc, blank_arc and label_arc [N, D].
    """
    cells, n_durations = duration_lp.shape
    losses = np.empty(len(frames))
    blank_arc = np.zeros((cells, n_durations), np.float32)
    label_arc = np.zeros((cells, n_durations), np.float32)
    alpha = np.full(cells, -np.inf)
    beta = np.full(cells, -np.inf)
    base = 0
    for b in range(len(frames)):
        n_frames, n_labels = frames[b], labels[b]
        total = -np.inf
        if first[base] == 0:
            alpha[offset[base]] = 0.0
        for t in range(n_frames):
            for u in range(first[base + t], stop[base + t]):
                cell = offset[base + t] + u - first[base + t]
                if alpha[cell] == -np.inf:
                    continue
                for d in range(n_durations):
                    target = t + durations[d]
                    step = alpha[cell] + duration_lp[cell, d]
                    if durations[d] > 0:
                        if target == n_frames and u == n_labels:
                            total = _log_add(total, step + blank_lp[cell])
                        if target < n_frames and first[base + target] <= u < stop[base + target]:
                            to = offset[base + target] + u - first[base + target]
                            alpha[to] = _log_add(alpha[to], step + blank_lp[cell])
                    if u < n_labels and target < n_frames and first[base + target] <= u + 1 < stop[base + target]:
                        to = offset[base + target] + u + 1 - first[base + target]
                        alpha[to] = _log_add(alpha[to], step + label_lp[cell])
        losses[b] = -total
        if total > -np.inf:
            for t in range(n_frames - 1, -1, -1):
                for u in range(stop[base + t] - 1, first[base + t] - 1, -1):
                    cell = offset[base + t] + u - first[base + t]
                    for d in range(n_durations):
                        target = t + durations[d]
                        if durations[d] > 0:
                            onward = -np.inf
                            if target == n_frames and u == n_labels:
                                onward = 0.0
                            elif target < n_frames and first[base + target] <= u < stop[base + target]:
                                onward = beta[offset[base + target] + u - first[base + target]]
                            arc = duration_lp[cell, d] + blank_lp[cell] + onward
                            beta[cell] = _log_add(beta[cell], arc)
                            blank_arc[cell, d] = np.exp(alpha[cell] + arc - total)
                        if u < n_labels and target < n_frames and first[base + target] <= u + 1 < stop[base + target]:
                            onward = beta[offset[base + target] + u + 1 - first[base + target]]
                            arc = duration_lp[cell, d] + label_lp[cell] + onward
                            beta[cell] = _log_add(beta[cell], arc)
                            label_arc[cell, d] = np.exp(alpha[cell] + arc - total)
        base += n_frames
    return losses, blank_arc, label_arc


class _TDTLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, lattice, durations, sigma):
        n_durations = len(durations)
        tokens, spans = rows[:, :-n_durations], rows[:, -n_durations:]
        blank = tokens.shape[1] - 1
        normaliser = tokens.logsumexp(1, keepdim=True)
        duration_lp = spans.log_softmax(1)
        label = torch.from_numpy(lattice.cell_label)[:, None]
        blank_lp = (tokens[:, blank:] - normaliser - sigma)[:, 0]
        label_lp = (tokens.gather(1, label) - normaliser - sigma)[:, 0]
        losses, blank_arc, label_arc = _forward_backward(
            blank_lp.numpy(),
            label_lp.numpy(),
            duration_lp.numpy(),
            np.asarray(durations, np.int64),
            lattice.first,
            lattice.stop,
            lattice.offset,
            lattice.frames,
            lattice.labels,
        )
        blank_arc, label_arc = torch.from_numpy(blank_arc), torch.from_numpy(label_arc)
        arcs = blank_arc + label_arc
        occupancy = arcs.sum(1, keepdim=True)
        gradient = torch.empty_like(rows)
        torch.exp(tokens - normaliser, out=gradient[:, :-n_durations]).mul_(occupancy)
        gradient[:, blank] -= blank_arc.sum(1)
        gradient[:, :-n_durations].scatter_add_(1, label, -label_arc.sum(1, keepdim=True))
        gradient[:, -n_durations:] = duration_lp.exp() * occupancy - arcs
        ctx.save_for_backward(gradient)
        return torch.from_numpy(losses).sum().to(rows.dtype)

    @staticmethod
    def backward(ctx, upstream):
        return ctx.saved_tensors[0].mul_(upstream), None, None, None


def tdt_loss(rows: torch.Tensor, lattice: Lattice, durations=(0, 1, 2, 3, 4), sigma: float = 0.0) -> torch.Tensor:
    """The loss of a batch, summed over its utterances.

    rows: joint logits float32 [N, V + 1 + D] on the CPU, a row for each cell of the lattice, with blank as last token.
    sigma: subtracted from the token log-probabilities.
    """
    return _TDTLoss.apply(rows, lattice, tuple(durations), sigma)
