"""The steps of a beam search over one utterance, as loops over arrays.

Run by Python they are the specification. `jit.py` compiles the same lines with Numba, and ``csrc/cpu/beam.cpp`` has the
same steps in C++.

Hypotheses, records, ranked rows and entries are structured arrays. Arrays may be longer than needed: then only their
first elements are used, so that the same array serves every step.
"""

from __future__ import annotations

import math

import numpy as np

kernel = globals().get("kernel", lambda function: function)  # jit.py puts Numba's decorator here before it loads this

GREEDY, TSD, MALSD = 0, 1, 2
MAX_PROB, POWER_SUM, POWER_LOG_SUM, SHANNON = 1, 2, 3, 4
LM_WEIGHTED_FULL = 1
KEPT, BLANK = -2, -1  # ranks of entries without a new token: no step, or a blank
LARGEST = np.float32(np.finfo(np.float32).max)
LARGEST_BLANK = np.float32(0.99)  # NeMo's bound on blank's probability, chosen for bfloat16
EMPTY_PREFIX = 0x243F6A8885A308D3

HYPOTHESIS = np.dtype(
    [("score", "f8"), ("best", "f8"), ("prefix", "u8")]
    + [(name, "i4") for name in ("frame", "symbols", "length", "record", "slot", "parent", "token", "place")]
)
"""A hypothesis.

- `score`: its score, over all alignments merged into it; includes fusion and blank penalties;
- `best`: the score of the best of these alignments;
- `prefix`: a hash of its tokens; `length`: their number;
- `frame`, `symbols`: the next frame, and the number of tokens emitted there so far;
- `record`: the last record of the best alignment, -1 if there are no tokens yet;
- `slot`: the slot of the predictor state after these tokens. It is -1 as long as that state is not computed; then it
  follows from the state in slot `parent` by a step on the last `token`;
- `place`: the place of its ranked row, -1 if the row was not asked for yet.
"""
RECORD = np.dtype(
    [(name, "i4") for name in ("previous", "token", "frame", "duration")]
    + [(name, "f4") for name in ("token_logprob", "duration_logprob", "statistic")]
)
"""A token that was emitted. `previous` is the index of the record of the token before it, -1 for the first."""
RANKED = np.dtype(
    [("count", "i4"), ("largest_index", "i4"), ("longest", "i4"), ("blank", "i4")]
    + [(name, "f4") for name in ("largest", "raised", "blank_logit", "statistic")]
    + [(name, "f4") for name in ("token_normalizer", "duration_normalizer")]
)
"""What a search reads of a joint row, beside the log-probabilities of its best tokens, its blanks and its durations.

- `count`: the number of best tokens;
- `largest`, `largest_index`: the best logit of all tokens, without any bonus, and its index (-1: no number);
- `raised`: how much the tokens that may be emitted are raised in scores: as far as the best of them is below `largest`;
- `longest`: the index of the largest duration entry;
- `blank`, `blank_logit`: the best blank, counted from the first one, and its logit;
- `statistic`: the sum that the confidence measure needs;
- `token_normalizer`, `duration_normalizer`: at temperature T, an entry of log-probability x has the log-probability
  x / T minus the normalizer of its part.
"""
ENTRY = np.dtype(
    [("score", "f8"), ("best", "f8"), ("prefix", "u8")]
    + [(name, "i4") for name in ("frame", "symbols", "length")]
    + [(name, "i4") for name in ("hypothesis", "rank", "origin", "origin_rank", "duration", "candidate")]
)
"""A hypothesis of the next step.

Its tokens are those of `hypothesis`, followed by the token of rank `rank`. Its best alignment is that of `origin`,
followed by the token of rank `origin_rank` with the duration of index `duration`. The two can differ if several
hypotheses were merged. `candidate` is its number among the step's candidates, if the search is traced.
"""
CANDIDATE = np.dtype(
    [("score", "f8"), ("total", "f8")]
    + [(name, "i4") for name in ("step", "parent", "token", "frame", "duration", "next_frame")]
    + [(name, "i4") for name in ("into", "alignment", "kept")],
    align=True,
)
"""What a traced search writes down of an entry: how it was before others were merged into it.

- `score`: its own score; `total`: the score together with those that were merged into it;
- `step`: the step of the search;
- `parent`: the kept candidate of the step before that it extends, -1 at the start of the search;
- `token`: a token, or KEPT or BLANK;
- `frame`: the frame of its joint row; `duration`: the predicted one; `next_frame`: where it goes on;
- `into`: the candidate that it was merged into, -1 for none;
- `alignment`: of the candidates merged into it and itself, the one with the best alignment;
- `kept`: whether it is in the beam after the step.

While a step runs, candidates are numbered within it, parents are numbers of hypotheses, and frames are counted from the
start of the chunk. The engine turns these into numbers of the whole search and frames of the stream.
"""


