"""The task: the table, the model, how it is trained and tested, and what a client reports.

This is the file to make your own. The other three carry what is defined here.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from flwr.app import Context
from sklearn import datasets
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fedwaggle import ConfigError, Examples, read_config

SHAPES = {"diabetes": (10, 0), "breast_cancer": (30, 2)}  # features and classes; 0: a regression
NUM_FEATURES, NUM_CLASSES = SHAPES["diabetes"]


@dataclass(frozen=True)
class TrainProcessMetadata:
    """What a client reports about its training, beside the weights."""

    training_time: float  # s
    converged: bool
    drift: list[float]  # mean of each feature, in standard deviations of the whole table


def summarize(metadata: Sequence[TrainProcessMetadata]) -> dict[str, float]:
    """Return numbers on a round's metadata, to be logged and recorded with the round."""
    return {
        "clients_converged": sum(each.converged for each in metadata),
        "largest_drift": max((max(map(abs, each.drift)) for each in metadata), default=0.0),
    }


def load_data(split: str, context: Context) -> tuple[Tensor, Tensor]:
    """Return the features and targets of a split: four rows of five to train on, one to test on.

    In a simulation each node gets a share of them. A real node returns its own table, from a path
    such as ``context.node_config["data-path"]``.
    """
    table = read_table(read_config(context.run_config).dataset)
    features, target = table.iloc[:, :-1], table.iloc[:, -1]
    if features.shape[1] != NUM_FEATURES:
        raise ConfigError(
            [
                f"dataset: expected {NUM_FEATURES} features, got {features.shape[1]}; set "
                "NUM_FEATURES and NUM_CLASSES in task.py"
            ]
        )
    x = torch.tensor(((features - features.mean()) / features.std()).to_numpy("float32"))
    y = torch.tensor(target.to_numpy())
    if not NUM_CLASSES:
        y = ((y - y.double().mean()) / y.double().std()).float()
    is_test = torch.arange(len(x)) % 5 == 4
    chosen = is_test if split == "test" else ~is_test
    return x[chosen], y[chosen]


def read_table(dataset: str) -> pd.DataFrame:
    """Read a table of numbers whose last column is the target."""
    if dataset in SHAPES:
        return getattr(datasets, f"load_{dataset}")(as_frame=True).frame
    table = pd.read_csv(dataset)
    if others := ", ".join(table.select_dtypes(exclude="number").columns):
        raise ConfigError([f"dataset: expected numbers, got text in {others}; encode it here"])
    return table


def make_model() -> nn.Module:
    """Make the model; the seed of the run decides its first weights."""
    return nn.Sequential(nn.Linear(NUM_FEATURES, 32), nn.ReLU(), nn.Linear(32, max(1, NUM_CLASSES)))


def loss_of(outputs: Tensor, y: Tensor) -> Tensor:
    """Return cross-entropy for classes, and the mean squared error for values."""
    return F.cross_entropy(outputs, y) if NUM_CLASSES else F.mse_loss(outputs[:, 0], y)


def train(
    model: nn.Module,
    examples: Examples,
    *,
    epochs: int,
    lr: float,
    batch_size: int,
    seed: int,
    has_converged: Callable[[Sequence[float]], bool],
) -> tuple[float, TrainProcessMetadata]:
    """Train ``model`` in place by SGD; return the last loss and the metadata."""
    began = time.perf_counter()
    batches = examples.batches(batch_size, seed=seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    losses = []
    for _ in range(epochs):
        total = 0.0
        for x, y in batches:
            optimizer.zero_grad()
            loss = loss_of(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
        losses.append(total / len(examples))
    drift = torch.stack([x for x, _ in examples]).mean(0).tolist()
    return losses[-1], TrainProcessMetadata(
        time.perf_counter() - began, has_converged(losses), drift
    )


@torch.inference_mode()
def test(model: nn.Module, examples: Examples) -> dict[str, float]:
    """Return the loss, and the accuracy (0 to 1) or the mean absolute error, in deviations."""
    ((x, y),) = examples.batches(len(examples))
    outputs = model(x)
    loss = loss_of(outputs, y).item()
    if NUM_CLASSES:
        return {"accuracy": (outputs.argmax(1) == y).float().mean().item(), "loss": loss}
    return {"mae": (outputs[:, 0] - y).abs().mean().item(), "loss": loss}
