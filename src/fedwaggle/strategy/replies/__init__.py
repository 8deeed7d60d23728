"""A reply becomes an update, or is quarantined.

``admission`` checks a reply against the model and the ``forms`` of the strategy (``trees`` for
XGBoost); ``shelf`` keeps its metadata within a budget; ``initial`` checks the initial model;
``alike`` finds failures that are the same one; ``messages`` reads records of Flower messages.
"""
