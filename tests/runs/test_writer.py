"""Laws of an open run."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from fedwaggle.runs import Request, Run, load
from fedwaggle.runs.events import RoundStarted


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(143)])
def test_a_run_that_is_told_to_stop_is_interrupted_and_says_how_to_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, stop: BaseException
) -> None:
    """Ctrl-C is no failure: it leaves what a ``kill -9`` leaves, and a word."""
    run = Run.create(tmp_path, name="iid", request=Request())
    run.record(RoundStarted(round=6, learning_rate=0.1, sampled=5, available=10))
    with caplog.at_level(logging.INFO), pytest.raises(type(stop)), run:
        raise stop
    record = load(run.path)
    assert (record.status, record.error) == ("interrupted", "")
    assert f"stopped in round 6; `waggle run APP --resume {run.path.name}` resumes" in caplog.text
    assert "interrupted" in (run.path / "report.html").read_text()
