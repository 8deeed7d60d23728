"""Every template makes a project that has no trace of ours, passes its own tests, and learns."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fedwaggle.cli.new import create_project
from fedwaggle.config import read_config
from fedwaggle.errors import ConfigError
from fedwaggle.runs.listing import list_runs
from running import plain_env

TEMPLATES = ("vision", "images", "tabular", "text", "lora", "sklearn", "xgboost")
LEARNS = {  # metric of the last round that a few rounds reach, and whether less is better
    "vision": ("accuracy", 0.5, False),
    "images": ("accuracy", 0.5, False),
    "tabular": ("mae", 0.7, True),
    "text": ("perplexity", 20.0, True),
    "lora": ("accuracy", 0.8, False),
    "sklearn": ("accuracy", 0.8, False),
    "xgboost": ("auc", 0.95, False),
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_project_is_its_user_s_own(template: str, tmp_path: Path) -> None:
    """Its name is everywhere; no licence, no publisher and no placeholder of ours is left."""
    project = create_project("bees", tmp_path, template)
    table = tomllib.loads((project / "pyproject.toml").read_text())
    assert "license" not in table["project"]
    assert table["tool"]["flwr"]["app"]["publisher"] == "your-name"
    read_config(table["tool"]["flwr"]["app"]["config"])
    for file in project.rglob("*"):
        if file.is_file():
            assert not re.search(
                r"my.federated.project|waggle\"|DESCRIPTION|DEPENDENCIES|ABOUT|Apache",
                file.read_text(),
            ), file
    assert {"README.md", ".gitignore", "tests", "bees"} <= {path.name for path in project.iterdir()}


@pytest.mark.parametrize("template", TEMPLATES)
def test_only_the_trees_replace_more_than_the_task(template: str, tmp_path: Path) -> None:
    vision = create_project("a", tmp_path, "vision") / "a"
    other = create_project("b", tmp_path, template) / "b"
    changed = {
        file.name
        for file in other.glob("*.py")
        if file.read_text() != re.sub(r"\ba\.|\bfrom a import", _renamed, read(vision / file.name))
    }
    if template == "xgboost":
        assert changed == {"client_app.py", "server_app.py", "strategy.py", "task.py"}
    else:
        assert changed <= {"task.py"}


def read(file: Path) -> str:
    return file.read_text()


def _renamed(found: re.Match[str]) -> str:
    return found[0].replace("a.", "b.").replace("from a ", "from b ")


def test_an_unknown_template_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="images, lora, sklearn, tabular, text, vision, xgboost"):
        create_project("bees", tmp_path, "audio")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_project_passes_its_tests_and_learns(waggle, template: str, tmp_path: Path) -> None:
    """Outside the checkout: `waggle new`, its tests, and its own config for eight rounds."""
    done = waggle("new", "bees", "--template", template)
    assert done.returncode == 0, done.stderr
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "bees"],
        cwd=tmp_path,
        env=plain_env(),
        capture_output=True,
        text=True,
    )
    assert tests.returncode == 0, tests.stdout
    done = waggle("run", "bees", "--set", "num-server-rounds=8")
    assert done.returncode == 0, done.stderr
    (run,) = list_runs(tmp_path / "outputs")
    metric, value, is_low = LEARNS[template]
    assert run.best.metric == metric
    assert run.best.value < value if is_low else run.best.value > value
