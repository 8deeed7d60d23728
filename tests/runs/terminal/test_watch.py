"""The view of a run in a terminal."""

from __future__ import annotations

import io
import math
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from fedwaggle.errors import RunError
from fedwaggle.runs.events import (
    CheckpointSaved,
    ClientQuarantined,
    ClientUpdated,
    DecisionTaken,
    Event,
    RoundFinished,
    RoundStarted,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    to_line,
)
from fedwaggle.runs.files import LineFile
from fedwaggle.runs.record import record_of
from fedwaggle.runs.terminal.screen import STATES, sparkline
from fedwaggle.runs.terminal.watch import Tail, frame, watch
from waiting import PATIENCE

SIGN = {state: sign for state, (sign, _) in STATES.items()}
START = RunStarted(
    name="iid",
    strategy="CustomFedAdagrad",
    engine="local",
    num_rounds=4,
    nodes=3,
    config={},
    seed=7,
)
END = RunFinished(rounds=4, sha256="cd", seconds=9.0)


def started(server_round: int, *clients: str) -> RoundStarted:
    return RoundStarted(
        round=server_round,
        learning_rate=0.1,
        sampled=len(clients),
        available=3,
        clients=list(clients),
    )


def updated(server_round: int, client: str, *, converged: bool = False) -> ClientUpdated:
    return ClientUpdated(
        round=server_round, client=client, node_id="", num_examples=1, metrics={},
        metadata={"converged": converged}, seconds=1.0, bytes=1,
    )  # fmt: skip


def quarantined(server_round: int, client: str, reason: str = "weights are NaN") -> Event:
    return ClientQuarantined(
        round=server_round, client=client, node_id="", code="nan", reason=reason, seconds=1.0
    )


def finished(server_round: int, *missing: str) -> RoundFinished:
    metrics = {"loss": 1 / (server_round + 1), "accuracy": server_round / 4}
    return RoundFinished(round=server_round, metrics=metrics, missing=list(missing), seconds=3.0)


def text(events: list[Event], *, width: int = 100, is_live: bool = False, **options: int) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    with console.capture() as captured:
        console.print(frame(record_of(Path("run"), events, is_live=is_live), width, **options))
    return captured.get()


def row(picture: str, client: str) -> str:
    """Return the signs of a client, one a round."""
    (line,) = [line for line in picture.splitlines() if line.startswith(f"{client} ")]
    return line.removeprefix(client).replace(" ", "")


def test_the_grid_tells_what_each_client_did_in_each_round() -> None:
    events = [
        *(START, finished(0)),
        *(started(1, "0", "1"), updated(1, "0"), quarantined(1, "1"), finished(1)),
        *(started(2, "0", "2"), updated(2, "0", converged=True), finished(2, "2")),
        *(started(3, "1", "2"), updated(3, "2")),
    ]
    picture = text(events, is_live=True)
    assert row(picture, "0") == SIGN["learning"] + SIGN["converged"] + SIGN["not sampled"]
    assert row(picture, "1") == SIGN["quarantined"] + SIGN["not sampled"] + SIGN["waiting"]
    assert row(picture, "2") == SIGN["not sampled"] + SIGN["missing"] + SIGN["learning"]
    for state in STATES:  # the legend
        assert state in picture
    assert len(set(SIGN.values())) == len(STATES)  # without colours, too


def test_the_top_tells_how_far_the_run_is_and_where_it_goes() -> None:
    picture = text([START, finished(0), finished(1), finished(2)], is_live=True)
    assert "iid  running  CustomFedAdagrad, local, seed 7" in picture
    assert "round 2/4  0:09, about 0:06 to go" in picture
    assert "accuracy            ▁▅█  0.5" in picture
    assert "loss                █▃▁  0.3333" in picture


