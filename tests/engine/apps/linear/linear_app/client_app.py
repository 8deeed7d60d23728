"""A client with 20 examples more than the one before it."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

TRUE_WEIGHTS, TRUE_BIAS = np.array([1.0, -2.0, 3.0]), 0.5

app = ClientApp()


def load_data(context):
    partition = context.node_config["partition-id"]
    rng = np.random.default_rng(partition)
    features = rng.normal(size=(20 * (partition + 1), 3))
    return features, features @ TRUE_WEIGHTS + TRUE_BIAS


def errors(arrays, features, targets):
    weights, bias = arrays["weights"].numpy(), arrays["bias"].numpy()
    return features @ weights + bias - targets


@app.train()
def train(msg: Message, context: Context) -> Message:
    features, targets = load_data(context)
    arrays = msg.content["arrays"]
    error = errors(arrays, features, targets)
    lr = context.run_config["lr"]
    weights = arrays["weights"].numpy() - lr * 2 * features.T @ error / len(error)
    bias = arrays["bias"].numpy() - lr * 2 * error.mean()
    content = RecordDict(
        {
            "arrays": ArrayRecord({"weights": Array(weights), "bias": Array(bias)}),
            "metrics": MetricRecord({"num-examples": len(error)}),
        }
    )
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    error = errors(msg.content["arrays"], *load_data(context))
    metrics = {"mse": float(np.mean(error**2)), "num-examples": len(error)}
    return Message(content=RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)
