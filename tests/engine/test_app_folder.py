"""What an app folder says, and what may be overridden."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedwaggle.engine import read_app
from fedwaggle.errors import ConfigError


@pytest.fixture
def folder(make_app) -> Path:
    values = 'rounds = 3\nlr = 0.5\nname = "a"\nfast = true\n'
    return make_app("", config=f"{values}[tool.flwr.app.config.data]\nsize = 8")


def test_an_app_is_its_components_and_its_flat_config(folder: Path) -> None:
    app = read_app(folder)
    assert (app.name, app.version, app.publisher) == ("tiny_app", "1.0.0", "tests")
    assert app.references == ("tiny_app.server_app:app", "tiny_app.client_app:app")
    assert app.config == {"rounds": 3, "lr": 0.5, "name": "a", "fast": True, "data.size": 8}


def test_overrides_replace_defaults_and_a_whole_number_is_a_float_too(folder: Path) -> None:
    config = read_app(folder, {"lr": 1, "data.size": 9, "data": {"size": 10}}).config
    assert config["lr"] == 1.0
    assert type(config["lr"]) is float
    assert config["data.size"] == 10


def test_all_mistakes_are_reported_together_with_the_nearest_key(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_app(folder, {"rouns": 3, "rounds": "3", "fast": 1, "lr": True})
    assert caught.value.mistakes == (
        "rouns: expected a key of the app's [tool.flwr.app.config], got an unknown one; "
        "did you mean rounds?",
        "rounds: expected int, got str '3'; the app's default is 3",
        "fast: expected bool, got int 1; the app's default is True",
        "lr: expected float, got bool True; the app's default is 0.5",
    )


def test_a_folder_that_is_no_app_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pyproject.toml: expected an app's pyproject.toml"):
        read_app(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    with pytest.raises(ConfigError) as caught:
        read_app(tmp_path)
    assert [line.split("expected ")[1].split(" = ")[0] for line in caught.value.mistakes] == [
        "serverapp",
        "clientapp",
    ]
    (tmp_path / "pyproject.toml").write_text("[project\n")
    with pytest.raises(ConfigError, match="expected TOML"):
        read_app(tmp_path)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.flwr.app.components]\nserverapp = "a:b"\nclientapp = "a:c"\n'
        "[tool.flwr.app.config]\nlayers = [1, 2]\n"
    )
    with pytest.raises(ConfigError, match="layers: expected bool, int, float or str, got list"):
        read_app(tmp_path)
