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
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAdagrad
from fedwaggle.runs import Run
from fedwaggle.strategy import Waggle

client = ClientApp()

@client.train()
def train(msg, context):
    part, size = context.node_config["partition-id"], msg.content["arrays"]["w"].shape[0]
    weights = np.full(size, part, np.float32)
    metrics = MetricRecord({"num-examples": part + 1})
    arrays = ArrayRecord({"w": Array(weights)})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)

class Strategy(Waggle, FedAdagrad):
    'The strategy of the quickstart, without what it reads.'

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
            time.sleep(0.02)
    threading.Thread(target=watch, daemon=True).start()
    nodes = len(list(grid.get_node_ids()))
    for cohort in sorted({config["few"], nodes}):
        with Run.create(Path(config["outputs"])) as run:
            strategy = Strategy(
                run=run, fraction_train=cohort / nodes, min_train_nodes=cohort, fraction_evaluate=0
            )
            initial = ArrayRecord({"w": Array(np.zeros(config["size"], np.float32))})
            strategy.start(grid, initial, 1)
        peaks.append(peak())
    return {"idle": peaks[0], "few": peaks[1], "many": peaks[-1], "shared": max(shared)}
"""


def measured(tmp_path: Path, *, few: int, many: int, size: int) -> dict[str, int]:
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
    )
    code = (
        "import json; from fedwaggle.engine import run;"
        f"r = run({str(tmp_path)!r}, nodes={many}, workers=2, quiet=True);"
        "print(json.dumps({**r.value, 'errors': r.errors}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    figures: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    print({key: round(value / MB) for key, value in figures.items()})
    return figures


def check(figures: dict[str, int], *, model: int, most_growth: int) -> None:
    assert figures["errors"] == 0
    assert figures["many"] - figures["few"] <= most_growth
    # Each of the 2 workers has one reply in shared memory, or as many small ones as fit in 8 MiB.
    assert figures["shared"] <= 2 * max(model, 9 * MB) + MB


def test_six_times_the_clients_take_no_more_memory(tmp_path: Path) -> None:
    """10 clients of 4 MB, then 60: the 200 MB that the others send are never in the server."""
    figures = measured(tmp_path, few=10, many=60, size=1_000_000)
    check(figures, model=4 * MB, most_growth=40 * MB)


@pytest.mark.slow
def test_200_clients_of_5_million_parameters_take_what_20_take(tmp_path: Path) -> None:
    """The server's peak differs by at most 100 MB, where 3,600 MB more arrive."""
    few = measured(tmp_path / "few", few=20, many=20, size=5_000_000)
    many = measured(tmp_path / "many", few=200, many=200, size=5_000_000)
    check({**many, "few": few["few"]}, model=20 * MB, most_growth=100 * MB)
