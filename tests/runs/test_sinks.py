"""No sink can stop, slow, change or corrupt a run."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from fedwaggle.runs.events import Event, RoundFinished, to_line
from fedwaggle.runs.sinks import SinkThread, close_all
from waiting import FOR_EVER, PATIENCE


def line(server_round: int) -> str:
    return to_line(RoundFinished(round=server_round, metrics={"loss": 0.5}, seconds=1.0))


class Recording:
    """Remembers what it is shown."""

    def __init__(self) -> None:
        self.rounds: list[int] = []
        self.losses: list[object] = []
        self.closed = 0
        self.closing = threading.Event()

    def record(self, event: Event) -> None:
        assert isinstance(event, RoundFinished)
        self.rounds.append(event.round)
        self.losses.append(event.metrics["loss"])

    def close(self) -> None:
        self.closed += 1
        self.closing.set()


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """Collect what is logged; Flower's loggers may not propagate to where pytest listens."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("flwr.fedwaggle")
    logger.addHandler(handler)
    yield said
    logger.removeHandler(handler)


def test_a_sink_is_shown_every_line_in_order_and_then_closed(warnings: list[str]) -> None:
    sink = Recording()
    thread = SinkThread("good", lambda: sink)
    for server_round in range(100):
        thread.offer(line(server_round))
    thread.close()
    thread.close()  # once more does no harm
    assert (sink.rounds, sink.closed, warnings) == (list(range(100)), 1, [])


def test_a_sink_that_raises_is_dropped_with_one_warning_and_closed(warnings: list[str]) -> None:
    class Raising(Recording):
        def record(self, event: Event) -> None:
            super().record(event)
            if self.rounds[-1] == 1:
                raise SystemExit("\x1b[31mboom\x1b[0m")

    sink = Raising()
    thread = SinkThread("bad", lambda: sink)
    for server_round in range(5):
        thread.offer(line(server_round))
    thread.close()
    thread.offer(line(5))
    assert (sink.rounds, sink.closed) == ([0, 1], 1)
    assert warnings == [
        "Tracker bad is dropped: SystemExit: boom. The run goes on, and its events.jsonl is "
        "complete."
    ]


def test_a_sink_that_cannot_be_opened_is_dropped_with_one_warning(warnings: list[str]) -> None:
    def open_sink() -> Recording:
        raise ImportError("no such package")

    thread = SinkThread("absent", open_sink)
    for server_round in range(5):
        thread.offer(line(server_round))
    thread.close()
    assert len(warnings) == 1
    assert "absent" in warnings[0]
    assert "ImportError: no such package" in warnings[0]


def test_a_sink_that_fails_to_close_is_one_warning(warnings: list[str]) -> None:
    class Unclosable(Recording):
        def close(self) -> None:
            super().close()
            raise OSError("disk full")

    sink = Unclosable()
    thread = SinkThread("bad", lambda: sink)
    thread.close()
    assert sink.closed == 1
    assert len(warnings) == 1


def test_a_sink_that_hangs_is_abandoned_after_a_bounded_time(warnings: list[str]) -> None:
    for_ever = threading.Event()

    class Hanging(Recording):
        def record(self, event: Event) -> None:
            for_ever.wait(FOR_EVER)

    thread = SinkThread("hanging", Hanging)
    began = time.monotonic()
    for server_round in range(100):
        thread.offer(line(server_round))
    thread.close(timeout=0.3)
    assert time.monotonic() - began < PATIENCE
    assert len(warnings) == 1
    assert "did not finish in time" in warnings[0]
    for_ever.set()