def test_decisions_and_quarantines_are_shown_the_last_six_of_them() -> None:
    news: list[Event] = [quarantined(1, str(each), f"reason {each}") for each in range(9)]
    decision = DecisionTaken(round=1, policy="Plateau", action="stop early", reason="3 of 3")
    picture = text([START, started(1, "0"), *news, decision])
    assert "reason 8" in picture
    assert "Plateau: stop early (3 of 3)" in picture
    assert "reason 3" not in picture


def test_the_end_tells_how_the_run_ended() -> None:
    best = CheckpointSaved(round=1, metric="accuracy", value=0.25, file="", sha256="", bytes=1)
    assert "best accuracy 0.25 in round 1" in text([START, finished(1), best, END])
    failed = RunFailed(error="ValueError: boom", round=1, seconds=1.0)
    assert "failed: ValueError: boom" in text([START, failed])
    assert "no process is writing this run" in text([START])


def test_what_clients_say_is_neither_markup_nor_control_code_nor_long() -> None:
    hostile = "[red]x[/red]\n\x1b[2J:smile:" + 1000 * "y"
    events = [START, started(1, hostile), quarantined(1, hostile, hostile), finished(1)]
    events.append(DecisionTaken(round=1, policy=hostile, action=hostile, reason=hostile))
    picture = text(events)
    assert "[red]x[/red]" in picture
    assert ":smile:" in picture
    assert "\x1b" not in picture
    assert (
        len(picture.splitlines())
        == len(text([START, started(1, "a"), finished(1)]).splitlines()) + 2
    )
    assert all(len(line) <= 100 for line in picture.splitlines())


def test_of_many_clients_those_in_trouble_are_shown() -> None:
    clients = [str(each) for each in range(1000)]
    events = [START, started(1, *clients), *(updated(1, each) for each in clients[:-1])]
    picture = text([*events, quarantined(1, "999"), finished(1)], client_rows=3)
    assert row(picture, "999") == SIGN["quarantined"]
    assert "and 997 more clients" in picture


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_the_picture_fits_any_terminal(width: int) -> None:
    rounds = [
        each for n in range(1, 80) for each in (started(n, "0"), updated(n, "0"), finished(n))
    ]
    picture = text([START, *rounds], width=width, is_live=True)
    assert all(len(line) <= width for line in picture.splitlines())


def test_any_metric_can_be_shown() -> None:
    odd = {"a": math.nan, "b": -(10**400), "c": [1.0, 2.0], "d": 1.7e308}
    events = [RoundFinished(round=each, metrics=odd, seconds=1.0) for each in range(3)]
    events.append(RoundFinished(round=3, metrics={"d": -1.7e308}, seconds=1.0))
    picture = text([START, *events])
    assert "xxx  nan" in picture
    assert "███▁" in picture


def test_the_least_floats_of_all_are_a_row_of_bars() -> None:
    """Half of the least is 0, so there is no distance left to measure by."""
    assert sparkline([0.0, 5e-324], 10) == "▁▁"


def test_a_run_that_has_not_begun_can_be_shown() -> None:
    assert "no client was sampled yet" in text([])


