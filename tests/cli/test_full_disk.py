"""A run whose last files find no room does not end well: status 1, and their names."""

from __future__ import annotations

import subprocess
from pathlib import Path

import running
from strategy.test_disks import small_disk


def test_a_disk_that_is_full_at_the_end_is_status_1_and_names_the_files(tmp_path: Path) -> None:
    """300 kB hold the record and one model of 180 kB: the last one and the report are missing."""
    settings = {**running.SMALL, "num-server-rounds": 1}
    with small_disk(tmp_path / "disk", "size=300k") as disk:
        command = running.command(disk, settings=settings, nodes=2)
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=280, env=running.plain_env()
        )
        assert (running.latest(disk) / "events.jsonl").exists()
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert "final.pth (" in last
    assert "report.html (" in last
