"""The server: federated averaging of one array, printed at the end."""

import os
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Average, or fail if the config says so."""
    config = context.run_config
    if config["mode"] == "raise":
        raise ValueError("the bees are out of honey")
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=3)
    initial = ArrayRecord([np.zeros(3, dtype=np.float32)])
    result = strategy.start(grid=grid, initial_arrays=initial, num_rounds=1)
    (mean,) = result.arrays.to_numpy_ndarrays()
    if config["mode"] == "write":
        Path("notes.txt").write_text("left here\n")
    print(f"mean {mean.tolist()}")
    print(f"step {config['step']!r} resume {config['resume']!r} fork {config['fork']!r}")
    print(f"outputs {os.environ['WAGGLE_OUTPUTS']}")
