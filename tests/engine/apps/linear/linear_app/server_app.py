"""Stock FedAvg over every node."""

import json
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    rounds = context.run_config["num-server-rounds"]
    start = ArrayRecord({"weights": Array(np.zeros(3)), "bias": Array(np.zeros(1))})
    strategy = FedAvg(min_train_nodes=4, min_evaluate_nodes=4, min_available_nodes=4)
    result = strategy.start(grid, start, num_rounds=rounds)
    record = {
        "arrays": {name: array.numpy().tolist() for name, array in result.arrays.items()},
        "evaluate": {r: dict(m) for r, m in result.evaluate_metrics_clientapp.items()},
    }
    Path(context.run_config["result-file"]).write_text(json.dumps(record))
