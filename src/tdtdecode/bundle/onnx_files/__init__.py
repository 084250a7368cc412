"""Graphs of a model directory as files: parsed and checked before anything believes them, and walked through."""
