"""The charts of a report: ``figure`` is the form of all; each other file draws one group.

``models`` draws the global model's metrics, ``clients`` and ``cells`` who did what when,
``fields`` what clients said (``spreads`` over the clients), ``costs`` seconds and bytes.
"""