@kernel
def extended_prefix(prefix, token):
    """The hash of a prefix with one more token (the finaliser of splitmix64)."""
    x = prefix + np.uint64(0x9E3779B97F4A7C15) * (np.uint64(token) + np.uint64(1))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@kernel
def log_add(a, b):
    """log(e^a + e^b)."""
    larger, smaller = max(a, b), min(a, b)
    return larger if larger == -np.inf else larger + math.log1p(math.exp(smaller - larger))


@kernel
def sanitized(logits):
    """The logits with -inf for NaN, and the largest finite float32 for +inf."""
    return np.minimum(np.where(np.isnan(logits), np.float32(-np.inf), logits), LARGEST)


@kernel
def rank_row(
    row, bonus, mask, options, layout, ranked, place, tokens, token_logprobs, duration_logprobs, blank_logprobs
):
    """Rank one joint row: find its K best tokens that may be emitted, by logit / temperature + bonus.

    The log-probabilities written are the network's: temperature and bonus do not change them.

    Parameters
    ----------
    row:
        float32 [V + B + D].
    bonus:
        float32 [V + 1], or empty for none.
    mask:
        uint8 [V + 1], 0 for the tokens that may not be emitted; or empty if all may.
    layout:
        The row's layout.
    ranked, place:
        ``ranked[place]`` is written.
    tokens, token_logprobs, duration_logprobs, blank_logprobs:
        int32 [K], float32 [K], float32 [D] and float32 [B], written.
    """
    _, blank, blank_frames, durations = layout
    entries = len(row) - len(durations)
    part = sanitized(row[:entries])
    result = ranked[place]
    result["largest"], result["largest_index"] = -np.inf, -1
    result["blank_logit"], result["blank"] = -np.inf, len(blank_frames) - 1
    result["raised"] = result["token_normalizer"] = result["duration_normalizer"] = 0
    scale = np.float32(np.float32(1) / options["temperature"])
    count, size = 0, len(tokens)
    best_allowed = np.float32(-np.inf)
    for token in range(entries):
        if blank <= token < blank + len(blank_frames):
            if part[token] > result["blank_logit"]:
                result["blank_logit"], result["blank"] = part[token], token - blank
            continue
        if part[token] > result["largest"]:
            result["largest"], result["largest_index"] = part[token], token
        if len(mask) and not mask[token]:
            continue
        best_allowed = max(best_allowed, part[token])
        value = np.float32(part[token] * scale)
        if len(bonus):
            value = min(np.float32(value + bonus[token]), LARGEST)
        if not value > -np.inf or (count == size and not value > token_logprobs[size - 1]):
            continue
        at = count if count < size else size - 1
        count = at + 1
        while at > 0 and token_logprobs[at - 1] < value:
            token_logprobs[at], tokens[at] = token_logprobs[at - 1], tokens[at - 1]
            at -= 1
        token_logprobs[at], tokens[at] = value, token
    if best_allowed > -np.inf:
        result["raised"] = min(np.float32(result["largest"] - best_allowed), LARGEST)
    largest = max(result["largest"], result["blank_logit"])
    if largest > -np.inf:
        logprobs = part - largest
        logprobs = logprobs - np.log(np.sum(np.exp(logprobs)))
        for i in range(count):
            token_logprobs[i] = logprobs[tokens[i]]
        blank_logprobs[:] = logprobs[blank : blank + len(blank_frames)]
        if scale != 1:
            result["token_normalizer"] = normalizer(logprobs, scale)
        result["statistic"] = statistic_of(logprobs, options)
    else:  # no number: the last blank is certain
        count = 0
        blank_logprobs[:] = -np.inf
        blank_logprobs[-1] = 0
        result["statistic"] = 1 if options["statistic"] in (MAX_PROB, POWER_SUM) else 0
    result["count"] = count

    result["longest"] = 0
    if len(durations):
        timing = sanitized(row[entries:])
        longest = np.argmax(timing)
        result["longest"] = longest
        if timing[longest] > -np.inf:
            timing = timing - timing[longest]
            duration_logprobs[:] = timing - np.log(np.sum(np.exp(timing)))
            if scale != 1:
                result["duration_normalizer"] = normalizer(duration_logprobs, scale)
        else:  # no number: the first duration is certain
            duration_logprobs[:] = -np.inf
            duration_logprobs[0] = 0


