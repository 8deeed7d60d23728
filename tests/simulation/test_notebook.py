"""Notebooks, in a real kernel: the example, a Flower tutorial's cells, and an interrupt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import psutil
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

from fedwaggle.runs.listing import list_runs
from waiting import PATIENCE, wait_until

EXAMPLE = Path(__file__).parents[2] / "examples" / "notebook.ipynb"

# Cells in the style of Flower's tutorials. One import is another: `run_simulation` is ours.
TUTORIAL = [
    """
from collections import OrderedDict
import torch
from torch import nn
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from fedwaggle import simulate as run_simulation
""",
    """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(x)

def make_data(partition_id):
    generator = torch.Generator().manual_seed(partition_id)
    x = torch.randn(64, 4, generator=generator)
    return x, (x.sum(1) > 0).long()
""",
    """
app = ClientApp()

@app.train()
def train(msg: Message, context: Context):
    net = Net()
    net.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    x, y = make_data(context.node_config["partition-id"])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(20):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
    metrics = MetricRecord({"train_loss": loss.item(), "num-examples": len(x)})
    content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=msg)

@app.evaluate()
def evaluate(msg: Message, context: Context):
    net = Net()
    net.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    x, y = make_data(100 + context.node_config["partition-id"])
    accuracy = (net(x).argmax(1) == y).float().mean().item()
    metrics = MetricRecord({"eval_acc": accuracy, "num-examples": len(x)})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)
""",
    """
server = ServerApp()

@server.main()
def main(grid: Grid, context: Context):
    strategy = FedAvg(fraction_train=0.5, fraction_evaluate=1.0)
    return strategy.start(grid=grid, initial_arrays=ArrayRecord(Net().state_dict()), num_rounds=3)
""",
    """
backend_config = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
result = run_simulation(
    server_app=server, client_app=app, num_supernodes=6, backend_config=backend_config
)
result.value.evaluate_metrics_clientapp[3]["eval_acc"]
""",
]


def notebook_of(cells: list[str]) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])


def executed(notebook: nbformat.NotebookNode, folder: Path) -> list[nbformat.NotebookNode]:
    """Run all cells in a kernel that works in ``folder``; return the cells with their outputs."""
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_example_runs_and_shows_its_run(here: Path) -> None:
    """The cell of the run shows one line of progress, a curve and a table, and no log."""
    cells = executed(nbformat.read(EXAMPLE, as_version=4), here)
    outputs = [each for each in cells[1].outputs if each.output_type != "stream"]
    printed = "".join(each.text for each in cells[1].outputs if each.output_type == "stream")
    assert "INFO" not in printed  # a warning may be shown
    assert [output.output_type for output in outputs] == ["display_data", "execute_result"]
    assert outputs[0].data["text/plain"].startswith("round 5/5  train 5/5  evaluate 5/5")
    assert "<polyline" in outputs[1].data["text/html"]
    (run,) = list_runs(here / "outputs")
    assert run.status == "finished"
    assert run.best.metric == "accuracy"
    assert run.best.value > 0.6


def test_a_notebook_of_flower_changes_one_import(here: Path) -> None:
    cells = executed(notebook_of(TUTORIAL), here)
    assert float(cells[-1].outputs[-1].data["text/plain"]) > 0.8


@pytest.fixture
def kernel(here: Path) -> Iterator:
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(here))
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_an_interrupt_ends_the_run_in_order_and_the_kernel_lives(kernel, here: Path) -> None:
    """Round 2 of a thousand is interrupted: no worker stays, and the next run of a cell works."""
    manager, client = kernel
    kernel_process = psutil.Process(manager.provisioner.process.pid)

    def execute(code: str) -> dict:
        client.execute(code)
        return client.get_shell_msg(timeout=PATIENCE)["content"]

    quickstart = EXAMPLE.parents[1] / "quickstart"
    assert execute("import fedwaggle, os")["status"] == "ok"
    client.execute(f"fedwaggle.run({str(quickstart)!r}, config={{'num-server-rounds': 1000}})")
    events = here / "outputs"

    def rounds() -> int:
        return sum(text.read_text().count("round-finished") for text in events.glob("*/events.*"))

    wait_until(lambda: rounds() >= 3)
    manager.interrupt_kernel()
    reply = client.get_shell_msg(timeout=PATIENCE)["content"]
    assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
    wait_until(lambda: workers_of(kernel_process) == [], lambda: workers_of(kernel_process))
    (run,) = list_runs(here / "outputs")
    assert run.status == "interrupted"
    again = execute(f"fedwaggle.run({str(quickstart)!r}, config={{'num-server-rounds': 1}})")
    assert again["status"] == "ok", again
    assert sorted(each.status for each in list_runs(here / "outputs")) == [
        "finished",
        "interrupted",
    ]


def workers_of(process: psutil.Process) -> list[str]:
    return [
        " ".join(child.cmdline())
        for child in process.children(recursive=True)
        if any("fedwaggle" in part for part in child.cmdline())
    ]
