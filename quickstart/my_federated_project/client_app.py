"""The client: train and evaluate the global model on this node's own data."""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedwaggle import (
    answer_identity,
    convergence_test,
    load_arrays,
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
    """Train the global model on local data; send back weights, metrics and metadata."""
    config, sent = read_config(context.run_config), read_instructions(msg)
    seed_everything(sent.seed)
    examples = load_examples(task.load_data, "train", context)
    model = load_arrays(task.make_model(), msg)
    loss, metadata = task.train(
        model,
        examples,
        epochs=config.local_epochs,
        lr=sent.lr,
        batch_size=config.batch_size,
        seed=sent.seed,
        has_converged=convergence_test(config, context.state),
    )
    return reply(
        msg,
        context,
        arrays=model.state_dict(),
        metrics={"train_loss": loss},
        num_examples=len(examples),
        metadata=metadata,
    )


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Evaluate the global model on this node's share of the test data."""
    seed_everything(read_instructions(msg).seed)
    examples = load_examples(task.load_data, "test", context)
    model = load_arrays(task.make_model(), msg)
    return reply(msg, context, metrics=task.test(model, examples), num_examples=len(examples))
