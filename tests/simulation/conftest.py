"""What the tests of simulations share: a working folder of their own, and one small task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder: runs are written below it."""
    monkeypatch.delenv("WAGGLE_OUTPUTS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def diabetes() -> dict[str, object]:
    """Return model, data, training and test of a regression, and its metadata class.

    They are defined here, in a function of a module that workers cannot import, as in a notebook.
    """
    import torch
    from sklearn.datasets import load_diabetes
    from torch import nn

    @dataclass
    class Report:
        losses: list[float]
        drift: float

    def load_data(split, context):
        x, y = load_diabetes(return_X_y=True)
        y = (y - y.mean()) / y.std()
        return (x[:350], y[:350]) if split == "train" else (x[350:], y[350:])

    def train(model, examples, *, epochs, lr, batch_size, seed, has_converged):
        optimizer, losses = torch.optim.SGD(model.parameters(), lr=lr), []
        for _ in range(epochs):
            for x, y in examples.batches(batch_size, seed=seed):
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(model(x)[:, 0], y)
                loss.backward()
                optimizer.step()
            losses.append(loss.item())
        return losses[-1], Report(losses, examples.features.mean().item())

    @torch.inference_mode()
    def test(model, examples):
        error = model(examples.features)[:, 0] - examples.labels
        return {"mae": error.abs().mean().item()}

    return {
        "make_model": lambda: nn.Linear(10, 1),
        "load_data": load_data,
        "train": train,
        "test": test,
        "metadata": Report,
    }
