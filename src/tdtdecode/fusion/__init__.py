"""What steers a search beside the network: n-gram models, boosted phrases, and a user's own scoring functions."""

from .automaton import Automaton
from .functions import ScoringFunction
from .ngram import NgramLM
from .phrases import PhraseBoost

__all__ = ["Automaton", "NgramLM", "PhraseBoost", "ScoringFunction"]
