"""Memory follows the model, not the cohort: from the socket to the mean."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MB = 1_000_000

APP = """
import json, os, threading, time
from pathlib import Path
import numpy as np
import psutil
from dataclasses import dataclass
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAdagrad
from fedwaggle.runs import Run
from fedwaggle import pack
from fedwaggle.strategy import RoundRules, Waggle

client = ClientApp()

@dataclass
class Facts:
    losses: list[dict[str, float]]

LARGE = pack(Facts([{"loss": 0.5}] * 4_300))  # 56 kB

@client.train()
def train(msg, context):
    part, size = context.node_config["partition-id"], msg.content["arrays"]["w"].shape[0]
    weights = np.full(size, part, np.float32)
    metrics = MetricRecord({"num-examples": part + 1})
    records = {"arrays": ArrayRecord({"w": Array(weights)}), "metrics": metrics}
    if context.run_config["metadata"] == "large":
        records["metadata"] = LARGE
    if context.run_config["metadata"] == "refused":
        records["metadata"] = ConfigRecord(dict(pack(Facts([])), payload=b"{}"))
    return Message(RecordDict(records), reply_to=msg)

class Strategy(Waggle[Facts], FedAdagrad):
    def on_train_metadata(self, server_round, updates):
        return {"entries": sum(len(update.metadata.losses) for update in updates)}

    def on_round_end(self, summary):
        assert len(summary.training.updates) == summary.server_round * self.min_train_nodes

def peak():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])

def shared_memory():
    "Bytes of the files in memory that replies lie in, those that only workers hold included."
    sizes = {}
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        for fd in Path(f"/proc/{process.pid}/fd").glob("*"):
            try:
                if os.readlink(fd).startswith("/memfd:waggle-frame"):
                    sizes[fd.stat().st_ino] = 512 * fd.stat().st_blocks
            except OSError:
                pass
    return sum(sizes.values())

server = ServerApp()

@server.main()
def main(grid, context):
    shared, peaks, config = [0], [peak()], context.run_config
    def watch():
        while True:
            shared.append(shared_memory())
            time.sleep(0.05)
    threading.Thread(target=watch, daemon=True).start()
    nodes = len(list(grid.get_node_ids()))
    if not config["metadata"]:
        Strategy.metadata_class = None
    for cohort in sorted({config["few"], nodes}):
        strategy = Strategy(
            run=Run.create(Path(config["outputs"])),
            rules=RoundRules(metadata_budget=config["budget"]),
            fraction_train=cohort / nodes,
            min_train_nodes=cohort,
            fraction_evaluate=0,
        )
        initial = ArrayRecord({"w": Array(np.zeros(config["size"], np.float32))})
        result = strategy.start(grid, initial, 1)
        peaks.append(peak())
    figures = {"idle": peaks[0], "few": peaks[1], "many": peaks[-1], "shared": max(shared)}
    print(json.dumps({**figures, **result.train_metrics_clientapp[1]}), flush=True)
    os._exit(0)  # runs that are closed write a report, whose memory is not the round's
"""


def measured(
    tmp_path: Path, *, few: int, many: int, size: int, metadata: str = "", budget: int = 4 << 20
) -> dict[str, int]:
    """Run a round of few clients, then one of many, in a process of its own, and measure it."""
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "large_app").mkdir()
    (tmp_path / "large_app" / "__init__.py").write_text(APP)
    (tmp_path / "pyproject.toml").write_text(
        "[project]\nname = 'large-app'\nversion = '1.0.0'\n"
        "[tool.flwr.app]\npublisher = 'tests'\n"
        "[tool.flwr.app.components]\n"
        "serverapp = 'large_app:server'\nclientapp = 'large_app:client'\n"
        f"[tool.flwr.app.config]\noutputs = '{tmp_path}'\nsize = {size}\nfew = {few}\n"
        f"metadata = '{metadata}'\nbudget = {budget}\n"
    )
    code = (
        "from fedwaggle.engine import run;"
        f"run({str(tmp_path)!r}, nodes={many}, workers=2, quiet=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    figures: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    print({key: round(value / MB) for key, value in figures.items()})
    return figures


def check(figures: dict[str, int], *, model: int, most_growth: int) -> None:
    assert figures["many"] - figures["few"] <= most_growth
    # Each of the 2 workers has one reply in shared memory, or as many small ones as fit in 8 MiB.
    assert figures["shared"] <= 2 * max(model, 9 * MB) + MB


def test_six_times_the_clients_take_no_more_memory(tmp_path: Path) -> None:
    """10 clients of 4 MB, then 60: the 200 MB that the others send are never in the server.

    What each says is refused: nor does the error, which is kept, keep the reply that it is about.
    """
    figures = measured(tmp_path, few=10, many=60, size=1_000_000, metadata="refused")
    check(figures, model=4 * MB, most_growth=40 * MB)


def test_metadata_has_a_budget_for_the_round(tmp_path: Path) -> None:
    """20 of 150 clients fill it, with 1 MB each once it is decoded; the others take none."""
    figures = measured(tmp_path, few=20, many=150, size=1, metadata="large", budget=20 * 56_000)
    assert figures["entries"] == 150 * 4_300
    assert figures["many"] - figures["few"] <= 50 * MB


@pytest.mark.slow
def test_1000_clients_with_as_much_metadata_as_they_may_send(tmp_path: Path) -> None:
    """They take at most 300 MB more than the idle server; decoded, it would be 780 MB."""
    figures = measured(tmp_path, few=1_000, many=1_000, size=1, metadata="large")
    assert figures["entries"] == 1_000 * 4_300
    assert figures["many"] - figures["idle"] <= 300 * MB


@pytest.mark.slow
def test_200_clients_of_5_million_parameters_take_what_20_take(tmp_path: Path) -> None:
    """The server's peak differs by at most 100 MB, where 3,600 MB more arrive."""
    few = measured(tmp_path / "few", few=20, many=20, size=5_000_000)
    many = measured(tmp_path / "many", few=200, many=200, size=5_000_000)
    check({**many, "few": few["few"]}, model=20 * MB, most_growth=100 * MB)
