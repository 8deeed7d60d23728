"""The task: the data, a scikit-learn model, how it is trained, and what a client reports.

This is the file to make your own. The other three carry what is defined here.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import Context
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import accuracy_score, log_loss
from torch import nn

from fedwaggle import Examples

NUM_FEATURES, NUM_CLASSES = 64, 10


@dataclass(frozen=True)
class TrainProcessMetadata:
    """What a client reports about its training, beside the weights."""

    training_time: float  # s
    converged: bool
    examples_per_class: list[int]
    updates: float  # of the coefficients, as scikit-learn counts them


def summarize(metadata: Sequence[TrainProcessMetadata]) -> dict[str, float]:
    """Return numbers on a round's metadata, to be logged and recorded with the round."""
    rarest = [min(each.examples_per_class) for each in metadata]
    return {
        "clients_converged": sum(each.converged for each in metadata),
        "rarest_class_examples": min(rarest, default=0),
    }


def load_data(split: str, context: Context) -> tuple[np.ndarray, np.ndarray]:
    """Return the features and classes of a split: four rows of five to train on, one to test on.

    In a simulation each node gets a share of them. A real node returns its own data, from a path
    such as ``context.node_config["data-path"]``.
    """
    x, y = load_digits(return_X_y=True)
    chosen = (np.arange(len(x)) % 5 == 4) == (split == "test")
    return x[chosen] / 16, y[chosen]


class Linear(nn.Module):
    """The coefficients of a linear model, as arrays that travel and that Flower averages."""

    def __init__(self) -> None:
        super().__init__()
        self.coef = nn.Parameter(torch.zeros(NUM_CLASSES, NUM_FEATURES))
        self.intercept = nn.Parameter(torch.zeros(NUM_CLASSES))

    def classifier(self, **options: object) -> SGDClassifier:
        """Return a classifier of scikit-learn that has these coefficients."""
        found = SGDClassifier(loss="log_loss", **options)
        found.classes_ = np.arange(NUM_CLASSES)
        found.coef_ = self.coef.detach().double().numpy()
        found.intercept_ = self.intercept.detach().double().numpy()
        return found

    @torch.no_grad()
    def take(self, trained: SGDClassifier) -> None:
        """Take the coefficients of a classifier."""
        self.coef.copy_(torch.from_numpy(trained.coef_))
        self.intercept.copy_(torch.from_numpy(trained.intercept_))


def make_model() -> Linear:
    """Make the model, whose coefficients are zero."""
    return Linear()


def train(
    model: Linear,
    examples: Examples,
    *,
    epochs: int,
    lr: float,
    batch_size: int,
    seed: int,
    has_converged: Callable[[Sequence[float]], bool],
) -> tuple[float, TrainProcessMetadata]:
    """Train ``model`` in place; return the last loss and the metadata."""
    began = time.perf_counter()
    x, y = arrays_of(examples)
    classes = np.arange(NUM_CLASSES)
    classifier = model.classifier(
        learning_rate="constant", eta0=lr, alpha=1e-4, random_state=seed % 2**32
    )
    losses = []
    for _ in range(epochs):
        classifier.partial_fit(x, y, classes=classes)
        losses.append(float(log_loss(y, classifier.predict_proba(x), labels=classes)))
    model.take(classifier)
    return losses[-1], TrainProcessMetadata(
        training_time=time.perf_counter() - began,
        converged=has_converged(losses),
        examples_per_class=np.bincount(y, minlength=NUM_CLASSES).tolist(),
        updates=float(classifier.t_),
    )


def test(model: Linear, examples: Examples) -> dict[str, float]:
    """Return the accuracy (0 to 1) and the log loss of ``model`` over ``examples``."""
    x, y = arrays_of(examples)
    classifier = model.classifier()
    chances = classifier.predict_proba(x)
    return {
        "accuracy": float(accuracy_score(y, chances.argmax(1))),
        "loss": float(log_loss(y, chances, labels=np.arange(NUM_CLASSES))),
    }


def arrays_of(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Return the features (N, NUM_FEATURES) and the classes (N,) as arrays."""
    ((x, y),) = examples.batches(len(examples))
    return x.double().numpy(), y.numpy()  # the type of the coefficients
