"""A client that remembers: a count of its calls and a momentum, both in its context's state.

Node k holds the value k. Training moves the global value towards it with momentum 0.5; two mods
stand around it, and the outer one sees what the inner one did.
"""

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp


def count_calls(msg, context, call_next):
    """Count the messages of any kind, and say in each reply which one this was."""
    calls = context.state["count"]["calls"] + 1 if "count" in context.state else 1
    context.state["count"] = MetricRecord({"calls": calls})
    reply = call_next(msg, context)
    reply.content["metrics"]["calls"] = calls
    return reply


def clip_change(msg, context, call_next):
    """Let training move the value by 1 at most."""
    before = msg.content["arrays"]["value"].numpy()
    reply = call_next(msg, context)
    after = reply.content["arrays"]["value"].numpy()
    change = np.clip(after - before, -1.0, 1.0)
    reply.content["arrays"] = ArrayRecord({"value": Array(before + change)})
    return reply


app = ClientApp(mods=[count_calls])


@app.train(mods=[clip_change])
def train(msg: Message, context: Context) -> Message:
    value = msg.content["arrays"]["value"].numpy()
    step = context.node_config["partition-id"] - value
    if "momentum" in context.state:
        step = step + 0.5 * context.state["momentum"]["step"].numpy()
    context.state["momentum"] = ArrayRecord({"step": Array(step)})
    content = RecordDict(
        {
            "arrays": ArrayRecord({"value": Array(value + msg.content["config"]["lr"] * step)}),
            "metrics": MetricRecord({"num-examples": 1}),
        }
    )
    return Message(content=content, reply_to=msg)


@app.query()
def own_value(msg: Message, context: Context) -> Message:
    metrics = MetricRecord({"value": context.node_config["partition-id"]})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)


@app.query("memory")
def memory(msg: Message, context: Context) -> Message:
    step = context.state["momentum"]["step"].numpy()
    content = RecordDict(
        {
            "metrics": MetricRecord({"momentum": float(step[0])}),
            "who": ConfigRecord({"partition": context.node_config["partition-id"]}),
        }
    )
    return Message(content=content, reply_to=msg)
