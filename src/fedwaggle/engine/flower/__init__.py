"""The driver of stock ``flwr run``, with its traps closed.

``run`` prepares a private ``home``, starts a ``superlink`` in it, submits the app and follows it.
``guard`` is a process that ends what is left if the driver is killed.
"""
