"""Decode loops for networks that are run step by step: a workspace computes what a search asks for."""

from __future__ import annotations

import numpy as np

from ..kernels import BeamSearch, GreedySearch
from . import Workspace


def lockstep(search: GreedySearch, workspace: Workspace) -> None:
    """Run greedy search with one joint call and one predictor call per step, for all utterances that need one."""
    while search.pending:
        slots, tokens = search.step(workspace.joint(search.slots, search.slots, search.frames))
        if len(slots):
            workspace.predict(slots, tokens, slots)


def label_looping(search: GreedySearch, workspace: Workspace) -> None:
    """Run greedy search with joint calls until every utterance has its next token or has ended, then one predictor call
    for all that emitted."""
    while search.pending:
        emitted: list[tuple[np.ndarray, np.ndarray]] = []
        while search.pending:
            slots, tokens = search.step(workspace.joint(search.slots, search.slots, search.frames), hold=True)
            emitted.append((slots, tokens))
        slots, tokens = (np.concatenate(column) for column in zip(*emitted))
        if len(slots):
            workspace.predict(slots, tokens, slots)
            search.resume(slots)


def run_beam(search: BeamSearch, workspace: Workspace) -> None:
    """Run a beam search with one predictor call and one joint call per step, for everything that the beams ask for."""
    search.begin()
    while search.pending:
        parents, tokens, slots = search.predictions
        if len(slots):
            workspace.predict(parents, tokens, slots)
        search.step(workspace.joint(search.slots, search.utterances, search.frames))
