"""Decoding on a GPU: what the card can do, how close decoding comes to that, and peers on the same card and weights."""
