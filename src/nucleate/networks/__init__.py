"""The network, and the graph of nodes that it is."""
