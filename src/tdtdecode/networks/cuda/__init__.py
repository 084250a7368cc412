"""The networks on a GPU: exported graphs, lifted weights, and the user's functions over arrays of the device."""
