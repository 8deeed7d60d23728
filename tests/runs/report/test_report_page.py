"""The report as a file: whole in itself, small enough, and safe whatever clients say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from fedwaggle.errors import RunError
from fedwaggle.runs.events import RoundFinished, RunStarted, to_line
from fedwaggle.runs.report import write_report
from fedwaggle.runs.report.page import json_for_script
from fedwaggle.runs.report.render import render
from fedwaggle.runs.writer import Run
from runs.report_data import HOSTILE, Federation, hostile_events, run_events, write_run


def page_data(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', page, re.S)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


class Elements(HTMLParser):
    """Counts the elements of a page, and collects what they load."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts = 0
        self.loads: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def elements(page: str) -> Elements:
    parser = Elements()
    parser.feed(page)
    return parser


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "20260102T090000Z-quickstart", run_events())


def test_a_report_is_one_file_that_loads_nothing(run: Path) -> None:
    path = write_report(run)
    assert path == run / "report.html"
    assert elements(path.read_text()).loads == ["data:,"]  # the empty icon
    assert path.stat().st_size < 5_500_000


def test_the_page_may_run_its_own_scripts_only(run: Path) -> None:
    """Each script is allowed by its hash; nothing else may run or be loaded."""
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', render(run))
    assert policy
    rules = policy[1].replace("&#39;", "'")
    assert rules.startswith("default-src 'none'; script-src 'sha256-")
    assert rules.count("'sha256-") == 3
    assert "connect-src" not in rules


def test_the_summary_names_what_came_out(run: Path) -> None:
    page = render(run)
    for words in ("best accuracy", "88.46 %", "round 19", "20 / 20", "17.3 MB", "torch 2.13.0"):
        assert words in page
    assert re.search(r'class="hash">[0-9a-f]{64}<', page)


def test_every_figure_is_one_that_plotly_accepts(run: Path) -> None:
    """Plotly's own validation, with colours in place of the palette's names."""
    for figure in page_data(render(run))["figures"]:
        text = re.sub(r'"@[a-z-]+"', '"#123456"', json.dumps(figure))
        drawn = json.loads(text)
        go.Figure(drawn["data"], drawn["layout"])  # raises for a key that Plotly does not know
        assert not any("gl" in trace["type"] for trace in drawn["data"])


def test_every_named_colour_is_in_the_style_sheet(run: Path) -> None:
    page = render(run)
    used = set(re.findall(r'"@([a-z-]+)"', page[page.index("page-data") :]))
    assert used
    for name in used:
        assert page.count(f"--{name}:") >= 2, name  # for light and for dark


def test_what_clients_say_is_never_markup(tmp_path: Path) -> None:
    page = render(write_run(tmp_path / "run", hostile_events()))
    clean = render(write_run(tmp_path / "clean", run_events()))
    found = elements(page)
    assert found.scripts == elements(clean).scripts == 4
    assert found.handlers == []
    assert HOSTILE not in page


def test_json_in_a_script_cannot_end_it() -> None:
    line_separator = chr(0x2028)
    text = json_for_script({"a": "</script><!--&" + line_separator})
    assert not set("<>&" + line_separator) & set(text)
    assert json.loads(text) == {"a": "</script><!--&" + line_separator}


def test_a_half_written_last_line_is_left_out(run: Path) -> None:
    events = run / "events.jsonl"
    lines = events.read_bytes().splitlines(keepends=True)
    events.write_bytes(b"".join(lines[:-1]) + lines[-1][:40])
    assert ">interrupted<" in render(run)


def test_newer_events_are_left_out_and_told(run: Path) -> None:
    with (run / "events.jsonl").open("a") as file:
        file.write('{"v": 2, "event": "run-finished", "shape": "other"}\n{"event": "tea-made"}\n')
    assert "2 events of a newer version are left out: run-finished (1), tea-made (1)." in render(
        run
    )


def test_a_run_that_goes_on_is_shown_as_running(tmp_path: Path) -> None:
    with Run.create(tmp_path, name="now") as run:
        for event in run_events(Federation(rounds=2))[:9]:
            run.record(event)
        assert ">running<" in render(run.path)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_a_run_that_has_hardly_begun_has_a_report(tmp_path: Path, count: int) -> None:
    """No event at all, only the start, the initial model, a cohort, a first reply."""
    run = write_run(tmp_path / "run", run_events()[:count])
    assert page_data(render(run))["rounds"] == ([0, 1] if count >= 3 else [0, 0])


def test_a_run_without_metadata_shows_the_servers_clock(tmp_path: Path) -> None:
    page = render(write_run(tmp_path / "run", run_events(Federation(metadata=False))))
    keys = {figure["key"] for figure in page_data(page)["figures"]}
    assert "training-time" in keys
    assert not any(key.startswith(("history", "number", "boolean")) for key in keys)
    assert "on the server&#39;s clock" in page
    assert "not reported" in page