@kernel
def normalizer(logprobs, scale):
    """log(sum(p^scale)). Log-probabilities times ``scale``, minus this, are log-probabilities again."""
    largest = np.max(logprobs)
    return np.log(np.sum(np.exp((logprobs - largest) * scale))) + scale * largest


@kernel
def statistic_of(logprobs, options):
    """The sum over the row's token entries that the confidence measure is computed from."""
    kind = options["statistic"]
    if kind == MAX_PROB:
        return np.exp(np.max(logprobs))
    alpha = np.float32(1) if kind == SHANNON else options["alpha"]
    total = np.float32(0)
    if kind:
        for logprob in logprobs:
            power = np.exp(alpha * logprob)
            if kind == POWER_SUM:
                total += power
            elif power > 0:
                total += power * logprob
    return total


@kernel
def same_tokens(records, a, token_a, b, token_b):
    """Whether two sequences of equal length have the same tokens.

    A sequence is a chain of records with last record ``a`` or ``b`` (-1: no records), followed by ``token_a`` or
    ``token_b`` (-1: no such token).
    """
    while True:
        if token_a < 0 and token_b < 0 and a == b:
            return True
        if token_a < 0:
            if a < 0:
                return False
            token_a, a = records[a]["token"], records[a]["previous"]
        if token_b < 0:
            if b < 0:
                return False
            token_b, b = records[b]["token"], records[b]["previous"]
        if token_a != token_b:
            return False
        token_a = token_b = -1


@kernel
def moved(frame, symbols, is_blank, duration, options):
    """The next frame and the symbols there, after a decision; the rules are those of `reference.advance`."""
    if is_blank:
        return frame + max(duration, 1), 0
    if duration > 0:
        return frame + duration, 0
    if symbols + 1 >= options["max_symbols"]:
        return frame + 1, 0
    return frame, symbols + 1


@kernel
def first_in_time(hypotheses, count, length):
    """The earliest position of a hypothesis inside the chunk: the lowest frame, and the fewest symbols there.

    (-1, 0) if all hypotheses are past the end.
    """
    frame, symbols = -1, 0
    for i in range(count):
        h = hypotheses[i]
        if h["frame"] >= length:
            continue
        if frame < 0 or h["frame"] < frame or (h["frame"] == frame and h["symbols"] < symbols):
            frame, symbols = h["frame"], h["symbols"]
    return frame, symbols


@kernel
def ready(hypotheses, count, length, strategy):
    """Whether there is a next step, and the joint rows that it reads are ranked."""
    frame, symbols = first_in_time(hypotheses, count, length)
    if frame < 0:
        return False
    for i in range(count):
        h = hypotheses[i]
        if h["frame"] >= length or h["place"] >= 0:
            continue
        if strategy != TSD or (h["frame"] == frame and h["symbols"] == symbols):
            return False
    return True


@kernel
def keep(entry, hypotheses, i):
    """Make ``entry`` hypothesis i, unchanged."""
    h = hypotheses[i]
    entry["score"], entry["best"], entry["prefix"] = h["score"], h["best"], h["prefix"]
    entry["frame"], entry["symbols"], entry["length"] = h["frame"], h["symbols"], h["length"]
    entry["hypothesis"] = entry["origin"] = i
    entry["rank"] = entry["origin_rank"] = KEPT
    entry["duration"] = 0


