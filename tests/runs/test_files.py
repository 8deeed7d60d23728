"""Laws of files that a crash, a full disk or a second writer cannot spoil."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedwaggle.runs.files import LineFile, write_atomic


@contextmanager
def disk_full_after(size: int) -> Iterator[None]:
    """Let no file of this process grow past ``size`` bytes: writing more is an OSError."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_file_that_cannot_be_written_leaves_the_old_one_whole(tmp_path: Path) -> None:
    """10 bytes are there; 100 do not fit into a disk of 50: the 10 stay, and nothing else."""
    path = tmp_path / "best.json"
    write_atomic(path, b"0123456789")
    with disk_full_after(50), pytest.raises(OSError, match="File too large"):
        write_atomic(path, b"x" * 100)
    assert path.read_bytes() == b"0123456789"
    assert os.listdir(tmp_path) == ["best.json"]


def test_lines_that_do_not_fit_wait_and_come_in_their_order(tmp_path: Path) -> None:
    """The third line does not fit: no part of it is left, and later all four are there."""
    path = tmp_path / "events.jsonl"
    lines = LineFile(path)
    lines.append("one")
    with disk_full_after(10):
        lines.append("two")
        with pytest.raises(OSError, match="File too large"):
            lines.append("a long third line")
        assert path.read_text() == "one\ntwo\n"
        assert lines.waiting == 1
    lines.append("four", sync=True)
    lines.close()
    assert path.read_text() == "one\ntwo\na long third line\nfour\n"


def test_a_line_that_a_killed_writer_left_half_is_cut_off(tmp_path: Path) -> None:
    """Opened again, the file ends with its last whole line."""
    path = tmp_path / "events.jsonl"
    path.write_text("one\ntwo\nthr")
    lines = LineFile(path)
    lines.append("three")
    lines.close()
    assert path.read_text() == "one\ntwo\nthree\n"


def test_a_file_of_one_half_line_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("x" * 200_000)  # longer than what is read at once
    LineFile(path).close()
    assert path.read_text() == ""


def test_a_second_writer_is_refused_in_this_process_and_in_another(tmp_path: Path) -> None:
    """One writer at a time; after it closed, the next may."""
    path = tmp_path / "events.jsonl"
    lines = LineFile(path)
    code = (
        "from pathlib import Path; from fedwaggle.runs.files import LineFile; "
        f"LineFile(Path({str(path)!r}))"
    )
    with pytest.raises(BlockingIOError):
        LineFile(path)
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "BlockingIOError" in other.stderr
    lines.close()
    LineFile(path).close()
