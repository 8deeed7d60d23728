"""Ask the clients, train with what they said, and ask again what they remember."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

NODES = 4

app = ServerApp()


def ask(grid, kind):
    messages = [Message(RecordDict(), node, kind) for node in grid.get_node_ids()]
    return [reply.content for reply in grid.send_and_receive(messages)]


@app.main()
def main(grid: Grid, context: Context) -> None:
    while len(list(grid.get_node_ids())) < NODES:
        time.sleep(0.1)  # Flower's simulation begins before they are all there
    values = [content["metrics"]["value"] for content in ask(grid, "query")]
    result = FedAvg(fraction_evaluate=0.0, min_available_nodes=NODES).start(
        grid,
        ArrayRecord({"value": Array(np.zeros(2))}),
        num_rounds=context.run_config["num-server-rounds"],
        train_config=ConfigRecord({"lr": 1.0 / max(values)}),
    )
    answers = sorted(ask(grid, "query.memory"), key=lambda content: content["who"]["partition"])
    record = {
        "arrays": {name: array.numpy().tolist() for name, array in result.arrays.items()},
        "train": {r: dict(m) for r, m in result.train_metrics_clientapp.items()},
        "memory": [dict(content["metrics"]) for content in answers],
    }
    Path(context.run_config["result-file"]).write_text(json.dumps(record))