@kernel
def extend(entry, hypotheses, i, rank, token, logprob, duration, frames, options):
    """Make ``entry`` hypothesis i with one more step, whose score is ``logprob``.

    ``token`` is -1 for a blank. ``duration`` is an index, ``frames`` the duration itself.
    """
    h = hypotheses[i]
    entry["score"], entry["best"] = h["score"] + logprob, h["best"] + logprob
    entry["prefix"] = h["prefix"] if token < 0 else extended_prefix(h["prefix"], token)
    entry["frame"], entry["symbols"] = moved(h["frame"], h["symbols"], token < 0, frames, options)
    entry["length"] = h["length"] + (token >= 0)
    entry["hypothesis"] = entry["origin"] = i
    entry["rank"] = entry["origin_rank"] = rank
    entry["duration"] = duration


@kernel
def token_of(hypotheses, i, rank, tokens):
    """The token at a rank of hypothesis i's row; -1 if the rank stands for no token."""
    return -1 if rank < 0 else tokens[hypotheses[i]["place"], rank]


@kernel
def same_entries(a, b, hypotheses, records, tokens):
    """Whether two entries have the same tokens."""
    if a["prefix"] != b["prefix"] or a["length"] != b["length"]:
        return False
    return same_tokens(
        records,
        hypotheses[a["hypothesis"]]["record"],
        token_of(hypotheses, a["hypothesis"], a["rank"], tokens),
        hypotheses[b["hypothesis"]]["record"],
        token_of(hypotheses, b["hypothesis"], b["rank"], tokens),
    )


@kernel
def list_candidate(candidates, listed, entry, hypotheses, token, frames):
    """Write down an entry as candidate number ``listed``, if the search is traced: if there is room for candidates.

    ``token`` is KEPT or BLANK where there is none. Returns the number of candidates after that.
    """
    if not len(candidates):
        return listed
    candidate = candidates[listed]
    candidate["score"] = candidate["total"] = entry["score"]
    candidate["parent"], candidate["token"] = entry["hypothesis"], token
    candidate["frame"] = hypotheses[entry["hypothesis"]]["frame"]
    candidate["duration"], candidate["next_frame"] = frames, entry["frame"]
    candidate["into"], candidate["alignment"], candidate["kept"] = -1, listed, 0
    entry["candidate"] = listed
    return listed + 1


@kernel
def merge_candidates(candidates, merged, into, better):
    """Write down that an entry was merged into another one, which has the new score; if the search is traced."""
    if len(candidates):
        candidates[merged["candidate"]]["into"] = into["candidate"]
        candidates[into["candidate"]]["total"] = into["score"]
        if better:
            candidates[into["candidate"]]["alignment"] = merged["candidate"]


@kernel
def merge_last(entries, count, hypotheses, records, tokens, candidates):
    """Merge the last entry into one with the same tokens at the same position, if there is one.

    Returns the number of entries after that.
    """
    new = entries[count - 1]
    for i in range(count - 1):
        other = entries[i]
        if other["frame"] != new["frame"] or other["symbols"] != new["symbols"]:
            continue
        if not same_entries(other, new, hypotheses, records, tokens):
            continue
        other["score"] = log_add(other["score"], new["score"])
        merge_candidates(candidates, new, other, new["best"] > other["best"])
        if new["best"] > other["best"]:
            other["best"] = new["best"]
            other["origin"], other["origin_rank"] = new["origin"], new["origin_rank"]
            other["duration"] = new["duration"]
        return count - 1
    return count


