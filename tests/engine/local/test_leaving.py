"""Workers end as Python programs do, within a few seconds: at the end of a run, or of a message."""

from __future__ import annotations

import gzip
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedwaggle.engine import run
from fedwaggle.engine.local.linux.leaving import LEAVING_SECONDS

# Leaves everything to the end of its process: a line in a file's buffer, one in a compressed
# file, an exit handler, a temporary folder, a thread.
CLIENT = """
import atexit, gzip, tempfile, threading
from pathlib import Path
FOLDER = Path(__file__).parents[1] / "written"
FOLDER.mkdir(exist_ok=True)
LOG = (FOLDER / "imported.txt").open("a")
LOG.write("header\\n")
SHARED = tempfile.TemporaryDirectory(dir=FOLDER)
atexit.register(lambda: (FOLDER / f"handler-{os.getpid()}").touch())
KEPT = []

def say(text):
    time.sleep(0.2)
    print(text)

@app.train()
def train(message, context):
    client = context.node_config["partition-id"]
    assert Path(SHARED.name).exists()
    if not KEPT:
        atexit.register(print, "good", end="bye")
        KEPT.append(tempfile.TemporaryDirectory(dir=FOLDER))
        KEPT.append((FOLDER / f"own-{os.getpid()}.txt").open("w"))
        KEPT.append(gzip.open(FOLDER / f"own-{os.getpid()}.gz", "wt"))
        threading.Thread(target=say, args=["the thread is done"]).start()
    LOG.write(f"{client}\\n")
    for file in KEPT[1:]:
        file.write(f"{client}\\n")
    return answer(message, os.getpid())
"""


@pytest.mark.parametrize(
    ("isolate", "processes", "gpus"),
    [(False, 1, None), (True, 3, None), (False, 1, 1)],
    ids=["forked", "isolated", "fresh interpreters"],
)
def test_workers_end_in_order(make_app, capfd, isolate: bool, processes: int, gpus) -> None:
    """3 messages, one worker at a time: each is written to three files, and none is lost."""
    app = make_app(CLIENT)
    pids = run(app, nodes=3, workers=1, isolate=isolate, gpus=gpus, quiet=True).value.values()
    assert len(set(pids)) == processes
    folder = app / "written"
    imported = sorted((folder / "imported.txt").read_text().split())
    assert imported == ["0", "1", "2", "header"]  # what was written at import is there once
    plain = b"".join(path.read_bytes() for path in folder.glob("own-*.txt"))
    unpacked = b"".join(gzip.decompress(path.read_bytes()) for path in folder.glob("own-*.gz"))
    assert sorted(plain.split()) == sorted(unpacked.split()) == [b"0", b"1", b"2"]
    assert {int(file.name[8:]) for file in folder.glob("handler-*")} == set(pids)
    assert [path for path in folder.iterdir() if path.is_dir()] == []  # all temporary ones
    assert capfd.readouterr().out.count("[ClientApp] goodbye\n") == processes


def test_a_client_that_is_at_work_when_the_run_ends_cleans_up(make_app, capfd) -> None:
    """Nobody waits for its reply, so it is interrupted, and its own clean-up runs."""
    client = """
    @app.train()
    def train(message, context):
        try:
            time.sleep(600)
        finally:
            print("cleaned up")
    """
    app = make_app(client, "return ask(grid, timeout=1.0)")
    result = run(app, nodes=1, quiet=True)
    assert (result.value, capfd.readouterr().out) == ([], "[client 0] cleaned up\n")


def test_workers_that_do_not_end_are_ended(make_app) -> None:
    """One has an exit handler that never returns, one a thread, one a client that does not wake."""
    client = """
    import atexit, threading
    @app.train()
    def train(message, context):
        client = context.node_config["partition-id"]
        time.sleep(0.3)  # so that each worker takes one
        if client == 0: atexit.register(time.sleep, 600)
        if client == 1: threading.Thread(target=time.sleep, args=[600]).start()
        if client == 2:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            time.sleep(600)
        return answer(message, 1)
    """
    app = make_app(client, "return values(ask(grid, timeout=2.0))")
    result = run(app, nodes=3, workers=3, quiet=True)
    assert result.value == {0: 1, 1: 1}
    assert result.seconds < 60.0


def test_an_isolated_message_waits_five_seconds_for_the_process_before(make_app) -> None:
    """The first client's exit handler never returns: with one worker, the second has to wait."""
    client = """
    import atexit
    @app.train()
    def train(message, context):
        if context.node_config["partition-id"] == 0: atexit.register(time.sleep, 600)
        return answer(message, 1)
    """
    result = run(make_app(client), nodes=2, workers=1, isolate=True, quiet=True)
    assert result.value == {0: 1, 1: 1}
    assert 5.0 < result.seconds < 60.0


@pytest.mark.parametrize("isolate", [False, True])
def test_a_reply_that_nobody_reads_does_not_hold_up_the_end(make_app, isolate: bool) -> None:
    """24 MB of arrays wait with their sender; nobody pulls them, and the run is over."""
    client = """
    import numpy as np
    @app.train()
    def train(message, context):
        content = RecordDict({"a": ArrayRecord([np.ones(3_000_000)])})
        return Message(content, reply_to=message)
    """
    main = """
    grid.push_messages([Message(RecordDict(), n, "train") for n in grid.get_node_ids()])
    board = grid._pool._board
    while not board.taken(0):
        time.sleep(0.01)
    time.sleep(1.0)
    return time.monotonic()
    """
    app = make_app(client, main)
    ended = run(app, nodes=3, workers=1, isolate=isolate, quiet=True).value
    assert time.monotonic() - ended < LEAVING_SECONDS


def test_a_run_that_is_interrupted_does_not_wait_for_its_workers(make_app) -> None:
    """Its exit handlers do not run: SIGTERM to the server ends everything at once."""
    client = """
    import atexit
    @app.train()
    def train(message, context):
        atexit.register(lambda: print("too late"))
        return answer(message, 1)
    """
    app = make_app(client, "ask(grid); os = __import__('os'); os.kill(os.getpid(), 15)")
    code = f"from fedwaggle.engine import run; run({str(app)!r}, nodes=1, quiet=True)"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (128 + signal.SIGTERM, b"")


def test_a_reason_to_leave_is_shown_and_other_clients_are_answered(make_app, capfd) -> None:
    """Node 0 leaves with a text: it is on the terminal, too, as at the end of a program."""
    client = """
    @app.train()
    def train(message, context):
        if context.node_config["partition-id"] == 0: sys.exit("no data at this site")
        return answer(message, 1)
    """
    main = "return [r.error.reason if r.has_error() else 1 for r in ask(grid)]"
    reason = (
        "ClientApp stopped responding: its process ended with exit code 1: no data at this site."
    )
    assert run(make_app(client, main), nodes=3, workers=1, quiet=True).value == [reason, 1, 1]
    assert "[client 0] no data at this site\n" in capfd.readouterr().err


@pytest.mark.parametrize("isolate", [False, True])
def test_each_message_starts_in_the_folder_of_the_run(
    make_app, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolate: bool
) -> None:
    client = """
    @app.train()
    def train(message, context):
        found = os.getcwd()
        os.chdir("/")
        return Message(RecordDict({"c": ConfigRecord({"folder": found})}), reply_to=message)
    """
    app = make_app(client, 'return {r.content["c"]["folder"] for r in ask(grid)}')
    monkeypatch.chdir(tmp_path)
    found = run(app, nodes=3, workers=1, isolate=isolate, quiet=True).value
    assert found == {str(tmp_path)}
