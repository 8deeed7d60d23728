"""The server: stock FedAvg, and where the time of each round went."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

ARRAYS = 10

app = ServerApp()


class TimedFedAvg(FedAvg):
    """FedAvg that notes how long its aggregation takes."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)
        self.aggregation_seconds: list[float] = []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate as FedAvg does."""
        began = time.perf_counter()
        aggregated = super().aggregate_train(server_round, replies)
        self.aggregation_seconds.append(time.perf_counter() - began)
        return aggregated


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Send zeros around, and write down when each round was over."""
    config = context.run_config
    strategy = TimedFedAvg(
        fraction_train=1e-9,  # so that the minimum is the number
        min_train_nodes=config["clients-per-round"],
        min_available_nodes=config["clients-per-round"],
        fraction_evaluate=0.0,
    )
    marks: list[float] = []  # s since the epoch, of the start and of each round's end
    zeros = np.zeros(config["parameters"] // ARRAYS, np.float32)
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord({f"layer{i}": Array(zeros) for i in range(ARRAYS)}),
        num_rounds=config["num-server-rounds"],
        evaluate_fn=lambda server_round, arrays: marks.append(time.time()),
    )
    record = {"marks": marks, "aggregation-seconds": strategy.aggregation_seconds}
    Path(config["result-file"]).write_text(json.dumps(record))
