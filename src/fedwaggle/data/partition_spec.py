"""How a split is divided among clients: the values of the run config, checked."""

from __future__ import annotations

import math
import reprlib
from dataclasses import dataclass

from fedwaggle.errors import ConfigError

__all__ = ["PARTITIONERS", "PartitionSpec", "check_partition_id"]

PARTITIONERS = ("iid", "dirichlet", "shards", "classes")


@dataclass(frozen=True, kw_only=True)
class PartitionSpec:
    """How to divide a split; checked when it is made.

    Parameters
    ----------
    partitioner : str
        One of ``PARTITIONERS``.
    num_partitions : int
        How many clients share the split; at least 1.
    alpha : float
        For ``dirichlet``: how even a class is spread, above 0. Small means uneven.
    classes_per_client : int
        For ``classes``: how many classes each client holds. For ``shards``: how many shards.
    seed : int
        Decides who gets what; at least 0.

    Raises
    ------
    ConfigError
        With every mistake, by config key.
    """

    partitioner: str
    num_partitions: int
    alpha: float
    classes_per_client: int
    seed: int

    def __post_init__(self) -> None:
        expected = {
            "partitioner": (f"one of {', '.join(PARTITIONERS)}", self.partitioner in PARTITIONERS),
            "num_partitions": ("a whole number from 1", _is_int(self.num_partitions, at_least=1)),
            "alpha": ("a finite number above 0", _is_positive(self.alpha)),
            "classes_per_client": (
                "a whole number from 1",
                _is_int(self.classes_per_client, at_least=1),
            ),
            "seed": ("a whole number from 0", _is_int(self.seed, at_least=0)),
        }
        mistakes = [
            f"{field.replace('_', '-')}: expected {what}, got {reprlib.repr(getattr(self, field))}"
            for field, (what, holds) in expected.items()
            if not holds
        ]
        if mistakes:
            raise ConfigError(mistakes)


def check_partition_id(partition_id: int, num_partitions: int) -> None:
    """Raise ConfigError unless 0 <= partition_id < num_partitions."""
    if not _is_int(partition_id, at_least=0) or partition_id >= num_partitions:
        raise ConfigError(
            [
                f"partition-id: expected a whole number from 0 to {num_partitions - 1}, "
                f"got {reprlib.repr(partition_id)}"
            ]
        )


def _is_int(value: object, *, at_least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= at_least


def _is_positive(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0  # type: ignore[arg-type,operator]