@kernel
def advance_greedy(
    options, layout, hypotheses, ranked, tokens, token_logprobs, duration_logprobs, blank_logprobs, bonus, entries,
    candidates,
):  # fmt: skip
    """Write one entry. The joint row alone decides between blank and token; fusion takes part in choosing the token.

    Returns the numbers of entries and of candidates.
    """
    _, blank, blank_frames, durations = layout
    h = hypotheses[0]
    row = ranked[h["place"]]
    steered = min(np.float32(row["blank_logit"] - options["greedy"]["blank_penalty"]), LARGEST)
    is_blank = row["largest_index"] < 0 or steered > row["largest"]
    if steered == row["largest"]:
        is_blank = is_blank or blank + row["blank"] < row["largest_index"]
    is_blank = is_blank or row["count"] == 0  # no token may be emitted
    index = row["longest"]
    logprob, token = float(blank_logprobs[h["place"], row["blank"]]), -1
    frames = blank_frames[row["blank"]] if is_blank else 0
    if not is_blank:
        token = tokens[h["place"], 0]
        logprob = float(token_logprobs[h["place"], 0])
        if bonus.shape[1]:
            logprob += float(bonus[h["slot"], token])
    if len(durations):
        logprob += float(duration_logprobs[h["place"], index])
        frames = durations[index]
    extend(
        entries[0], hypotheses, 0, BLANK if is_blank else 0, token, logprob, index, frames,
        options["greedy"],
    )  # fmt: skip
    return 1, list_candidate(candidates, 0, entries[0], hypotheses, BLANK if is_blank else token, frames)


@kernel
def advance_tsd(
    options, layout, length, hypotheses, count, records, ranked, tokens, token_logprobs, duration_logprobs,
    blank_logprobs, bonus, entries, candidates,
):  # fmt: skip
    """Extend the hypotheses at the earliest position by their best tokens and by the blanks, with every duration.

    Hypotheses with the same tokens at the same position are merged; only then is the beam pruned. Returns the number of
    entries written, and the number of candidates.
    """
    _, _, blank_frames, durations = layout
    frame, symbols = first_in_time(hypotheses, count, length)
    written = listed = 0
    for i in range(count):
        if hypotheses[i]["frame"] != frame or hypotheses[i]["symbols"] != symbols:
            keep(entries[written], hypotheses, i)
            listed = list_candidate(candidates, listed, entries[written], hypotheses, KEPT, 0)
            written += 1
    for i in range(count):
        h = hypotheses[i]
        if h["frame"] != frame or h["symbols"] != symbols:
            continue
        place = h["place"]
        row, temperature = ranked[place], float(options["temperature"])
        for rank in range(row["count"] + len(blank_frames)):
            moves = 0
            if rank < row["count"]:
                token = tokens[place, rank]
                raised = np.float32(token_logprobs[place, rank] + row["raised"])
                score = float(raised) / temperature - float(row["token_normalizer"])
                if bonus.shape[1]:
                    score += float(bonus[h["slot"], token])
            else:
                which = rank - row["count"]
                rank, token, moves = BLANK, -1, blank_frames[which]
                score = float(blank_logprobs[place, which]) / temperature - float(row["token_normalizer"])
                score -= float(options["greedy"]["blank_penalty"])
            for index in range(max(len(durations), 1)):
                step, frames = score, moves
                if len(durations):
                    step += float(duration_logprobs[place, index]) / temperature - float(row["duration_normalizer"])
                    frames = durations[index]
                entry = entries[written]
                extend(entry, hypotheses, i, rank, token, step, index, frames, options["greedy"])
                listed = list_candidate(candidates, listed, entry, hypotheses, max(token, BLANK), frames)
                written = merge_last(entries, written + 1, hypotheses, records, tokens, candidates)
    return prune(entries, written, options), listed


@kernel
def prune(entries, count, options):
    """Drop an entry if `size` others that are at least as far in the audio score at least as high.

    Also drop it if one of these others scores higher by more than the threshold. The other entries keep their order.
    Returns their number.
    """
    size = options["size"]
    kept = np.zeros(count, np.bool_)
    best = np.empty(size + 1)  # the best scores so far, best first
    ahead = 0
    # Farthest first, then best first, then in the given order.
    order = np.argsort(-entries["score"][:count], kind="mergesort")
    order = order[np.argsort(-entries["frame"][:count][order], kind="mergesort")]
    for i in order:
        score = entries[i]["score"]
        above = 0
        while above < ahead and best[above] >= score:
            above += 1
        if above >= size or (ahead and score < best[0] - options["threshold"]):
            continue
        kept[i] = True
        for j in range(ahead, above, -1):
            best[j] = best[j - 1]
        best[above] = score
        ahead = min(ahead + 1, size)
    last = 0
    for i in range(count):
        if kept[i]:
            entries[last] = entries[i]
            last += 1
    return last


