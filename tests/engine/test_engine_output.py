"""What a run shows: clients' lines with their names, a line a round, bars on a terminal."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys

import pytest

from fedwaggle.engine import run
from fedwaggle.engine.output import OutputReader, redirect_output

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
    lines: list[tuple[str, bool]] = []
    reader = OutputReader(lambda line, is_error: lines.append((line, is_error)))
    before = (sys.stdout, sys.stderr)
    try:
        set_label = redirect_output(reader.fd, "[x] ")
        print("a" * 10_000)
        sys.stderr.write("é\n\nopen")
        set_label("[y] ")
        print("end", flush=True)
    finally:
        sys.stdout, sys.stderr = before
    reader.close()
    text = [line for line, is_error in lines if not is_error]
    assert "".join(line.removeprefix("[x] ") for line in text[:-1]) == "a" * 10_000
    assert text[-1] == "[y] end"
    assert [line for line, is_error in lines if is_error] == ["[x] é", "[x] ", "[x] open"]


def test_off_a_terminal_there_is_one_line_a_round(make_app, caplog) -> None:
    with caplog.at_level(logging.INFO, "flwr.fedwaggle.engine"):
        run(make_app(CLIENT, ROUNDS, config="num-server-rounds = 2"), nodes=2)
    lines = [r.getMessage() for r in caplog.records if r.name == "flwr.fedwaggle.engine"]
    assert [line.rsplit("  ", 1)[0] for line in lines] == [
        "round 1/2  train 2/2  evaluate 2/2  accuracy 0.500",
        "round 2/2  train 2/2  evaluate 2/2  accuracy 0.500",
    ]


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
    code = f"from fedwaggle.engine import run; run({str(app)!r}, nodes=2)"
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65_536):
            shown += part
    except OSError:  # the terminal ends with its last process
        pass
    os.close(ours)
    assert process.wait(10) == 0
    text = shown.decode()
    assert "[client 0] first 0" in text
    assert "2/2" in text
    assert "rounds" in text
    assert "evaluate" in text or "train" in text


@pytest.mark.parametrize("quiet", [True, False])
def test_flowers_log_is_as_it_was_afterwards(make_app, quiet: bool) -> None:
    client = "@app.train()\ndef train(message, context):\n    return answer(message, 1)"
    logger = logging.getLogger("flwr")
    run(make_app(client), nodes=1, quiet=quiet)
    before = [(h, h.level, getattr(h, "stream", None)) for h in logger.handlers]
    run(make_app(client), nodes=1, quiet=quiet)
    assert [(h, h.level, getattr(h, "stream", None)) for h in logger.handlers] == before