class Writer:
    """A process that writes a run; stands in for one, and can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._lines = LineFile(folder / "events.jsonl")

    def tell(self, *events: Event) -> None:
        for event in events:
            self._lines.append(to_line(event))

    def end(self) -> None:
        self._lines.close()


def test_the_view_follows_a_run_through_a_crash_and_a_resume(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.tell(START, finished(0))
    tail = Tail(tmp_path)
    first = tail.record()
    assert (first.status, first.rounds_done) == ("running", 0)
    assert tail.record() is first  # nothing has happened
    writer.tell(finished(1), started(2, "0"))
    assert tail.record().rounds_done == 1
    writer.end()
    assert tail.record().status == "interrupted"
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"v": 1, "event": "round-fin')
    assert tail.record().rounds_done == 1
    writer = Writer(tmp_path)  # which cuts the half line off
    writer.tell(RunResumed(round=1, num_rounds=4, engine="local", nodes=3), finished(2))
    assert [each.round for each in tail.record().rounds] == [0, 1, 2]
    assert (tail.record().status, tail.record().resumed) == ("running", 1)
    writer.tell(END)
    assert tail.record().status == "finished"
    writer.end()


def test_off_a_terminal_a_finished_run_is_one_frame(tmp_path: Path) -> None:
    Writer(tmp_path).tell(START, finished(0), END)
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    with console.capture() as captured:
        watch(tmp_path, console)
    assert captured.get().count("seed 7") == 1


def test_off_a_terminal_a_running_run_is_awaited(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.tell(START, finished(0))

    class Output(io.StringIO):
        def write(self, text: str) -> int:
            """Let the run end once it was shown as running."""
            if "running" in text and "finished" not in self.getvalue():
                writer.tell(END)
            return super().write(text)

    output = Output()
    watch(tmp_path, Console(width=100, file=output, force_terminal=False))
    writer.end()
    assert [word in output.getvalue() for word in ("iid  running", "iid  finished")] == [True, True]


def test_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=str(tmp_path)):
        watch(tmp_path)


class Terminal:
    """A real terminal with ``watch`` in it."""

    def __init__(self, folder: Path) -> None:
        self.fd, side = pty.openpty()
        termios.tcsetwinsize(self.fd, (40, 100))
        self.before = termios.tcgetattr(side)
        program = "import sys; from pathlib import Path; "
        program += "from fedwaggle.runs.terminal.watch import watch; "
        program += "watch(Path(sys.argv[1]))"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(folder)],
            stdin=side, stdout=side, stderr=side, start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color"},
        )  # fmt: skip
        self.side = side
        self.seen = ""

    def wait_for(self, words: str) -> None:
        """Read the screen until some words were on it."""
        deadline = time.monotonic() + PATIENCE
        while words not in self.seen:
            assert time.monotonic() < deadline, self.seen[-3000:]
            if select.select([self.fd], [], [], 0.1)[0]:
                self.seen += os.read(self.fd, 65536).decode(errors="replace")

    def wait_for_end(self) -> int:
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.fd], [], [], 0.1)[0]:
                os.read(self.fd, 65536)
        return self.process.wait(timeout=1)


@contextmanager
def terminal(folder: Path) -> Iterator[Terminal]:
    view = Terminal(folder)
    try:
        yield view
    finally:
        view.process.kill()
        view.process.wait()
        os.close(view.fd)
        os.close(view.side)


def test_in_a_terminal_q_quits_and_leaves_it_as_it_was(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.tell(START, finished(0), started(1, "0"))
    with terminal(tmp_path) as view:
        view.wait_for("round 0/4")
        view.wait_for(SIGN["waiting"])
        assert not termios.tcgetattr(view.side)[3] & termios.ICANON  # a key comes at once
        os.write(view.fd, b"xq")
        assert view.wait_for_end() == 0
        assert termios.tcgetattr(view.side) == view.before
    writer.end()


def test_in_a_terminal_an_interrupt_quits_as_well(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.tell(START, finished(0))
    with terminal(tmp_path) as view:
        view.wait_for("round 0/4")
        view.process.send_signal(signal.SIGINT)
        assert view.wait_for_end() == 0
        assert termios.tcgetattr(view.side) == view.before
    writer.end()


def test_in_a_terminal_the_view_is_live_through_a_crash_and_ends_with_the_run(
    tmp_path: Path,
) -> None:
    writer = Writer(tmp_path)
    writer.tell(START, finished(0))
    with terminal(tmp_path) as view:
        view.wait_for("round 0/4")
        writer.tell(finished(1))
        view.wait_for("round 1/4")
        writer.end()
        view.wait_for("interrupted")
        writer = Writer(tmp_path)
        writer.tell(RunResumed(round=1, num_rounds=4, engine="local", nodes=3), finished(2))
        view.wait_for("round 2/4")
        writer.tell(END)
        assert view.wait_for_end() == 0
    writer.end()