@kernel
def advance_malsd(
    options, layout, length, hypotheses, count, records, ranked, tokens, token_logprobs, duration_logprobs,
    blank_logprobs, bonus, entries, candidates, pairs,
):  # fmt: skip
    """NeMo's modified alignment-length-synchronous decoding, except that durations are looked up in the table.

    It knows one blank. Scores are rounded to float32 wherever NeMo rounds them: in long utterances that decides between
    close hypotheses. ``pairs`` float64 [4, (K + 1) D] is scratch memory. Returns the number of entries written, and the
    number of candidates.
    """
    _, blank_token, blank_frames, durations = layout
    size, width = options["size"], max(len(durations), 1)
    written = listed = 0
    for i in range(count):
        h = hypotheses[i]
        if h["frame"] >= length:
            keep(entries[written], hypotheses, i)
            listed = list_candidate(candidates, listed, entries[written], hypotheses, KEPT, 0)
            written += 1
            continue
        place = h["place"]
        row = ranked[place]
        blank_logprob = blank_logprobs[place, 0]
        blank = np.float32(blank_logprob - options["greedy"]["blank_penalty"])
        steered_blank, shift = blank, np.float32(0)
        if options["blank_mode"] == LM_WEIGHTED_FULL and bonus.shape[1]:
            weights = options["weight_sum"]
            shift = np.float32(weights * np.log1p(-min(np.exp(blank_logprob), LARGEST_BLANK)))
            steered_blank = np.float32(blank * (np.float32(1) + weights))
        ranks, with_blank = row["count"], True
        if options["prune_early"]:  # blank must be among the best without fusion
            above = 0
            for rank in range(row["count"]):
                logprob = np.float32(token_logprobs[place, rank] + row["raised"])
                tie = logprob == blank_logprob and tokens[place, rank] < blank_token
                above += logprob > blank_logprob or tie
            with_blank = above < size
            ranks = min(ranks, size - with_blank)
        found = 0
        for rank in range(ranks + with_blank):
            if rank < ranks:
                token = tokens[place, rank]
                logprob = np.float32(token_logprobs[place, rank] + row["raised"])
                if bonus.shape[1]:
                    logprob = np.float32(logprob + np.float32(shift + bonus[h["slot"], token]))
            else:
                rank, token, logprob = BLANK, blank_token, steered_blank
            for index in range(width):
                step = logprob
                if len(durations):
                    step = np.float32(step + duration_logprobs[place, index])
                pairs[0, found], pairs[1, found], pairs[2, found] = step, rank, index
                pairs[3, found] = token * width + index
                found += 1
        order = np.argsort(pairs[3, :found], kind="mergesort")
        order = order[np.argsort(-pairs[0, :found][order], kind="mergesort")]
        if h["symbols"] >= options["greedy"]["max_symbols"]:
            index = int(pairs[2, order[0]])
            forced = blank if options["prune_early"] else steered_blank
            if len(durations):
                forced = np.float32(forced + duration_logprobs[place, row["longest"]])
            frames = durations[index] if len(durations) else blank_frames[0]
            extend(entries[written], hypotheses, i, BLANK, -1, forced, index, frames, options["greedy"])
            entries[written]["score"] = np.float32(entries[written]["score"])
            listed = list_candidate(candidates, listed, entries[written], hypotheses, BLANK, frames)
            written += 1
            continue
        for pair in order[:size]:
            rank, index = int(pairs[1, pair]), int(pairs[2, pair])
            token = token_of(hypotheses, i, rank, tokens)
            frames = durations[index] if len(durations) else 0
            if rank == BLANK and not len(durations):
                frames = blank_frames[0]
            entry = entries[written]
            extend(entry, hypotheses, i, rank, token, pairs[0, pair], index, frames, options["greedy"])
            # max_symbols takes effect in the next step, by the forced blank above.
            entry["frame"] = h["frame"] + (max(frames, 1) if rank == BLANK else frames)
            entry["symbols"] = 0 if rank == BLANK or frames > 0 else h["symbols"] + 1
            entry["score"] = np.float32(entry["score"])
            listed = list_candidate(candidates, listed, entry, hypotheses, max(token, BLANK), frames)
            written += 1
    order = np.argsort(-entries["score"][:written], kind="mergesort")[:size]
    chosen = entries[:written][order].copy()
    last = 0
    for i in range(len(chosen)):  # equal hypotheses are merged only now, into the first, the best
        same = 0
        while same < last and not (
            entries[same]["frame"] == chosen[i]["frame"]
            and same_entries(entries[same], chosen[i], hypotheses, records, tokens)
        ):
            same += 1
        if same < last:
            entries[same]["score"] = np.float32(log_add(entries[same]["score"], chosen[i]["score"]))
            merge_candidates(candidates, chosen[i], entries[same], False)
        else:
            entries[last] = chosen[i]
            last += 1
    return last, listed


