"""The task: the data, the trees, how they are grown and tested, and what a client reports.

This is the file to make your own. The other three carry what is defined here.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Context
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from xgboost import Booster, DMatrix
from xgboost import train as boost

from fedwaggle import Examples

PARAMETERS = {"objective": "binary:logistic", "max_depth": 4, "nthread": 1, "base_score": 0.5}


@dataclass(frozen=True)
class TrainProcessMetadata:
    """What a client reports about its training, beside the trees."""

    training_time: float  # s
    trees: int  # that it has grown
    leaves: int  # of these trees together
    most_important: dict[str, float]  # gain of the five features that matter most


def summarize(metadata: Sequence[TrainProcessMetadata]) -> dict[str, float]:
    """Return numbers on a round's metadata, to be logged and recorded with the round."""
    return {
        "new_trees": sum(each.trees for each in metadata),
        "new_leaves": sum(each.leaves for each in metadata),
    }


def load_data(split: str, context: Context) -> tuple[np.ndarray, np.ndarray]:
    """Return the features and classes of a split: four rows of five to train on, one to test on.

    In a simulation each node gets a share of them. A real node returns its own data, from a path
    such as ``context.node_config["data-path"]``.
    """
    x, y = load_breast_cancer(return_X_y=True)
    chosen = (np.arange(len(x)) % 5 == 4) == (split == "test")
    return x[chosen], y[chosen]


def make_model() -> Booster:
    """Make a model without trees."""
    return boost(PARAMETERS, DMatrix(np.zeros((2, 30)), label=[0, 1]), num_boost_round=0)


def as_bytes(model: Booster) -> np.ndarray:
    """Return a model as XGBoost's JSON, in an array of uint8."""
    return np.frombuffer(bytes(model.save_raw("json")), np.uint8)


def load_booster(data: np.ndarray) -> Booster:
    """Return the model of such an array."""
    return Booster(PARAMETERS, model_file=bytearray(data.tobytes()))


def train(
    model: Booster, examples: Examples, *, num_trees: int, lr: float, seed: int
) -> tuple[Booster, float, TrainProcessMetadata]:
    """Boost a model; return the new trees, the loss of the whole model, and the metadata."""
    began = time.perf_counter()
    before = model.num_boosted_rounds()
    parameters = {**PARAMETERS, "eta": lr, "seed": seed % 2**31}
    grown = boost(parameters, as_matrix(examples), num_boost_round=num_trees, xgb_model=model)
    trees = grown[before:]
    gains = trees.get_score(importance_type="total_gain")
    metadata = TrainProcessMetadata(
        training_time=time.perf_counter() - began,
        trees=num_trees,
        leaves=sum(tree.count("leaf=") for tree in trees.get_dump()),
        most_important=dict(sorted(gains.items(), key=lambda item: -item[1])[:5]),
    )
    return trees, test(grown, examples)["loss"], metadata


def test(model: Booster, examples: Examples) -> dict[str, float]:
    """Return the area under the ROC curve, the accuracy (0 to 1) and the log loss."""
    matrix = as_matrix(examples)
    truth, chances = matrix.get_label(), model.predict(matrix)
    return {
        "auc": float(roc_auc_score(truth, chances)) if len(set(truth)) > 1 else 0.5,
        "accuracy": float(accuracy_score(truth, chances > 0.5)),
        "loss": float(log_loss(truth, chances, labels=[0, 1])),
    }


def as_matrix(examples: Examples) -> DMatrix:
    """Return examples as XGBoost reads them."""
    ((x, y),) = examples.batches(len(examples))
    return DMatrix(x.numpy(), label=y.numpy())
