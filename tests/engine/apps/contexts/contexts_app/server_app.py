"""The server asks one client several questions, one after the other, and writes the answers."""

import json
import time
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()
TODO = ["draw", "", "change the run config", "", "raise", ""]


@app.main()
def main(grid: Grid, context: Context) -> None:
    while not (nodes := list(grid.get_node_ids())):
        time.sleep(0.1)  # Flower's simulation registers them while this runs
    node = min(nodes)
    answers = [ask(grid, node, todo) for todo in TODO]
    app_facts = [grid.run.fab_id == "tests/contexts-app", grid.run.fab_version == "1.0.0"]
    outcome = {"answers": answers, "app": app_facts}
    Path(context.run_config["result-file"]).write_text(json.dumps(outcome))


def ask(grid: Grid, node: int, todo: str) -> dict[str, float]:
    content = RecordDict({"config": ConfigRecord({"do": todo})})
    (reply,) = grid.send_and_receive([Message(content, node, "query")])
    return {"error": reply.error.code} if reply.has_error() else dict(reply.content["facts"])
