"""What a type checker makes of the public names. ``test_inferred_types.py`` compares.

Each ``reveal_type`` has the expected type beside it. An ignored error must be one: mypy's strict
mode refuses an ``ignore`` that nothing needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import reveal_type

from flwr.app import ConfigRecord, Context
from flwr.serverapp.strategy import FedAdagrad

from fedwaggle import (
    ClientUpdate,
    RunConfig,
    Waggle,
    load_examples,
    load_images,
    pack,
    read_config,
    step_decay,
    unpack,
)
from my_federated_project.task import TrainProcessMetadata, load_data


class MyConfig(RunConfig):
    """A config with a key of its own."""

    drop_out: float = 0.1


class MyStrategy(Waggle[TrainProcessMetadata], FedAdagrad):
    """A strategy that reads metadata."""

    def on_train_metadata(
        self, server_round: int, updates: Sequence[ClientUpdate[TrainProcessMetadata]]
    ) -> Mapping[str, float]:
        """Read every field."""
        metadata = updates[0].metadata
        reveal_type(metadata)  # TrainProcessMetadata
        reveal_type(metadata.training_losses)  # dict[str, float]
        _ = metadata.convergd  # type: ignore[attr-defined]
        return {}


class WrongStrategy(Waggle[TrainProcessMetadata], FedAdagrad):
    """A strategy that expects the metadata of another project."""

    def on_train_metadata(  # type: ignore[override]
        self, server_round: int, updates: Sequence[ClientUpdate[int]]
    ) -> Mapping[str, float]:
        """Never get here."""
        return {}


def contract(record: ConfigRecord) -> None:
    """Go through both ends of the contract."""
    reveal_type(pack(TrainProcessMetadata(1.0, True, {})))  # ConfigRecord
    reveal_type(unpack(record, TrainProcessMetadata))  # TrainProcessMetadata


def config(run_config: dict[str, int | float | str | bool]) -> None:
    """Get back what was asked for."""
    reveal_type(read_config(run_config))  # RunConfig
    reveal_type(read_config(run_config, MyConfig))  # MyConfig
    reveal_type(read_config(run_config, MyConfig).drop_out)  # float
    RunConfig(batch_size="32")  # type: ignore[arg-type]


def values(context: Context) -> None:
    """Use a schedule, and load a client's data."""
    reveal_type(step_decay(0.1, factor=0.5, every=5)(3))  # float
    reveal_type(load_images("fashion-mnist-mini", "test"))  # tuple[Tensor, Tensor]
    reveal_type(load_examples(load_data, "train", context))  # Examples