def test_sinks_that_hang_together_are_waited_for_once(warnings: list[str]) -> None:
    """Three that hang and one that does not: 3 s, not 9 s."""
    for_ever = threading.Event()

    class Hanging(Recording):
        def close(self) -> None:
            for_ever.wait(FOR_EVER)

    good = Recording()
    threads = [SinkThread("hanging", Hanging) for _ in range(3)]
    threads.append(SinkThread("good", lambda: good))
    for thread in threads:
        thread.offer(line(1))
    began = time.monotonic()
    close_all(threads, timeout=3.0)
    assert 2.9 < time.monotonic() - began < 9.0
    assert (good.rounds, good.closed, len(warnings)) == ([1], 1, 3)
    for_ever.set()


def test_a_sink_that_hangs_while_it_opens_delays_nothing(warnings: list[str]) -> None:
    for_ever = threading.Event()

    def open_sink() -> Recording:
        for_ever.wait(FOR_EVER)
        return Recording()

    thread = SinkThread("hanging", open_sink, open_seconds=0.1)
    time.sleep(0.2)
    began = time.monotonic()
    thread.offer(line(1))
    thread.close(timeout=FOR_EVER)
    assert time.monotonic() - began < PATIENCE
    assert len(warnings) == 1
    assert "did not open within 0.1 s" in warnings[0]
    for_ever.set()


def test_a_run_that_ends_waits_for_an_opening_sink_no_longer_than_it_may_take(
    warnings: list[str],
) -> None:
    for_ever = threading.Event()
    began = time.monotonic()
    thread = SinkThread("hanging", lambda: for_ever.wait(FOR_EVER), open_seconds=0.3)  # type: ignore[arg-type,return-value]
    thread.close(timeout=FOR_EVER)
    assert 0.2 < time.monotonic() - began < PATIENCE
    assert len(warnings) == 1
    for_ever.set()


def test_a_sink_that_cannot_keep_up_is_dropped_and_the_run_never_waits(
    warnings: list[str],
) -> None:
    """Room for 10 lines, one of them taken at a time: the 12th does not fit."""
    taken, go_on = threading.Event(), threading.Event()

    class Slow(Recording):
        def record(self, event: Event) -> None:
            super().record(event)
            taken.set()
            go_on.wait(FOR_EVER)

    sink = Slow()
    thread = SinkThread("slow", lambda: sink, capacity=10 * len(line(1)))
    thread.offer(line(1))
    assert taken.wait(PATIENCE)
    for _ in range(10):
        thread.offer(line(1))
    assert warnings == []
    began = time.monotonic()
    thread.offer(line(1))
    assert time.monotonic() - began < PATIENCE
    assert len(warnings) == 1
    assert "does not keep up" in warnings[0]
    go_on.set()
    thread.close()
    assert sink.closing.wait(PATIENCE)
    assert (len(sink.rounds), len(warnings)) == (1, 1)


def test_a_sink_cannot_corrupt_what_others_are_shown() -> None:
    class Corrupting(Recording):
        def record(self, event: Event) -> None:
            event.metrics.clear()  # type: ignore[union-attr]
            event.__dict__["round"] = 666

    good = Recording()
    threads = [SinkThread("bad", Corrupting), SinkThread("good", lambda: good)]
    for server_round in range(10):
        said = line(server_round)
        for thread in threads:
            thread.offer(said)
    for thread in threads:
        thread.close()
    assert (good.rounds, good.losses) == (list(range(10)), [0.5] * 10)


def test_events_of_a_newer_version_are_skipped(warnings: list[str]) -> None:
    sink = Recording()
    thread = SinkThread("good", lambda: sink)
    thread.offer('{"v": 2, "event": "moon-landed"}')
    thread.offer(line(3))
    thread.close()
    assert (sink.rounds, warnings) == ([3], [])


def test_a_hanging_sink_does_not_keep_the_interpreter_from_its_end() -> None:
    program = """
import time
from fedwaggle.runs.sinks import SinkThread, close_all
SinkThread("hanging", lambda: time.sleep(3600)).close(timeout=0.1)
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], timeout=FOR_EVER, check=False)
    assert done.returncode == 0
    assert time.monotonic() - began < PATIENCE
