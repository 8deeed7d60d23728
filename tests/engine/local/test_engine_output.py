"""What a run shows: clients' lines with their names, a line a round, bars on a terminal."""

from __future__ import annotations

import io
import logging
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from fedwaggle.engine import run
from fedwaggle.engine.local.linux.client_output import OutputReader, redirect_output
from fedwaggle.engine.screen.progress import Progress, Shown
from waiting import PATIENCE

CLIENT = """
import logging
print("at import")

@app.train()
def train(message, context):
    number = context.node_config["partition-id"]
    print("first", number)
    print("second", end="")
    print("gone\\rkept", end="")
    sys.stderr.write("to the error stream\\n")
    logging.getLogger("flwr").warning("a log line")
    return answer(message, number)

@app.evaluate()
def evaluate(message, context):
    metrics = MetricRecord({"eval_acc": 0.25 + 0.5 * context.node_config["partition-id"]})
    return Message(RecordDict({"m": metrics}), reply_to=message)
"""

ROUNDS = """
for number in (1, 2):
    config = RecordDict({"config": ConfigRecord({"server-round": number})})
    for kind in ("train", "evaluate"):
        grid.send_and_receive([Message(config, n, kind) for n in grid.get_node_ids()])
"""


@contextmanager
def redirected() -> Iterator[tuple[Callable[[str], None], list[tuple[str, bool]]]]:
    """Be a worker that prints as ``[x]``; the lines are complete afterwards."""
    lines: list[tuple[str, bool]] = []
    reader = OutputReader(lambda line, is_error: lines.append((line, is_error)))
    before = (sys.stdout, sys.stderr)
    try:
        set_label = redirect_output(reader.fd, "[x] ")
        yield set_label, lines
        set_label("")
    finally:
        sys.stdout, sys.stderr = before
        reader.close()


