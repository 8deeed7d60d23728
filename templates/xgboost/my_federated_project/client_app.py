"""The client: boost and evaluate the global model on this node's own data."""

from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp

from fedwaggle import (
    answer_identity,
    load_examples,
    read_config,
    read_instructions,
    reply,
    safeguards,
    seed_everything,
)
from my_federated_project import task

app = answer_identity(ClientApp(mods=[safeguards(__package__)]), task.load_data)


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Boost the global model on local data; send back the new trees, metrics and metadata."""
    config, sent = read_config(context.run_config), read_instructions(msg)
    seed_everything(sent.seed)
    examples = load_examples(task.load_data, "train", context)
    trees, loss, metadata = task.train(
        received(msg), examples, num_trees=config.local_epochs, lr=sent.lr, seed=sent.seed
    )
    return reply(
        msg,
        context,
        arrays=ArrayRecord([task.as_bytes(trees)]),
        metrics={"train_loss": loss},
        num_examples=len(examples),
        metadata=metadata,
    )


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Evaluate the global model on this node's share of the test data."""
    examples = load_examples(task.load_data, "test", context)
    metrics = task.test(received(msg), examples)
    return reply(msg, context, metrics=metrics, num_examples=len(examples))


def received(msg: Message) -> task.Booster:
    """Return the model that the server sent."""
    return task.load_booster(msg.content.array_records["arrays"]["0"].numpy())
