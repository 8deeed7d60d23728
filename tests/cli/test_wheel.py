"""The package as users install it: a wheel that is complete, and works outside the repository."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from running import plain_env
from waiting import PATIENCE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
    subprocess.run([*pip, str(ROOT)], check=True, capture_output=True, timeout=PATIENCE)
    (file,) = folder.glob("fedwaggle-*.whl")
    return file


def test_the_wheel_holds_the_templates_and_the_licences(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for part in (
        "fedwaggle/_quickstart/pyproject.toml",
        "fedwaggle/_templates/xgboost/config.toml",
    ):
        assert part in names
    assert sum(name.endswith("LICENSE") for name in names) >= 2
    assert not any("outputs/" in name or "__pycache__" in name for name in names)


def test_a_new_project_runs_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """In a folder outside the repository, with the wheel before everything else on the path."""
    place = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(place)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True, timeout=PATIENCE)
    env = {**plain_env(), "PYTHONPATH": str(place)}

    def waggle(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = (
            "import fedwaggle, sys; print(fedwaggle.__file__); from fedwaggle.cli import app; app()"
        )
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=PATIENCE
        )

    made = waggle("new", "bee-garden")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith(str(place))
    done = waggle("run", "bee-garden", "--set", "num-server-rounds=1", "--set", "local-epochs=1")
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "outputs").glob("*/")
    assert (run / "best.pth").exists()
