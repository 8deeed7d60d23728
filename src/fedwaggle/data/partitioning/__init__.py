"""Partitions: which rows of a split are whose, as a run config asks for it.

``spec`` is what the config asks for, ``rows`` finds the rows, and ``dealing`` lets flwr-datasets'
partitioners find them. ``flower_adapter`` gives the same partitions to code that expects a
partitioner of flwr-datasets.
"""