def test_a_run_without_accuracy_shows_its_own_metric(tmp_path: Path) -> None:
    page = render(write_run(tmp_path / "run", run_events(Federation(metric="dice"))))
    assert "best dice" in page
    assert "Dice by round" in page


def test_values_that_are_not_finite_are_gaps(tmp_path: Path) -> None:
    end = RoundFinished(round=1, metrics={"loss": float("nan"), "accuracy": 1.0}, seconds=1.0)
    run = write_run(tmp_path / "run", [end])
    figures = {figure["key"]: figure for figure in page_data(render(run))["figures"]}
    assert figures["metric-1"]["data"][0]["y"] == [None]


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    run = Run.create(tmp_path)
    with suppress(ZeroDivisionError), run:
        run.record(run_events()[0])
        raise ZeroDivisionError("a <b>bold</b> error")
    page = (run.path / "report.html").read_text()  # drawn as the run ended
    assert "ZeroDivisionError: a &lt;b&gt;bold&lt;/b&gt; error" in page


def test_the_folders_request_adds_what_the_events_do_not_have(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", run_events(Federation(rounds=1)))
    (run / "run.json").write_text('{"code": "c0de", "dataset": "da7a"}')
    page = render(run)
    assert "c0de" in page
    assert "da7a" in page
    (run / "run.json").write_text("not JSON")
    assert "c0de" not in render(run)


def test_no_events_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"events\.jsonl: expected the events of a run"):
        write_report(tmp_path)


def test_a_report_that_cannot_be_written_says_so(run: Path) -> None:
    with pytest.raises(RunError, match="cannot be written"):
        write_report(run, run / "no-such-folder" / "report.html")


def test_drawing_needs_neither_torch_nor_flower() -> None:
    """In a fresh process."""
    heavy = ["torch", "flwr", "pandas", "datasets", "ray", "wandb"]
    code = "import sys, fedwaggle.runs.report, fedwaggle.runs.report.comparing; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(heavy) & set(done.stdout.split())


def test_500_rounds_of_100_clients_are_drawn_in_seconds_and_below_10_mb(tmp_path: Path) -> None:
    """About 2.2 s of one core; the time that other processes take does not count."""
    kind = Federation(rounds=500, clients=100, fraction=1.0)
    run = write_run(tmp_path / "big", run_events(kind))
    began = time.process_time()
    path = write_report(run)
    assert time.process_time() - began < 60
    assert path.stat().st_size < 10_000_000


def test_10_000_clients_are_drawn_as_aggregates_and_the_first_few(tmp_path: Path) -> None:
    kind = Federation(rounds=10, clients=10_000, fraction=0.2)
    run = write_run(tmp_path / "huge", run_events(kind))
    page = render(run)
    data = page_data(page)
    assert len(data["drawn"]) == 120
    assert len(page) < 10_000_000
    assert "The 200 of 8,9" in page  # clients that were sampled at least once
    kinds = {figure["key"]: figure["kind"] for figure in data["figures"]}
    assert kinds["participation"] == "fixed"  # a histogram


def test_the_config_is_that_of_the_last_process(tmp_path: Path) -> None:
    start = RunStarted(
        name="r", strategy="S", engine="local", num_rounds=1, nodes=1, config={"lr": 0.1}, seed=0
    )
    lines = [
        to_line(start),
        '{"v":1,"time":"2026-01-02T00:00:00Z","event":"run-resumed","round":0,"num_rounds":7,'
        '"engine":"local","nodes":1,"changes":{"num-server-rounds":[1,7]}}',
    ]
    (tmp_path / "events.jsonl").write_text("\n".join(lines) + "\n")
    page = render(tmp_path)
    assert re.search(r"num-server-rounds</code></td><td><code>7<", page)
    assert "0 / 7" in page


def test_a_hundred_metrics_are_counted_not_drawn(tmp_path: Path) -> None:
    end = RoundFinished(round=1, metrics={f"m{i}": 1.0 for i in range(100)}, seconds=1.0)
    page = render(write_run(tmp_path / "run", [end]))
    assert "86 more metrics are in events.jsonl." in page
    drawn = [figure["key"] for figure in page_data(page)["figures"]]
    assert sum(key.startswith("metric-") for key in drawn) == 14


def test_the_curve_stands_above_the_figures_and_the_hashes_are_folded(tmp_path: Path) -> None:
    """Title, curve, tiles, settings that were changed; hashes and versions are asked for."""
    path = write_run(tmp_path / "20260102T090000Z-bees", run_events(Federation(lr=0.02)))
    page = render(path)
    order = [
        page.index(part)
        for part in ("<h1>bees</h1>", 'id="chart-metric-0"', 'id="tiles"', 'id="changed"')
    ]
    assert order == sorted(order)
    assert "<li>lr <b>0.02</b></li>" in page
    assert page.index('<details class="card" id="about">') < page.index('id="facts"')
