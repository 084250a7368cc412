"""The options of searches on the command line: every field of `Greedy`, `Beam` and what they hold, in one table.

Names of options follow the fields; defaults are the classes' own, so that both doors do the same.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..confidence import AGGREGATIONS, MEASURES, NORMALIZATIONS, Confidence
from ..errors import InputError
from ..fusion import NgramLM, PhraseBoost
from ..fusion.fit import UNITS
from ..reprs import joined_names
from ..search import BLANK_MODES, PRUNING_MODES, STRATEGIES, Beam, Fusion, Greedy
from .options import positive, script


@dataclass(frozen=True)
class Option:
    """An option of the command line.

    Attributes
    ----------
    flag:
        Its name, such as ``"--beam-size"``.
    owner:
        What it is an option of: `Greedy` and `Beam`, `Beam` alone, ... ; each is a class or a function that makes one.
    field:
        The field, or parameter, of the owner.
    type:
        Turns its text into a value; a tuple lists the values; None: the option is a switch.
    help:
        What it does; the default is added.
    """

    flag: str
    owner: tuple[Callable[..., Any], ...]
    field: str
    type: Callable[[str], Any] | tuple[str, ...] | None
    help: str

    @property
    def dest(self) -> str:
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def default(self) -> Any:
        """The owner's own default."""
        return inspect.signature(self.owner[-1]).parameters[self.field].default


_BOTH = (Greedy, Beam)

OPTIONS = (
    Option("--max-symbols", _BOTH, "max_symbols", positive, "most tokens emitted at one frame"),
    Option("--blank-penalty", _BOTH, "blank_penalty", float,
           "subtracted from blank's score: a value above 0 gives more words, one below 0 fewer"),
    Option("--script", _BOTH, "allow", script,
           "only tokens in these scripts, such as latin,common (common: punctuation, digits and the space)"),
    Option("--strategy", (Beam,), "strategy", STRATEGIES, "how the beam goes on; malsd is NeMo's"),
    Option("--beam-size", (Beam,), "size", positive, "hypotheses kept"),
    Option("--nbest", (Beam,), "nbest", positive,
           "hypotheses returned; above 1 the threshold gives way (default: those that the threshold leaves)"),
    Option("--threshold", (Beam,), "threshold", float,
           "hypotheses that score lower than the best by more than this many nats are dropped; inf: none "
           "(default: 6, or inf with an --nbest above 1)"),
    Option("--temperature", (Beam,), "temperature", float, "above 1, the network is trusted less"),
    Option("--blank-mode", (Beam,), "blank_mode", BLANK_MODES, "with malsd: how it treats blank under fusion"),
    Option("--pruning-mode", (Beam,), "pruning_mode", PRUNING_MODES,
           "with malsd: whether it prunes before fusion or after"),
    Option("--confidence", (Confidence,), "measure", MEASURES,
           "measure of the words' confidence (default: the least probability among their tokens)"),
    Option("--confidence-alpha", (Confidence,), "alpha", float, "its exponent"),
    Option("--confidence-normalization", (Confidence,), "normalization", NORMALIZATIONS, "its normalisation"),
    Option("--confidence-aggregation", (Confidence,), "aggregation", tuple(AGGREGATIONS),
           "how a word's confidence follows from its tokens'"),
    Option("--lm", (NgramLM.from_arpa,), "path", str,
           "n-gram language model in ARPA format over the model's tokens; the file may be compressed"),
    Option("--lm-weight", (NgramLM.from_arpa,), "weight", float, "weight of the language model's scores"),
    Option("--lm-units", (NgramLM.from_arpa,), "units", tuple(UNITS),
           "what the language model's words are: pieces, as in the token file, or nemo, NeMo's characters"),
    Option("--phrases", (PhraseBoost.from_file,), "path", str,
           "phrases to expect, one per line; a tab and a number after a phrase multiply its weight"),
    Option("--phrases-weight", (PhraseBoost.from_file,), "weight", float, "weight of the phrases' scores"),
    Option("--phrases-context-score", (PhraseBoost.from_file,), "context_score", float,
           "score of a phrase's first token"),
    Option("--phrases-depth-scaling", (PhraseBoost.from_file,), "depth_scaling", float,
           "factor on the scores of a phrase's other tokens"),
    Option("--phrases-ignore-case", (PhraseBoost.from_file,), "ignore_case", None,
           "expect the phrases in any case: as they stand, in capitals, in lower case"),
)  # fmt: skip


def add_search(parser: argparse.ArgumentParser) -> None:
    """Declare ``--search`` and the options of `OPTIONS`."""
    group = parser.add_argument_group("search")
    group.add_argument("--search", choices=("greedy", "beam"), default="greedy", help="default: greedy")
    for option in OPTIONS:
        default = option.default
        known = default not in (None, inspect.Parameter.empty) and option.type is not None
        text = f"{option.help} (default: {default})" if known and "(default" not in option.help else option.help
        if option.type is None:
            group.add_argument(option.flag, action="store_true", default=None, help=text)
        elif isinstance(option.type, tuple):
            group.add_argument(option.flag, choices=option.type, help=text)
        else:
            metavar = {str: "FILE", positive: "N", script: "NAME,..."}.get(option.type, "X")
            group.add_argument(option.flag, type=option.type, metavar=metavar, help=text)


def search_of(arguments: argparse.Namespace) -> Greedy | Beam:
    """The search that the options describe.

    Raises
    ------
    InputError
        If an option is out of range, or belongs to something that was not asked for.
    """
    owner = Beam if arguments.search == "beam" else Greedy
    fusion: list[Fusion] = []
    for maker, wanted in ((NgramLM.from_arpa, "--lm FILE"), (PhraseBoost.from_file, "--phrases FILE")):
        given = _given(arguments, maker)
        if "path" in given:
            fusion.append(maker(**given))
        elif given:
            raise InputError(f"{_flags(maker, given)} needs {wanted}")
    confidence = None
    if given := _given(arguments, Confidence):
        if "measure" not in given:
            raise InputError(f"{_flags(Confidence, given)} needs --confidence MEASURE")
        confidence = Confidence(**given)
    if owner is Greedy and (others := _given(arguments, Beam).keys() - _given(arguments, Greedy).keys()):
        raise InputError(f"{_flags(Beam, others)} needs --search beam")
    return owner(**_given(arguments, owner), fusion=fusion, confidence=confidence)


def files_given(arguments: argparse.Namespace) -> list[str]:
    """The files that search options name."""
    return [value for option in OPTIONS if option.type is str and (value := getattr(arguments, option.dest))]


def _given(arguments: argparse.Namespace, owner: Callable[..., Any]) -> dict[str, Any]:
    """The options of an owner that were given, by field."""
    return {
        option.field: value
        for option in OPTIONS
        if owner in option.owner and (value := getattr(arguments, option.dest)) is not None
    }


def _flags(owner: Callable[..., Any], names: Any) -> str:
    return joined_names(option.flag for option in OPTIONS if owner in option.owner and option.field in names)
