"""How a split is divided among clients: the values of the run config, checked."""

from __future__ import annotations

import math
import reprlib
from dataclasses import dataclass

from fedwaggle.config import PARTITIONERS, RunConfig
from fedwaggle.errors import ConfigError

__all__ = ["BY_ID", "BY_SIZE", "PARTITIONERS", "PartitionSpec", "check_partition_id"]

BY_SIZE = ("iid", "linear", "square", "exponential")
"""Partitioners that read nothing of an example: the sizes of the partitions are their rule."""

BY_ID = ("natural-id", "grouped-natural-id")
"""Partitioners that divide by a column which identifies the owner of an example."""


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
        For ``dirichlet`` and ``inner-dirichlet``: how even a class is spread, above 0. Small
        means uneven.
    classes_per_client : int
        For ``classes``, which is also called ``pathological``: how many classes each client
        holds. For ``shards``: how many shards.
    strictness : float
        For ``continuous``, from 0 to 1: how much the partitions follow the order of the values.
    partition_by : str
        The column that the split is divided by; empty for the labels. ``natural-id`` and
        ``grouped-natural-id`` need one.
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
    strictness: float = 0.5
    partition_by: str = ""

    @classmethod
    def of(cls, config: RunConfig, num_partitions: int) -> PartitionSpec:
        """Return what a run config asks for.

        Raises
        ------
        ConfigError
            As the class does.
        """
        return cls(
            partitioner=config.partitioner,
            num_partitions=num_partitions,
            alpha=config.alpha,
            classes_per_client=config.classes_per_client,
            seed=config.seed,
            strictness=config.strictness,
            partition_by=config.partition_by,
        )

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
            "strictness": ("a number from 0 to 1", _is_share(self.strictness)),
            "partition_by": (
                f"the column that identifies a client, as {self.partitioner} needs it",
                bool(self.partition_by) or self.partitioner not in BY_ID,
            ),
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
    return _is_finite(value) and value > 0  # type: ignore[operator]


def _is_share(value: object) -> bool:
    return _is_finite(value) and 0 <= value <= 1  # type: ignore[operator]


def _is_finite(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)  # type: ignore[arg-type]