@contextmanager
def on_a_terminal(
    app: Path, stdout: IO[str] | None = None, options: str = ""
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run an app in a process that has a terminal, and yield both."""
    code = f"from fedwaggle.engine import run; run({str(app)!r}, nodes=2{options})"
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "PYTHONUNBUFFERED": ""}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=stdout or theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        with suppress(OSError):  # a test may have closed it
            os.close(ours)
        process.kill()
        process.wait()


def read_all(terminal: int) -> str:
    """Read until the last process on a terminal ends."""
    shown = b""
    with suppress(OSError):  # that is how a terminal ends
        while part := os.read(terminal, 65_536):
            shown += part
    return shown.decode()


def test_each_line_of_a_client_has_its_name_in_front(make_app, capfd) -> None:
    run(make_app(CLIENT), nodes=2, workers=1)
    out, error = capfd.readouterr()
    lines = out.splitlines()
    assert lines[0] == "[ClientApp] at import"
    for number in (0, 1):
        name = f"[client {number}] "
        assert [line for line in lines if line.startswith(name)] == [
            f"{name}first {number}",
            f"{name}kept",
        ]
        assert f"{name}to the error stream\n" in error
        assert any(line.startswith(name) and "a log line" in line for line in error.splitlines())


def test_long_lines_come_in_pieces_and_lose_nothing() -> None:
    with redirected() as (set_label, lines):
        print("a" * 10_000)
        sys.stderr.write("é\n\nopen")
        set_label("[y] ")
        print("end", flush=True)
    text = [line for line, is_error in lines if not is_error]
    assert "".join(line.removeprefix("[x] ") for line in text[:-1]) == "a" * 10_000
    assert text[-1] == "[y] end"
    assert [line for line, is_error in lines if is_error] == ["[x] é", "[x] ", "[x] open"]


def test_of_a_line_that_is_drawn_over_the_last_drawing_comes_and_no_more_is_held() -> None:
    with redirected() as (set_label, lines):
        for step in range(100):
            print(f"step {step}", end="\r")
            sys.stderr.write(f"\r{step:3d} %")
        kept = len(repr(vars(sys.stderr.buffer)))
        set_label("[y] ")
        sys.stdout.write("ended as elsewhere\r\n")
        sys.stdout.write("a bar\r     \r")  # it wipes itself away
    assert kept < 100
    assert sorted(lines) == [
        ("[x]  99 %", True),
        ("[x] step 99", False),
        ("[y] ended as elsewhere", False),
    ]


def test_the_streams_of_a_client_do_what_those_of_python_do(make_app, capfd) -> None:
    client = """
    import faulthandler, subprocess

    @app.train()
    def train(message, context):
        sys.stdout.reconfigure(line_buffering=True)
        subprocess.run(["echo", "of a child"], stdout=sys.stdout, check=True)
        subprocess.run("echo its error >&2", shell=True, stderr=sys.stderr, check=True)
        sys.stdout.buffer.write(b"in bytes\\n")
        faulthandler.enable()
        return answer(message, 1)
    """
    assert run(make_app(client), nodes=2, workers=1, quiet=True).value == {0: 1, 1: 1}
    out, error = capfd.readouterr()
    assert sorted(out.splitlines()) == [
        "[client 0] in bytes",
        "[client 1] in bytes",
        "of a child",
        "of a child",
    ]
    assert error == "its error\n" * 2


def test_a_stream_that_a_client_wraps_or_closes_stays_whole_for_the_next() -> None:
    with redirected() as (set_label, lines):
        for label in "xyz":
            set_label(f"[{label}] ")
            sys.stdout = io.TextIOWrapper(sys.stdout.buffer, "utf-8")
            print("wrapped")
            sys.stderr.close()
            sys.stderr.write("still open\n")
    assert sorted(lines) == [
        (f"[{label}] {text}", text == "still open")
        for label in "xyz"
        for text in ("still open", "wrapped")
    ]


def test_output_that_cannot_be_shown_costs_no_client_its_reply(
    make_app, monkeypatch, caplog
) -> None:
    client = """
    @app.train()
    def train(message, context):
        print("hello")
        return answer(message, 1)
    """
    main = "return [values(ask(grid)) for turn in range(3) if not time.sleep(0.2)]"
    full = Path("/dev/full").open("w")  # noqa: SIM115  # it cannot be closed without an error
    monkeypatch.setattr(sys, "stdout", full)
    app = make_app(client, main)
    assert run(app, nodes=2, workers=2).value == [{0: 1, 1: 1}] * 3
    assert caplog.text.count("what clients print cannot be shown") == 1
    with pytest.raises(OSError, match="No space left"):
        full.close()


def test_a_character_that_the_output_lacks_becomes_a_question_mark(monkeypatch) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, "latin-1"))
    progress = Progress(Shown())
    progress.client_line("é ✓", is_error=False)
    progress.client_line("next", is_error=False)
    assert shown.getvalue().decode("latin-1") == "é ?\nnext\n"


def test_off_a_terminal_there_is_one_line_a_round(make_app, caplog) -> None:
    with caplog.at_level(logging.INFO, "flwr.fedwaggle.engine"):
        run(make_app(CLIENT, ROUNDS, config="num-server-rounds = 2"), nodes=2)
    lines = [r.getMessage() for r in caplog.records if r.name == "flwr.fedwaggle.engine"]
    assert [line.rsplit("  ", 1)[0] for line in lines] == [
        "round 1/2  train 2/2  evaluate 2/2  clients' eval_acc 50.00 %",
        "round 2/2  train 2/2  evaluate 2/2  clients' eval_acc 50.00 %",
    ]


def test_the_log_of_an_app_without_a_record_is_shown_from_its_first_line(
    make_app, tmp_path
) -> None:
    """What was logged before the first message is held back until then, and not lost."""
    main = """
    import logging
    log = logging.getLogger("flwr")
    log.info("first")
    ask(grid)
    log.info("last")
    """
    client = "@app.train()\ndef train(message, context):\n    return answer(message, 1)"
    code = f"from fedwaggle.engine import run; run({str(make_app(client, main))!r}, nodes=1)"
    error = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    assert 0 < error.index("first") < error.index("last")


def test_quiet_shows_the_clients_alone_and_verbose_what_happens_to_workers(
    make_app, capfd, caplog
) -> None:
    client = """
    @app.train()
    def train(message, context):
        print("hello")
        if context.node_config["partition-id"] == 0: os._exit(5)
        return answer(message, 1)
    """
    main = "import logging; logging.getLogger('flwr').info('of the server'); ask(grid)"
    app = make_app(client, main)
    run(app, nodes=2, workers=1, quiet=True)
    out, error = capfd.readouterr()
    assert (out, error) == ("[client 0] hello\n[client 1] hello\n", "")
    caplog.clear()
    run(app, nodes=2, workers=1)
    assert "a worker was replaced" not in caplog.text
    run(app, nodes=2, workers=1, verbose=True)
    assert "a worker was replaced: its process ended with exit code 5" in caplog.text


def test_on_a_terminal_there_are_bars_and_lines_stand_above_them(make_app) -> None:
    app = make_app(CLIENT, ROUNDS, config="num-server-rounds = 2")
    with on_a_terminal(app) as (process, terminal):
        text = read_all(terminal)
        assert process.wait(PATIENCE) == 0
    assert "[client 0] first 0" in text
    assert "starting: importing torch" in text
    assert "round 2/2" in text
    assert "evaluate 2/2" in text


def test_output_that_goes_elsewhere_is_not_drawn_into_the_terminal(make_app, tmp_path) -> None:
    app = make_app(CLIENT, "print('of the server')\n" + ROUNDS)
    with (tmp_path / "out").open("w") as out, on_a_terminal(app, out) as (process, terminal):
        text = read_all(terminal)
        assert process.wait(PATIENCE) == 0
    told = (tmp_path / "out").read_text()
    for line in ("of the server\n", "[client 0] first 0\n"):
        assert line in told
        assert line.strip() not in text
    assert "to the error stream" in text


@pytest.mark.parametrize("options", ["", ", quiet=True"])
def test_a_run_ends_well_though_its_terminal_was_closed(make_app, tmp_path, options: str) -> None:
    main = f"""
    import pathlib, logging
    here = pathlib.Path({str(tmp_path)!r})
    ask(grid)
    (here / "began").touch()
    while not (here / "closed").exists(): time.sleep(0.02)
    logging.getLogger("flwr").warning("nobody reads this")
    assert values(ask(grid)) == {{0: 1, 1: 1}}
    """
    client = "print(1)\n@app.train()\ndef train(message, context):\n"
    client += "    print('hello')\n    return answer(message, 1)"
    with on_a_terminal(make_app(client, main), options=options) as (process, terminal):
        while process.poll() is None and not (tmp_path / "began").exists():
            time.sleep(0.02)
        os.close(terminal)
        (tmp_path / "closed").touch()
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("quiet", [True, False])
def test_flowers_log_is_as_it_was_afterwards(make_app, quiet: bool) -> None:
    client = "@app.train()\ndef train(message, context):\n    return answer(message, 1)"
    logger = logging.getLogger("flwr")
    run(make_app(client), nodes=1, quiet=quiet)
    before = [(h, h.level, getattr(h, "stream", None)) for h in logger.handlers]
    run(make_app(client), nodes=1, quiet=quiet)
    assert [(h, h.level, getattr(h, "stream", None)) for h in logger.handlers] == before
