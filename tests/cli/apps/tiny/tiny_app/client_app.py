"""The client: add ``step`` times the partition id to the model, or hang if it is told to."""

import time

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Return the model plus a number that only this node adds."""
    if context.run_config["mode"] == "hang":
        time.sleep(3600)
    if context.run_config["mode"] == "import":
        import nothing_like_this  # noqa: F401
    (values,) = msg.content["arrays"].to_numpy_ndarrays()
    change = float(context.run_config["step"]) * int(context.node_config["partition-id"])
    content = RecordDict(
        {
            "arrays": ArrayRecord([values + np.float32(change)]),
            "metrics": MetricRecord({"change": change, "num-examples": 1}),
        }
    )
    return Message(content=content, reply_to=msg)
