"""The client, as Flower's own templates write it."""

from __future__ import annotations

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from lenet_app.task import Net, load_partition, train

app = ClientApp()


@app.train()
def train_client(msg: Message, context: Context) -> Message:
    """Train the global model on this node's slice."""
    config = context.run_config
    model = Net()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    partition = context.node_config["partition-id"]
    images, labels = load_partition(config["data-dir"], partition, config["examples-per-client"])
    loss = train(
        model,
        images,
        labels,
        epochs=config["local-epochs"],
        batch_size=config["batch-size"],
        lr=config["lr"],
        seed=msg.content["config"]["server-round"],
    )
    content = RecordDict(
        {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"train-loss": loss, "num-examples": len(labels)}),
        }
    )
    return Message(content=content, reply_to=msg)
