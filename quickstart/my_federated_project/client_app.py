"""The client: train and evaluate the global model on this node's own data."""

from __future__ import annotations

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedwaggle.config import RunConfig, read_config
from fedwaggle.convergence import keep_first_loss, read_first_loss
from fedwaggle.data import Examples, load_partition
from fedwaggle.identity import answer_identity
from fedwaggle.instructions import read_instructions
from fedwaggle.metadata import pack
from fedwaggle.seeds import seed_everything
from my_federated_project import task

app = answer_identity(ClientApp())


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Train the global model on local data; send back weights, metrics and metadata."""
    config = read_config(context.run_config)
    sent = read_instructions(msg)
    seed_everything(sent.seed)
    examples = local_examples(config, context, "train")
    model = received_model(msg, examples)
    metadata = task.train(
        model,
        examples,
        epochs=config.local_epochs,
        lr=sent.lr,
        batch_size=config.batch_size,
        seed=sent.seed,
        convergence_window=config.convergence_window,
        convergence_tolerance=config.convergence_tolerance,
        convergence_fall=config.convergence_fall,
        first_loss=read_first_loss(context.state),
    )
    losses = list(metadata.training_losses.values())
    keep_first_loss(context.state, losses)
    last_loss = losses[-1]
    content = RecordDict(
        {
            "arrays": ArrayRecord(model.cpu().state_dict()),
            "metrics": MetricRecord({"train_loss": last_loss, "num-examples": len(examples)}),
            "metadata": pack(
                metadata,
                context,
                codec=config.metadata_codec,
                max_bytes=config.max_metadata_bytes,
            ),
        }
    )
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Evaluate the global model on this client's share of the test data."""
    seed_everything(read_instructions(msg).seed)
    examples = local_examples(read_config(context.run_config), context, "test")
    loss, accuracy = task.test(received_model(msg, examples), examples)
    metrics = MetricRecord({"loss": loss, "accuracy": accuracy, "num-examples": len(examples)})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)


def local_examples(config: RunConfig, context: Context, split: str) -> Examples:
    """Load this node's partition of ``split``."""
    return load_partition(
        config.dataset,
        int(context.node_config["partition-id"]),
        int(context.node_config["num-partitions"]),
        split=split,
        partitioner=config.partitioner,
        alpha=config.alpha,
        classes_per_client=config.classes_per_client,
        seed=config.seed,
        data_dir=config.data_dir or None,
    )


def received_model(msg: Message, examples: Examples) -> task.Net:
    """Build the model and fill it with the weights that the server sent."""
    model = task.Net(examples.image_shape, examples.num_classes)
    model.load_state_dict(msg.content.array_records["arrays"].to_torch_state_dict())
    return model
