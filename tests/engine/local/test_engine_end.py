"""However a run ends, no process is left behind; its shared memory ends with the last of them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from fedwaggle.engine.local.linux.launch import command
from waiting import PATIENCE, wait_for_end

CLIENT = """
@app.train()
def train(message, context):
    print("at work", flush=True)
    time.sleep(600)
"""

Start = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def start(make_app, tmp_path: Path) -> Start:
    """Return a function that starts a run whose two clients never end, and waits for them."""
    main = """
    try:
        ask(grid)
    finally:
        print("the server cleans up", flush=True)
    """
    app = make_app(CLIENT, main)
    code = f"from fedwaggle.engine import run; run({str(app)!r}, nodes=2, workers=2)"

    def started() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        for _ in range(2):
            assert process.stdout.readline().endswith("at work\n")
        return process

    return started


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_everything(start: Start, number: signal.Signals) -> None:
    """Two clients sleep for 600 s; with a signal they end long before."""
    process = start()
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) == 3  # the fork server and two workers
    process.send_signal(number)
    wait_for_end(family)
    output = process.communicate(timeout=PATIENCE)[0]
    assert ("the server cleans up" in output) == (number != signal.SIGKILL)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGKILL: -9}.get(number, -2)


def test_the_deaths_of_server_and_fork_server_together_end_the_workers(start: Start) -> None:
    """Nobody is left who could tell the workers; the system does."""
    process = start()
    fork_server = psutil.Process(process.pid).children()[0]
    workers = fork_server.children()
    fork_server.suspend()  # so that it cannot see the other's end before its own
    process.kill()
    fork_server.kill()
    process.communicate(timeout=PATIENCE)
    wait_for_end([fork_server, *workers])


def test_the_death_of_the_server_ends_the_import_of_the_client_app(make_app) -> None:
    app = make_app("print('importing', flush=True); time.sleep(600)")
    code = f"from fedwaggle.engine import run; run({str(app)!r}, nodes=1)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "[ClientApp] importing\n"
    family = psutil.Process(process.pid).children()
    process.kill()
    process.communicate(timeout=PATIENCE)
    wait_for_end(family)
    assert len(family) == 1


def test_a_fork_server_whose_server_died_before_it_began_ends_without_a_word() -> None:
    """No process has 0 for its parent but the system's own."""
    ended = subprocess.run(
        command("fork_server.serve", -1, -1, 0), capture_output=True, timeout=PATIENCE, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_after_a_run_no_process_is_left(make_app) -> None:
    from fedwaggle.engine import run

    client = "@app.train()\ndef train(message, context):\n    return answer(message, 1)"
    before = set(psutil.Process().children(recursive=True))
    open_files = psutil.Process().num_fds()
    for _ in range(2):
        run(make_app(client), nodes=3)
    assert set(psutil.Process().children(recursive=True)) == before
    assert psutil.Process().num_fds() <= open_files + 1  # what Flower opens on its first import


def test_a_fork_server_may_be_ended_while_it_forks(make_app, capfd) -> None:
    """Each message has a process of its own, and modules prepare for each fork for 0.5 s."""
    from fedwaggle.engine import run

    client = """
    os.register_at_fork(before=lambda: time.sleep(0.5))
    @app.train()
    def train(message, context):
        return answer(message, 1)
    """
    app = make_app(client, "ask(grid); raise LookupError('in the middle')")
    with pytest.raises(LookupError, match="in the middle"):
        run(app, nodes=4, workers=1, isolate=True, quiet=True)
    assert capfd.readouterr() == ("", "")


def test_a_server_that_fails_at_once_does_not_wait_for_the_clients_import(make_app, capfd) -> None:
    """The ClientApp's import takes 600 s; the ServerApp's error is there long before."""
    from fedwaggle.engine import run

    app = make_app("time.sleep(600)", "raise LookupError('at once')")
    began = time.monotonic()
    with pytest.raises(LookupError, match="at once"):
        run(app, nodes=1)
    assert time.monotonic() - began < PATIENCE
    assert capfd.readouterr() == ("", "")


def test_the_first_step_is_not_far_away(make_app) -> None:
    """A run of an app without torch imports Flower, and nothing else that takes long."""
    client = """
    HEAVY = "torch ray datasets flwr_datasets pandas pyarrow plotly wandb".split()
    @app.train()
    def train(message, context):
        return Message(RecordDict({"c": ConfigRecord({"heavy": loaded()})}), reply_to=message)
    def loaded():
        return [name for name in HEAVY if name in sys.modules]
    """
    main = """
    import sys
    from tiny_app.client_app import loaded
    return [reply.content["c"]["heavy"] for reply in ask(grid)], loaded()
    """
    app = make_app(client, main)
    code = f"from fedwaggle.engine import run; print(run({str(app)!r}, nodes=3).value)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout == "([[], [], []], [])\n"
