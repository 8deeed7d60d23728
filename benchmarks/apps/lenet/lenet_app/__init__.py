"""A plain Flower app to time an engine with: real training."""
