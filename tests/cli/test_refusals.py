"""What can be known is refused before torch or Flower is imported: all of it, once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedwaggle.engine import read_app
from fedwaggle.errors import ConfigError
from running import QUICKSTART, plain_env


@pytest.fixture
def light(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which whoever imports torch or Flower ends with status 9."""
    for name in ("torch", "flwr"):
        (tmp_path / f"{name}.py").write_text("import os; os._exit(9)")
    return plain_env() | {"PYTHONPATH": str(tmp_path)}


def refused(environment: dict[str, str], *options: str) -> list[str]:
    """Return the mistakes for which the quickstart is refused."""
    waggle = Path(sys.executable).with_name("waggle")
    line = [str(waggle), "run", str(QUICKSTART), *options]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert all(text.startswith("error: ") for text in lines)
    return [text.removeprefix("error: ") for text in lines]


def test_every_mistake_is_reported_at_once_before_torch_is_imported(light: dict[str, str]) -> None:
    """A choice, a type, a range, a key, an option of the engine, and too few nodes."""
    settings = ("partitioner=dirichelt", "lr=high", "seed=-1", "nodse=3", "min-replies=7")
    options = [part for setting in settings for part in ("--set", setting)]
    mistakes = refused(light, "--nodes", "6", "--workers", "999", "--set", *options[1:])
    assert [mistake.partition(":")[0] for mistake in mistakes] == [
        "workers",
        "lr",
        "nodse",
        "seed",
        "partitioner",
        "min-replies",
    ]
    assert mistakes[4].endswith("did you mean 'dirichlet'?")
    assert mistakes[5].endswith("got 7; start with --nodes 7 or more, or set min-replies=6")


@pytest.mark.parametrize("engine", ["local", "flower"])
def test_one_node_where_two_are_waited_for_is_refused(light: dict[str, str], engine: str) -> None:
    mistakes = refused(light, "--nodes", "1", "--engine", engine)
    assert [mistake.partition(":")[0] for mistake in mistakes] == [
        "min-train-nodes",
        "min-evaluate-nodes",
        "min-available-nodes",
    ]


def test_more_nodes_than_examples_are_refused(light: dict[str, str]) -> None:
    """The embedded set has 6,000 examples to train on and 1,000 to test on."""
    assert [mistake.partition(",")[0] for mistake in refused(light, "--nodes", "6001")] == [
        "nodes: expected at most 6000",
        "nodes: expected at most 1000",
    ]
    none = ("--set", "fraction-evaluate=0.0")
    assert len(refused(light, "--nodes", "6001", *none)) == 1
    read_app(QUICKSTART, {"fraction-evaluate": 0.0}, nodes=6000)


def an_app(folder: Path, server: str, config: str) -> Path:
    (folder / "my_app").mkdir(parents=True)
    (folder / "my_app" / "server_app.py").write_text(server)
    (folder / "pyproject.toml").write_text(
        '[tool.flwr.app.components]\nserverapp = "my_app.server_app:app"\n'
        f'clientapp = "my_app.client_app:app"\n[tool.flwr.app.config]\n{config}'
    )
    return folder


def test_the_same_keys_of_a_foreign_app_are_its_own(tmp_path: Path) -> None:
    app = an_app(tmp_path, "import flwr", 'partitioner = "mine"\nmin-train-nodes = 5\nseed = -1')
    assert read_app(app, nodes=1).config["seed"] == -1


def test_a_key_that_a_subclass_declares_anew_is_its_own(tmp_path: Path) -> None:
    """The choices are the app's; of the other keys, the limits are checked as ever."""
    server = (
        "from fedwaggle.config import RunConfig, read_config\n"
        "class MyConfig(RunConfig):\n    partitioner: str = 'mine'\n    own_key: int = 1\n"
    )
    app = an_app(tmp_path, server, 'partitioner = "mine"\nown-key = -5\nseed = 0')
    assert read_app(app, nodes=2).config["partitioner"] == "mine"
    with pytest.raises(ConfigError, match="seed: expected greater than or equal to 0"):
        read_app(app, {"seed": -1})
    assert os.listdir(tmp_path / "my_app") == ["server_app.py"]
