"""Arrays of clients and their weighted mean: exact, in a fixed order, in little memory.

``arrays`` reads what a client sent against the model's own; ``fold`` takes the mean while replies
arrive, with ``summing`` in ``chunks`` and ``spill`` for what must wait on disk; ``whole`` is the
mean of whole numbers, ``kept`` what has no mean; ``finite`` finds NaN and infinities.
"""
