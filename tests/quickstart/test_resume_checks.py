"""`waggle run --resume` with other data is refused, and with other code warns of its files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedwaggle.cli.new import create_project
from running import plain_env


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())


def data_set(folder: Path, brightness: int) -> Path:
    """Write 40 images to train on and 10 to test on."""
    folder.mkdir()
    for split, count in (("train", 40), ("t10k", 10)):
        images = np.full((count, 28, 28), brightness, np.uint8)
        write_idx(folder / f"{split}-images-idx3-ubyte", images)
        write_idx(folder / f"{split}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)
    return folder


def waggle_run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    waggle = Path(sys.executable).with_name("waggle")
    line = [str(waggle), "run", "my-app", "--nodes", "2", *options]
    return subprocess.run(
        line, cwd=folder, env=plain_env(), capture_output=True, text=True, timeout=250
    )


def test_a_run_is_resumed_with_its_own_data_and_told_of_changed_code(tmp_path: Path) -> None:
    """The folder of the data may change; what is in it may not."""
    app = create_project("my-app", tmp_path) / "my_app"
    (app / "models").mkdir()
    (app / "models" / "net.py").write_text("SIZE = 1")
    first, other = data_set(tmp_path / "first", 10), data_set(tmp_path / "other", 20)
    settings = ("dataset=fashion-mnist", f"data-dir={first}", "num-server-rounds=1")
    begun = waggle_run(tmp_path, *(part for pair in settings for part in ("--set", pair)))
    assert begun.returncode == 0, begun.stderr
    refused = waggle_run(tmp_path, "--resume", "latest", "--set", f"data-dir={other}")
    assert refused.returncode == 2, refused.stderr
    assert "the data (fingerprint): was '" in refused.stderr
    (app / "models" / "net.py").write_text("SIZE = 2")
    resumed = waggle_run(tmp_path, "--resume", "latest", "--set", "num-server-rounds=2")
    assert resumed.returncode == 0, resumed.stderr
    assert "code changed" in resumed.stderr
    assert "models/net.py;" in resumed.stderr
