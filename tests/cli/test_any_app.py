"""Apps of anybody: a src layout, nodes of their own, values for their nodes, packages they need."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedwaggle.engine.app import read_app, read_federation
from fedwaggle.engine.resources import federation_options
from fedwaggle.errors import ConfigError

PYPROJECT = """\
[project]
name = "meadow"
version = "1.0.0"

[tool.flwr.app]
publisher = "meadow"

[tool.flwr.app.components]
serverapp = "meadow.server:app"
clientapp = "meadow.client:app"

[tool.flwr.federations]
default = "here"

[tool.flwr.federations.here]
options.num-supernodes = 3
options.backend.client-resources.num-cpus = 1
options.backend.name = "ray"
"""
SERVER = """\
from flwr.app import Message, RecordDict
from flwr.serverapp import ServerApp
from meadow.words import GREETING

app = ServerApp()

@app.main()
def main(grid, context):
    nodes = sorted(grid.get_node_ids())
    messages = [Message(RecordDict(), node, "query.site") for node in nodes]
    replies = grid.send_and_receive(messages)
    sites = sorted(reply.content.config_records["site"]["name"] for reply in replies)
    print(GREETING, len(nodes), sites, flush=True)
"""
CLIENT = """\
import random
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.query("site")
def site(msg, context):
    name = f"{context.node_config.get('site', 'none')}-{context.node_config['partition-id']}"
    number = random.random() if context.node_config.get("draw") else ""
    record = ConfigRecord({"name": f"{name}{number}"})
    return Message(RecordDict({"site": record}), reply_to=msg)
"""


@pytest.fixture
def meadow(tmp_path: Path) -> Path:
    """Return the folder of a plain Flower app, whose package is in ``src``."""
    package = tmp_path / "meadow" / "src" / "meadow"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "server.py").write_text(SERVER)
    (package / "client.py").write_text(CLIENT)
    (package / "words.py").write_text('GREETING = "hello"')
    (package.parents[1] / "pyproject.toml").write_text(PYPROJECT)
    return package.parents[1]


def test_a_src_layout_runs_on_the_nodes_that_it_asks_for(waggle, meadow: Path) -> None:
    """Three nodes, from its own federation; one line names what is not respected of that."""
    done = waggle("run", "meadow", "--node-config", "site='north' depth=3")
    assert done.returncode == 0, done.stderr
    assert "hello 3 ['north-0', 'north-1', 'north-2']" in done.stdout
    assert "not respected of the federation config: name\n" in done.stderr


def test_what_is_asked_now_counts_before_what_the_app_asks(waggle, meadow: Path) -> None:
    done = waggle("run", "meadow", "--federation-config", "num-supernodes=2")
    assert "hello 2 ['none-0', 'none-1']" in done.stdout
    done = waggle("run", "meadow", "--federation-config", "num-supernodes=2", "--nodes", "1")
    assert "hello 1 ['none-0']" in done.stdout


def test_a_seed_repeats_what_the_app_does_not_seed(waggle, meadow: Path) -> None:
    lines = [
        waggle("run", "meadow", "--node-config", "draw=true", "--seed", seed).stdout
        for seed in ("1", "1", "2")
    ]
    assert "hello 3 ['none-00." in lines[0]
    assert lines[0] == lines[1] != lines[2]


def test_a_package_that_is_not_installed_is_named_with_the_line_to_install_it(
    waggle, meadow: Path
) -> None:
    (meadow / "src" / "meadow" / "words.py").write_text("import skimage.filters")
    done = waggle("run", "meadow")
    assert done.returncode == 1
    assert (
        "error: meadow.server:app: the app imports 'skimage', which is not installed; "
        "pip install scikit-image\n"
    ) in done.stderr


def test_mistakes_in_pairs_name_their_option(waggle, meadow: Path) -> None:
    done = waggle("run", "meadow", "--node-config", "site = north")
    assert done.returncode == 2
    assert "error: --node-config site = north: expected KEY=VALUE pairs" in done.stderr
    done = waggle("run", "meadow", "--federation-config", "num-supernodes=none")
    assert "error: num-supernodes: expected a whole number from 1, got 'none'" in done.stderr


def test_flower_s_engine_refuses_what_it_has_not(waggle, meadow: Path) -> None:
    done = waggle("run", "meadow", "--engine", "flower", "--node-config", "a=1", "--seed", "3")
    assert done.returncode == 2
    assert "--node-config: expected --engine local" in done.stderr
    assert "--seed: expected --engine local" in done.stderr


def test_a_federation_config_becomes_options() -> None:
    assert federation_options(
        {
            "num-supernodes": 4,
            "client-resources-num-cpus": 2,
            "init-args-num-cpus": 8,
            "init-args-num-gpus": 2,
            "client-resources-num-gpus": 0.5,
            "init-args-logging-level": "error",
        }
    ) == (
        {"nodes": 4, "workers": 4, "gpus": 2, "clients_per_gpu": 2},
        ["init-args-logging-level"],
    )
    with pytest.raises(ConfigError) as caught:
        federation_options({"num-supernodes": 0, "client-resources-num-gpus": 2})
    assert [mistake.partition(":")[0] for mistake in caught.value.mistakes] == [
        "num-supernodes",
        "client-resources-num-gpus",
    ]


def test_a_folder_s_federation_is_read(meadow: Path) -> None:
    assert read_federation(meadow) == {
        "num-supernodes": 3,
        "client-resources-num-cpus": 1,
        "name": "ray",
    }
    assert read_app(meadow).import_path == meadow / "src"
