"""Who takes part in a round: ``roster`` knows the nodes by name, ``drawing`` draws and asks."""
