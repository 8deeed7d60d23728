"""Federated learning in which clients tell the server more than weights."""
