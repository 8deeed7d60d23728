"""A client that changes its context: the node's config, its state, and, if asked, the run's config.

What it draws at random was seeded when this module was imported.
"""

import random

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

random.seed(5)
app = ClientApp()


@app.query()
def count(msg: Message, context: Context) -> Message:
    todo = msg.content["config"]["do"]
    calls = context.state["count"]["calls"] + 1 if "count" in context.state else 1
    context.state["count"] = MetricRecord({"calls": calls})
    context.node_config["calls"] = calls
    if todo == "change the run config":
        context.run_config["rate"] = 9.0
    if todo == "raise":
        raise ValueError("as asked")
    facts = {
        "calls": calls,
        "calls-in-config": context.node_config["calls"],
        "settings": len(context.node_config),
        "rate": context.run_config["rate"],
        "drawn": random.random() if todo == "draw" else 0.0,
    }
    return Message(content=RecordDict({"facts": MetricRecord(facts)}), reply_to=msg)
