"""Search on a GPU: rows decided and ranked, greedy and beam search moved on, by the kernels in ``csrc/cuda``."""
