"""Clients with memory: mods, queries, and a state kept over rounds."""
