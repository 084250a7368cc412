"""The GPU: what is there, kernels compiled for it, memory on it, and the decode loops that run on it.

Kernels are the files in ``csrc/cuda``, which share the rules in ``csrc/tdt`` with the CPU. CuPy compiles them for the
card at hand on first use and keeps the result.
"""
