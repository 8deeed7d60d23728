"""Small Flower apps, written for a test: real folders, run by the real engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

PYPROJECT = """
[project]
name = "{name}"
version = "1.0.0"
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
serverapp = "{name}.server_app:app"
clientapp = "{name}.client_app:app"
[tool.flwr.app.config]
{config}
"""

SERVER_HEAD = """
import time
from flwr.app import *
from flwr.serverapp import ServerApp
app = ServerApp()

def ask(grid, nodes=None, kind="train", timeout=None, **config):
    records = RecordDict({"config": ConfigRecord(config)}) if config else RecordDict()
    nodes = grid.get_node_ids() if nodes is None else nodes
    messages = [Message(records, node, kind) for node in nodes]
    return list(grid.send_and_receive(messages, timeout=timeout))

def values(replies):
    "Partition id (or error code) of each reply to its value, in the order of partitions."
    return dict(sorted(
        (r.metadata.src_node_id - 1000, r.error.code if r.has_error() else r.content["m"]["value"])
        for r in replies
    ))

@app.main()
def main(grid, context):
"""

CLIENT_HEAD = """
import ctypes, os, signal, sys, time
from flwr.app import *
from flwr.clientapp import ClientApp
app = ClientApp()

def answer(message, value):
    return Message(RecordDict({"m": MetricRecord({"value": value})}), reply_to=message)

"""

MakeApp = Callable[..., Path]


@pytest.fixture
def make_app(tmp_path: Path) -> MakeApp:
    """Return a function that writes an app folder.

    ``client`` is the code of ``client_app.py`` below its head; ``main`` is the body of the
    ServerApp's main function, whose value the engine returns.
    """

    def make(client: str, main: str = "return values(ask(grid))", **options: Any) -> Path:
        name = options.get("name", "tiny_app")
        folder = tmp_path / "apps" / name
        (folder / name).mkdir(parents=True, exist_ok=True)
        body = "".join(f"    {line}\n" for line in dedent(main).strip().splitlines())
        files = {
            "pyproject.toml": PYPROJECT.format(name=name, config=options.get("config", "")),
            f"{name}/__init__.py": "",
            f"{name}/server_app.py": SERVER_HEAD + body + dedent(options.get("server_tail", "")),
            f"{name}/client_app.py": CLIENT_HEAD + dedent(client),
        }
        for path, text in files.items():
            (folder / path).write_text(text)
        return folder

    return make
