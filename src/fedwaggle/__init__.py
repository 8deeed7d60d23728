"""Federated learning on Flower and PyTorch in which clients tell the server more than weights."""
