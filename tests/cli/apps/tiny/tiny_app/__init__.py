"""A federation without PyTorch: each client adds its partition id to what it was sent."""
