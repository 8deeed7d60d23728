"""The live report's server: this machine only, two addresses, and a version that follows."""

from __future__ import annotations

import signal
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

import pytest

from fedwaggle.errors import RunError
from fedwaggle.runs import Run
from fedwaggle.runs.report import ReportServer
from runs.report_data import run_events, write_run
from waiting import PATIENCE


def ask(server: ReportServer, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def test_the_version_changes_with_the_record_and_only_then(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", run_events()[:5])
    with ReportServer(run) as server:
        first = ask(server, "/version")
        assert first == ask(server, "/version")
        assert first[1] in ask(server, "/")[1]  # the page knows which version it shows
        write_run(run, run_events()[:6])
        assert ask(server, "/version") != first


def test_the_live_page_may_ask_its_server_and_nobody_else(tmp_path: Path) -> None:
    with ReportServer(write_run(tmp_path / "run", run_events()[:5])) as server:
        assert "connect-src &#39;self&#39;" in ask(server, "/")[1]


@pytest.mark.parametrize(
    "path",
    [
        *("/events.jsonl", "/../run.json", "/?x", "/index.html", "/runs/", "/runs/none/"),
        *("/runs/../run/", "/runs/run/events.jsonl", "/runs/%2e%2e/", "/runs/run%2frun.json/"),
    ],
)
def test_nothing_else_is_served(tmp_path: Path, path: str) -> None:
    with ReportServer(write_run(tmp_path / "run", run_events()[:5])) as server:
        assert ask(server, path)[0] == 404


def test_another_sites_name_for_this_machine_is_not_answered(tmp_path: Path) -> None:
    """A web page may make its own name point at 127.0.0.1, and read what is served there."""
    with ReportServer(write_run(tmp_path / "run", run_events()[:5])) as server:
        assert ask(server, "/", host=f"evil.example:{server.port}")[0] == 404
        assert ask(server, "/version", host=f"localhost:{server.port}")[0] == 200


def test_a_record_that_goes_away_is_an_answer_not_a_crash(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", run_events()[:5])
    with ReportServer(run) as server:
        (run / "events.jsonl").unlink()
        assert ask(server, "/version")[0] == 503
        assert ask(server, "/")[0] == 503


def test_a_port_that_is_taken_is_an_error_that_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", run_events()[:5])
    with ReportServer(run) as server, pytest.raises(RunError, match=f"port {server.port}"):
        ReportServer(run, server.port)


def test_a_folder_without_events_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"events\.jsonl"):
        ReportServer(tmp_path)


def test_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", run_events()[:5])
    code = "import sys, pathlib, fedwaggle.runs.report as r; r.serve(pathlib.Path(sys.argv[1]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    assert process.stderr
    with process:
        assert b"http://127.0.0.1:" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == b""


def test_all_runs_of_the_folder_have_a_list_and_a_page_each(tmp_path: Path) -> None:
    first = write_run(tmp_path / "20260102T090000Z-iid", run_events()[:5])
    write_run(tmp_path / "20260102T090001Z-<b>", run_events())
    with ReportServer(first) as server:
        status, page = ask(server, "/runs")
        assert status == 200
        assert '<a href="/runs/20260102T090000Z-iid/">iid</a>' in page
        assert "<b>" not in page.replace("<body>", "")
        assert "<script" not in page
        assert ask(server, "/runs/20260102T090001Z-%3Cb%3E/")[0] == 200
        assert ask(server, "/runs/20260102T090000Z-iid/version") == ask(server, "/version")


def test_the_version_tells_whether_a_process_is_still_there(tmp_path: Path) -> None:
    """A run that is killed leaves its record as it was; the page shows it as interrupted."""
    run = Run.create(tmp_path)
    with ReportServer(run.path) as server:
        running = ask(server, "/version")[1]
        run._lines.close()  # what the system does for a process that is killed
        assert ask(server, "/version")[1] != running
