"""A long run is as cheap at its end as at its beginning."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from fedwaggle.engine import run
from fedwaggle.runs.reading import read_events

APP = """
import os
from pathlib import Path
import numpy as np
import psutil
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAdagrad
from fedwaggle.runs import Run
from fedwaggle.strategy import Waggle

client = ClientApp()

@client.train()
def train(msg, context):
    arrays = msg.content["arrays"]
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)

class Strategy(Waggle, FedAdagrad):
    def on_round_end(self, summary):
        if summary.server_round % 50 == 0:
            process = psutil.Process()
            family = [process, *process.children(recursive=True)]
            total = sum(one.memory_full_info().pss for one in family)
            with open(os.environ["MEMORY_FILE"], "a") as file:
                file.write(f"{total}\\n")

server = ServerApp()

@server.main()
def main(grid, context):
    with Run.create(Path(context.run_config["outputs"])) as run:
        strategy = Strategy(run=run, fraction_evaluate=0.0)
        strategy.start(grid, ArrayRecord({"w": Array(np.ones(50_000, np.float32))}), 500)
"""


@pytest.mark.slow
def test_500_rounds_of_10_clients_take_flat_memory_and_flat_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From round 100 to 500 memory grows by under 5 %; late rounds take at most half more time."""
    app = tmp_path / "app"
    (app / "long_app").mkdir(parents=True)
    (app / "long_app" / "__init__.py").write_text(APP)
    (app / "pyproject.toml").write_text(
        "[project]\nname = 'long-app'\nversion = '1.0.0'\n"
        "[tool.flwr.app]\npublisher = 'tests'\n"
        "[tool.flwr.app.components]\n"
        "serverapp = 'long_app:server'\nclientapp = 'long_app:client'\n"
        "[tool.flwr.app.config]\noutputs = ''\n"
    )
    memory_file = tmp_path / "memory"
    monkeypatch.setenv("MEMORY_FILE", str(memory_file))
    run(app, nodes=10, workers=2, config={"outputs": str(tmp_path / "out")})
    (folder,) = (tmp_path / "out").iterdir()
    rounds = [e for e in read_events(folder / "events.jsonl") if e.event == "round-finished"]
    assert len(rounds) == 501
    early = statistics.median(e.seconds for e in rounds[50:150])
    late = statistics.median(e.seconds for e in rounds[-100:])
    memory = [int(line) for line in memory_file.read_text().split()]
    print(f"round: {early:.4f} s early, {late:.4f} s late; memory: {memory}")
    assert late < 1.5 * early
    assert memory[-1] < 1.05 * memory[2]
