"""The networks on a GPU: exported graphs, weights lifted out of them, and the user's own functions."""
