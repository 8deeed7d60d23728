"""Simulations from Python and from notebooks, on the local engine.

``simulate`` runs a ServerApp and a ClientApp that are objects, and ``run`` an app's folder.
``federate`` makes both apps from a model, data, a way to train and a way to test. Each returns a
``SimulationResult``, which a notebook shows as a curve and a table.
"""
