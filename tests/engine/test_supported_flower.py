"""The oldest Flower that is supported: the engine's own tests, run against it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from waiting import PATIENCE

HERE = Path(__file__).parent
OLDEST = "1.41.0"


@pytest.mark.slow
def test_the_engine_runs_on_the_oldest_flower_that_is_supported(tmp_path: Path) -> None:
    """Flower is installed beside this environment, and goes before the one in it."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*install, "--target", str(tmp_path), f"flwr=={OLDEST}"], check=True)
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    which = [sys.executable, "-c", "import flwr; print(flwr.__version__, flwr.__file__)"]
    found = subprocess.run(which, env=env, capture_output=True, text=True, check=True).stdout
    assert found.startswith(f"{OLDEST} {tmp_path}")
    tests = [str(HERE / name) for name in ("test_flwr_private.py", "local/test_local_engine.py")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        env=env,
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout[-3000:]
