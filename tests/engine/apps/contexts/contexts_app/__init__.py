"""Clients that change their contexts, draw numbers, and fail."""
