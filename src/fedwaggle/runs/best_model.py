"""Which model is the best one, and models on disk: that one and the last, as PyTorch loads them.

A checkpoint is replaced whole or not at all. ``best.json`` states beside ``best.pth`` which
round it came from, by which value of which metric, and its hash. Load a model with
``torch.load(path, weights_only=True)``: such a file cannot run code.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np

from fedwaggle.runs.events import BestModel
from fedwaggle.runs.files import publish, staged
from fedwaggle.runs.paths import BEST

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "BEST",
    "BEST_FACTS",
    "FINAL",
    "BestMode",
    "BestRule",
    "holds_best",
    "model_sha256",
    "read_model",
    "remove_best",
    "save_best",
    "save_final",
]

BEST_FACTS = "best.json"
FINAL = "final.pth"

BestMode = Literal["auto", "max", "min"]

_LESS_IS_BETTER = ("loss", "error", "mae", "mse", "perplexity", "distance", "divergence")


def model_sha256(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of a model: the names, dtypes, shapes and bytes of its arrays, in order.

    Examples
    --------
    >>> model_sha256({"w": np.zeros(2, np.float32)})[:16]
    '6186676a8d58e573'
    """
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@dataclass(frozen=True)
class BestRule:
    """The rule by which the best model is picked.

    Attributes
    ----------
    metric : str (default: "")
        The metric of the server's evaluation, or else of the clients'; empty means the first that
        there is.
    mode : {"auto", "max", "min"} (default: "auto")
        Whether more or less of it is better. ``"auto"`` goes by the metric's name: less is better
        of losses, errors and perplexities, more of everything else.
    """

    metric: str = ""
    mode: BestMode = "auto"

    def metric_of(self, metrics: Iterable[str], best: BestModel | None) -> str:
        """Return the name of the metric that counts, or an empty name if there is none yet.

        Parameters
        ----------
        metrics : Iterable[str]
            The names of the metrics of an evaluation, in their order.
        best : BestModel | None
            The best model so far; its metric stays the one that counts.

        Examples
        --------
        >>> BestRule().metric_of({"accuracy": 0.8, "loss": 0.5}, None)
        'accuracy'
        """
        if self.metric:
            return self.metric
        return best.metric if best else next(iter(metrics), "")

    def mode_of(self, metric: str) -> Literal["max", "min"]:
        """Return whether more or less of a metric is better.

        Examples
        --------
        >>> BestRule().mode_of("val_loss"), BestRule().mode_of("auc")
        ('min', 'max')
        >>> BestRule(mode="max").mode_of("loss")
        'max'
        """
        if self.mode != "auto":
            return self.mode
        return "min" if any(word in metric.lower() for word in _LESS_IS_BETTER) else "max"

    def is_better(self, metric: str, value: object, best: BestModel | None) -> bool:
        """Return whether a model with this value is a new best. What is not finite never is.

        Examples
        --------
        >>> BestRule().is_better("loss", 0.5, None), BestRule().is_better("loss", math.nan, None)
        (True, False)
        """
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if not math.isfinite(value):
            return False
        if best is None:
            return True
        return value > best.value if self.mode_of(metric) == "max" else value < best.value


def save_best(folder: Path, arrays: Mapping[str, NDArray[Any]], best: BestModel) -> int:
    """Replace ``best.pth`` and ``best.json``; return the bytes of the model's file.

    Raises
    ------
    OSError
        If they cannot be written; the old ones are then as they were.
    """
    facts = _facts(best)
    with ExitStack() as stack:
        # Both are written in full before the first is renamed: a full disk spoils neither.
        model = stack.enter_context(
            staged(folder / BEST, lambda file: _write_state_dict(file, arrays))
        )
        size = model.stat().st_size
        about = stack.enter_context(staged(folder / BEST_FACTS, lambda file: file.write(facts)))
        publish(model, folder / BEST)
        publish(about, folder / BEST_FACTS)
    return size


def holds_best(folder: Path, best: BestModel) -> bool:
    """Whether ``best.pth`` and ``best.json`` of a run's folder are of this model."""
    try:
        facts = (folder / BEST_FACTS).read_bytes()
    except OSError:
        return False
    return facts == _facts(best) and model_sha256(read_model(folder / BEST)) == best.sha256


def remove_best(folder: Path) -> None:
    """Remove ``best.pth`` and ``best.json``, if they are there."""
    for name in (BEST, BEST_FACTS):
        (folder / name).unlink(missing_ok=True)


def read_model(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a model on disk, by name; none if it is not there or is damaged."""
    import torch

    try:
        state = torch.load(path, weights_only=True)
        return {name: tensor.numpy() for name, tensor in state.items()}
    except Exception:  # noqa: BLE001  # a damaged file can fail in any way, and none yields a model
        return {}


def save_final(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> int:
    """Replace ``final.pth``; return its bytes.

    Raises
    ------
    OSError
        If it cannot be written; the old one is then as it was.
    """
    with staged(folder / FINAL, lambda file: _write_state_dict(file, arrays)) as temp:
        size = temp.stat().st_size
        publish(temp, folder / FINAL)
    return size


def _facts(best: BestModel) -> bytes:
    return best.model_dump_json(indent=2).encode() + b"\n"


def _write_state_dict(file: BinaryIO, arrays: Mapping[str, NDArray[Any]]) -> None:
    import torch

    state = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    try:
        torch.save(state, file)
    except RuntimeError as error:
        # torch reports a write that failed as an error of its own; the disk is behind it.
        raise OSError(f"torch.save: {error}") from error
