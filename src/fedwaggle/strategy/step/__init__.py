"""From admitted updates to the next global model.

``intake`` takes the replies of a round, ``collecting`` holds or folds the updates, ``aggregation``
and ``stepping`` let Flower's strategy take its step, ``trainable`` names the arrays that it may
step. ``evaluations`` and the two files of metrics average what clients report.
"""
