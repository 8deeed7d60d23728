"""Bounds on replies that are well-formed and far out of line.

``changes`` measures how far a reply is from the global model, ``outliers`` compares the replies
of a round and shortens or refuses what is too far.
"""
