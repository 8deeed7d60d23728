"""Stock FedAdam over every node."""

import json
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdam

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    rounds = context.run_config["num-server-rounds"]
    start = ArrayRecord({"coef": Array(np.zeros((10, 64))), "intercept": Array(np.zeros(10))})
    strategy = FedAdam(
        min_train_nodes=4, min_evaluate_nodes=4, min_available_nodes=4, eta=0.1, tau=0.1
    )
    result = strategy.start(grid, start, num_rounds=rounds)
    record = {
        "arrays": {name: array.numpy().tolist() for name, array in result.arrays.items()},
        "evaluate": {r: dict(m) for r, m in result.evaluate_metrics_clientapp.items()},
    }
    Path(context.run_config["result-file"]).write_text(json.dumps(record))
