"""The GPU: the card, the kernels compiled for it, and arrays, predictor states and parameter structures in its memory.

The kernels are the files in ``csrc/cuda``. They share the rules in ``csrc/tdt`` with the CPU. CuPy compiles them for
the card on first use and caches the result.
"""
