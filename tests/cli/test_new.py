"""``waggle new``: a project that is one's own, and runs at once."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from fedwaggle.cli.new import create_project
from fedwaggle.engine import read_app
from fedwaggle.errors import ConfigError


def test_a_new_project_bears_its_own_name_everywhere(waggle, tmp_path: Path) -> None:
    done = waggle("new", "bee-garden")
    assert done.returncode == 0, done.stderr
    assert "waggle run bee-garden" in done.stdout
    project = tmp_path / "bee-garden"
    assert (project / "bee_garden" / "task.py").is_file()
    for file in project.rglob("*.*"):
        for text in (file.name, file.read_text()):
            assert "my_federated" not in text
            assert "my-federated" not in text
    table = tomllib.loads((project / "pyproject.toml").read_text())
    assert table["project"]["name"] == "bee-garden"
    assert read_app(project).serverapp == "bee_garden.server_app:app"


@pytest.mark.slow
def test_a_new_project_runs_as_it_is(waggle, tmp_path: Path) -> None:
    waggle("new", "bees")
    small = ["--set", "num-server-rounds=1", "--set", "local-epochs=1"]
    done = waggle("run", "bees", "--nodes", "2", *small)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "outputs").glob("*/best.pth"))) == 1


def test_what_a_run_leaves_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = tmp_path / "template"
    for name in ("my_federated_project/task.py", "outputs/r/best.pth", "wandb/x.json", ".env"):
        (template / name).parent.mkdir(parents=True, exist_ok=True)
        (template / name).write_text("")
    monkeypatch.setattr("fedwaggle.cli.new._folder", lambda name: template)
    monkeypatch.setattr("fedwaggle.cli.new._lay_over", lambda draft, name: None)
    monkeypatch.setattr("fedwaggle.cli.new._refuse_unknown_template", lambda name: None)
    project = create_project("garden", tmp_path)
    assert sorted(path.name for path in project.rglob("*")) == ["garden", "task.py"]


@pytest.mark.parametrize("name", ["", "a b", "1st", "under_score", "../up", "end-", "a" * 33, "é"])
def test_bad_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected letters, digits and hyphens"):
        create_project(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["torch", "fedwaggle", "class", "json"])
def test_names_that_would_hide_a_module_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{name}-project"):
        create_project(name, tmp_path)


def test_an_existing_folder_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "bees").mkdir()
    with pytest.raises(ConfigError, match="choose another name"):
        create_project("bees", tmp_path)
    assert list((tmp_path / "bees").iterdir()) == []
