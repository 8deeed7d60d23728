"""The server: stock FedAvg, and the time at which each round ended."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from lenet_app.task import Net

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train the global model, and write down when each round was over."""
    config = context.run_config
    strategy = FedAvg(
        fraction_train=1e-9,  # so that the minimum is the number
        min_train_nodes=config["clients-per-round"],
        min_available_nodes=config["clients-per-round"],
        fraction_evaluate=0.0,
    )
    marks: list[float] = []  # s since the epoch, of the start and of each round's end
    torch.manual_seed(0)
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(Net().state_dict()),
        num_rounds=config["num-server-rounds"],
        evaluate_fn=lambda server_round, arrays: marks.append(time.time()),
    )
    last = result.train_metrics_clientapp[config["num-server-rounds"]]
    record = {"marks": marks, "train-loss": last["train-loss"]}
    Path(config["result-file"]).write_text(json.dumps(record))
