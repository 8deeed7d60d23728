"""Who takes part in a round.

``roster`` knows the nodes by name, ``attendance`` who rests, and ``drawing`` draws and asks.
"""
