"""A plain Flower app to time an engine with: no work at all."""