@kernel
def commit(
    entries, count, hypotheses, following, records, record_count, ranked, tokens, token_logprobs, duration_logprobs,
    durations, first_frame,
):  # fmt: skip
    """Write the entries as hypotheses to ``following``, and a record for each token that they emit.

    Returns the number of records after that.
    """
    for i in range(count):
        entry, h = entries[i], following[i]
        following[i] = hypotheses[entry["hypothesis"]]
        if entry["rank"] != KEPT:
            h["place"] = -1
        if entry["rank"] >= 0:
            h["parent"], h["slot"] = h["slot"], -1
            h["token"] = token_of(hypotheses, entry["hypothesis"], entry["rank"], tokens)
        h["score"], h["best"], h["prefix"] = entry["score"], entry["best"], entry["prefix"]
        h["frame"], h["symbols"], h["length"] = entry["frame"], entry["symbols"], entry["length"]
        origin = hypotheses[entry["origin"]]
        h["record"] = origin["record"]
        if entry["origin_rank"] >= 0:
            place = origin["place"]
            record = records[record_count]
            record["previous"], record["token"] = origin["record"], tokens[place, entry["origin_rank"]]
            record["frame"] = first_frame + origin["frame"]
            record["duration"] = durations[entry["duration"]] if len(durations) else 0
            record["token_logprob"] = token_logprobs[place, entry["origin_rank"]]
            record["duration_logprob"] = duration_logprobs[place, entry["duration"]] if len(durations) else 0
            record["statistic"] = ranked[place]["statistic"]
            h["record"] = record_count
            record_count += 1
    return record_count


@kernel
def request(hypotheses, count, records, length, slots, predictions, scorings):
    """List what the hypotheses need next, among ``slots`` slots.

    Writes the predictor steps [P, 3] (parent's slot, token, slot) to ``predictions``, and the joint rows [N, 3] (slot,
    frame, place) to ``scorings``. Returns P and N.
    """
    slot_used = np.zeros(slots, np.bool_)
    place_used = np.zeros(len(hypotheses), np.bool_)
    for i in range(count):
        h = hypotheses[i]
        slot_used[h["slot"] if h["slot"] >= 0 else h["parent"]] = True
        if h["place"] >= 0:
            place_used[h["place"]] = True
    predicted = scored = 0
    for i in range(count):
        h = hypotheses[i]
        if h["place"] >= 0 or h["frame"] >= length:
            continue
        if h["slot"] < 0:
            for j in range(count):
                other = hypotheses[j]
                if other["slot"] < 0 or other["prefix"] != h["prefix"] or other["length"] != h["length"]:
                    continue
                if same_tokens(records, other["record"], -1, h["record"], -1):
                    h["slot"] = other["slot"]
                    break
            if h["slot"] < 0:
                h["slot"] = np.argmin(slot_used)
                slot_used[h["slot"]] = True
                predictions[predicted, 0], predictions[predicted, 1] = h["parent"], h["token"]
                predictions[predicted, 2] = h["slot"]
                predicted += 1
        h["place"] = np.argmin(place_used)
        place_used[h["place"]] = True
        scorings[scored, 0], scorings[scored, 1], scorings[scored, 2] = h["slot"], h["frame"], h["place"]
        scored += 1
    return predicted, scored
