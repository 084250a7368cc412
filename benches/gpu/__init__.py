"""Decoding on a GPU: what the card can do, how near to that a decode is, and its peers on the same card and weights."""
