"""A client with every n-th of scikit-learn's 1,797 pictures of digits."""

from functools import lru_cache

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

app = ClientApp()


load_once = lru_cache(load_digits)


def load_data(context):
    images, labels = load_once(return_X_y=True)
    part = slice(context.node_config["partition-id"], None, context.node_config["num-partitions"])
    return images[part] / 16, labels[part]


@app.train()
def train(msg: Message, context: Context) -> Message:
    images, labels = load_data(context)
    arrays = msg.content["arrays"]
    model = SGDClassifier(
        loss="log_loss",
        learning_rate="constant",
        eta0=0.05,
        max_iter=1,
        tol=None,
        random_state=msg.content["config"]["server-round"],
    )
    model.fit(
        images,
        labels,
        coef_init=arrays["coef"].numpy(),
        intercept_init=arrays["intercept"].numpy(),
    )
    content = RecordDict(
        {
            "arrays": ArrayRecord(
                {"coef": Array(model.coef_), "intercept": Array(model.intercept_)}
            ),
            "metrics": MetricRecord({"num-examples": len(labels)}),
        }
    )
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    images, labels = load_data(context)
    arrays = msg.content["arrays"]
    scores = images @ arrays["coef"].numpy().T + arrays["intercept"].numpy()
    accuracy = float(np.mean(scores.argmax(1) == labels))
    metrics = MetricRecord({"accuracy": accuracy, "num-examples": len(labels)})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)
