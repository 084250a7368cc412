"""Scores added to a search beside the network's: n-gram models, boosted phrases, and a user's own functions."""

from .automaton import Automaton
from .functions import ScoringFunction
from .ngram import NgramLM
from .phrases import PhraseBoost

__all__ = ["Automaton", "NgramLM", "PhraseBoost", "ScoringFunction"]
