"""Decoding on a GPU: what the card can do, how close a decode comes to it, and peers with the same weights."""
