"""The report in a real browser: it draws, filters, prints, follows a run, and asks nobody."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fedwaggle.runs.events import ClientUpdated, Event, to_line
from fedwaggle.runs.report import ReportServer, write_report
from fedwaggle.runs.report.comparing import write_comparison
from runs.report_data import Federation, hostile_events, run_events, write_run

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium (Debian: apt install chromium)"
)


@dataclass
class Tab:
    """An open page, with what went wrong in it and what it asked for."""

    page: Any
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, url: str) -> None:
        self.page.goto(url)
        self.wait()

    def wait(self) -> None:
        self.page.wait_for_selector("html[data-ready='1']", timeout=60_000)

    def change(self, selector: str, value: str) -> None:
        self.page.fill(selector, value)
        self.page.press(selector, "Enter")
        self.wait()

    def chart(self, key: str) -> dict[str, Any]:
        """Return the traces that Plotly has drawn."""
        script = """key => {
            const chart = document.getElementById('chart-' + key);
            const traces = chart.data.map(
                t => ({name: t.name, type: t.type, x: t.x, y: t.y, z: t.z}));
            return {traces, width: chart._fullLayout.width, font: chart._fullLayout.font.color};
        }"""
        drawn: dict[str, Any] = self.page.evaluate(script, key)
        return drawn

    def visible_rows(self, table: str) -> int:
        rows: int = self.page.locator(f"#{table} tbody tr:visible").count()
        return rows


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as player:
        started = player.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Tab]:
    yield from open_tab(browser)


def open_tab(browser: Any, **options: Any) -> Iterator[Tab]:
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    tab = Tab(context.new_page())
    tab.page.on("console", lambda said: tab.problems.append(f"{said.type}: {said.text}"))
    tab.page.on("pageerror", lambda error: tab.problems.append(str(error)))
    tab.page.on("request", lambda asked: tab.requests.append(asked.url))
    yield tab
    context.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    events = run_events(Federation(trouble=0.15))
    run = write_run(tmp_path_factory.mktemp("runs") / "20260102T090000Z-quickstart", events)
    return write_report(run).as_uri()


def test_every_chart_is_drawn_without_an_error_or_a_request(tab: Tab, report: str) -> None:
    tab.open(report)
    drawn = tab.page.locator(".chart:has(svg.main-svg)").count()
    assert drawn == tab.page.locator(".chart").count() == 14
    assert tab.problems == []
    assert [url for url in tab.requests if not url.startswith("data:")] == [report]


def test_markup_of_a_client_is_shown_and_never_runs(tab: Tab, tmp_path: Path) -> None:
    tab.open(write_report(write_run(tmp_path / "run", hostile_events())).as_uri())
    assert tab.page.evaluate("typeof window.hacked") == "undefined"
    assert tab.page.evaluate("document.scripts.length") == 4
    assert tab.page.locator(".chart img, td img, h1 img, h1 script").count() == 0
    assert tab.page.inner_text("h1") == "run"  # the folder, not what an event says
    labels = tab.page.locator("#chart-map .yaxislayer-above text, #chart-phases .legendtext")
    shown = [text for text in labels.all_text_contents() if text.startswith("<b>7</b><s")]
    assert len(shown) == 6  # five clients and a phase, letter by letter
    tab.change("#client", tab.page.evaluate("document.getElementById('names').options[0].value"))
    assert tab.page.locator("#chips button").count() == 1
    assert tab.page.evaluate("typeof window.hacked") == "undefined"
    assert tab.problems == []


def test_a_script_that_is_not_the_pages_own_would_not_run(tab: Tab, report: str) -> None:
    """The policy in the head is a second wall behind the escaping."""
    tab.open(report)
    tab.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.hacked = 1";
            document.body.append(script);
        }"""
    )
    assert tab.page.evaluate("typeof window.hacked") == "undefined"
    assert any("Content Security Policy" in problem for problem in tab.problems)


def test_a_filter_by_round_narrows_charts_and_tables(tab: Tab, report: str) -> None:
    tab.open(report)
    before = tab.visible_rows("quarantine")
    tab.change("#from", "5")
    tab.change("#to", "8")
    assert tab.chart("metric-0")["traces"][0]["x"] == [5, 6, 7, 8]
    assert tab.chart("map")["traces"][0]["x"] == [5, 6, 7, 8]
    steps = tab.chart("history-0")["traces"][-1]["x"]
    assert min(steps) > 4
    assert max(steps) == 8
    assert 0 < tab.visible_rows("quarantine") < before
    assert tab.visible_rows("decisions") == 1  # of rounds 8 and 16
    tab.page.click("#reset")
    tab.wait()
    assert len(tab.chart("metric-0")["traces"][0]["x"]) == 21
    assert tab.problems == []


def test_a_filter_by_client_shows_its_own_lines_and_survives_a_reload(
    tab: Tab, report: str
) -> None:
    tab.open(report)
    tab.change("#client", "9")
    for _ in range(2):
        assert tab.chart("training-time")["traces"][-1]["name"] == "9"
        assert tab.chart("history-0")["traces"][-1]["name"] == "9"
        assert len(tab.chart("map")["traces"][0]["z"]) == 1
        assert len(tab.chart("examples")["traces"][0]["x"]) == 1
        assert tab.visible_rows("clients") == 1
        tab.page.reload()
        tab.wait()
    tab.page.click("#chips button")
    tab.wait()
    assert len(tab.chart("map")["traces"][0]["z"]) == 10
    assert tab.problems == []


def test_the_map_has_each_clients_fate(tab: Tab, tmp_path: Path) -> None:
    """The counts in the map are those of the events."""
    events = run_events(Federation(trouble=0.15))
    tab.open(write_report(write_run(tmp_path / "run", events)).as_uri())
    cells = [value for row in tab.chart("map")["traces"][0]["z"] for value in row]
    words = tab.page.evaluate("JSON.parse(document.getElementById('page-data').textContent).states")
    refused = [state["word"] for state in words].index("quarantined")
    assert cells.count(refused) == sum(event.event == "client-quarantined" for event in events) > 0
    assert sum(cell is not None for cell in cells) == 100  # 5 clients in each of 20 rounds


def test_a_click_on_a_column_sorts_by_it(tab: Tab, report: str) -> None:
    tab.open(report)
    tab.page.click("#clients th button:text-is('Examples')")
    column = tab.page.locator("#clients tbody td:nth-child(8)").all_inner_texts()
    numbers = [int(text.replace(",", "")) for text in column]
    assert numbers == sorted(numbers, reverse=True)


def test_light_and_dark_follow_the_system_and_the_button(browser: Any, report: str) -> None:
    for tab in open_tab(browser, color_scheme="dark"):
        tab.open(report)
        dark = tab.chart("metric-0")["font"]
        tab.page.click("#theme")  # from auto to light
        tab.wait()
        assert tab.page.evaluate("document.documentElement.dataset.theme") == "light"
        assert tab.chart("metric-0")["font"] != dark
        assert tab.problems == []


def test_a_phone_needs_no_sideways_scrolling(browser: Any, report: str) -> None:
    for tab in open_tab(browser, viewport={"width": 390, "height": 844}, has_touch=True):
        tab.open(report)
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
        assert tab.problems == []


def test_print_is_light_and_fits_the_paper(browser: Any, report: str) -> None:
    for tab in open_tab(browser, color_scheme="dark"):
        tab.open(report)
        tab.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert tab.page.evaluate("document.documentElement.dataset.theme") == "light"
        assert tab.chart("metric-0")["width"] == 660
        tab.page.evaluate("dispatchEvent(new Event('afterprint'))")
        tab.wait()
        assert tab.page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert tab.page.pdf(format="A4").startswith(b"%PDF")
        assert tab.problems == []


def test_without_scripts_the_figures_and_tables_are_there(browser: Any, report: str) -> None:
    for tab in open_tab(browser, java_script_enabled=False):
        tab.page.goto(report)
        assert tab.page.locator("#tiles .tile").count() == 10
        assert tab.visible_rows("clients") == 10
        assert "need JavaScript" in tab.page.inner_text("main")


@pytest.mark.parametrize(
    "events",
    [
        [],
        run_events()[:1],
        run_events()[:4],
        run_events(Federation(metadata=False, metric="dice")),
        run_events(Federation(rounds=60, clients=150, fraction=0.3)),
    ],
    ids=["empty", "begun", "first-cohort", "no-metadata", "150-clients"],
)
def test_any_run_is_drawn_without_an_error(
    tab: Tab, tmp_path: Path, events: Sequence[Event]
) -> None:
    tab.open(write_report(write_run(tmp_path / "run", events)).as_uri())
    assert tab.problems == []


def test_the_live_page_follows_the_run_and_keeps_its_filters(tab: Tab, tmp_path: Path) -> None:
    events = run_events()
    run = write_run(tmp_path / "run", events[:40])
    with ReportServer(run) as server:
        tab.open(server.url)
        tab.change("#from", "2")
        tab.page.evaluate("scrollTo(0, 700)")
        with (run / "events.jsonl").open("a") as file:
            file.writelines(to_line(event) + "\n" for event in events[40:])
        tab.page.wait_for_selector("#status:text-is('finished')", timeout=60_000)
        tab.wait()
        assert tab.page.input_value("#from") == "2"
        assert tab.chart("metric-0")["traces"][0]["x"] == list(range(2, 21))
        assert tab.page.evaluate("scrollY") == 700
        assert {url.split("#")[0] for url in tab.requests if not url.startswith("data:")} == {
            server.url,
            f"{server.url}version",
        }
        assert tab.problems == []
    tab.page.wait_for_selector("#live.off", timeout=60_000)


def test_a_comparison_is_drawn_without_an_error_or_a_request(tab: Tab, tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"lr{lr}-seed{seed}", run_events(Federation(lr=lr, seed=seed)))
        for lr in (0.01, 0.05)
        for seed in (0, 1, 2)
    ]
    url = write_comparison(runs, tmp_path / "compare.html").as_uri()
    tab.open(url)
    named = [trace["name"] for trace in tab.chart("metric-0")["traces"] if trace["name"]]
    assert named == ["1: lr = 0.01", "2: lr = 0.05"]
    assert [asked for asked in tab.requests if not asked.startswith("data:")] == [url]
    assert tab.problems == []


def test_a_picture_is_saved_with_its_title_on_white(tab: Tab, report: str) -> None:
    tab.open(report)
    tab.page.locator("#chart-metric-0").hover()
    with tab.page.expect_download() as download:
        tab.page.locator('#chart-metric-0 [data-title="Save as SVG"]').click()
    picture = Path(download.value.path()).read_text()
    assert "Accuracy by round" in picture
    assert "rgb(255, 255, 255)" in picture


def test_a_map_of_keys_shows_the_client_that_is_chosen(tab: Tab, tmp_path: Path) -> None:
    """Two clients, three classes, one round: the menu lies below the toolbar, also on a phone."""
    recalls = {"a": (0.1, 0.2, 0.3), "b": (0.9, 0.8, 0.7)}
    events = [
        ClientUpdated(
            round=1,
            client=client,
            node_id=client,
            num_examples=1,
            metrics={},
            metadata={"recall": dict(zip(("x", "y", "z"), values, strict=True))},
            seconds=1.0,
            bytes=1,
        )
        for client, values in recalls.items()
    ]
    tab.page.set_viewport_size({"width": 390, "height": 800})
    tab.open(write_report(write_run(tmp_path / "run", events)).as_uri())
    header = tab.page.locator("#chart-keyed-0 .updatemenu-header")
    assert tab.chart("keyed-0")["traces"][0]["z"] == [[0.5], [0.5], [0.5]]
    header.scroll_into_view_if_needed()
    toolbar = tab.page.locator("#chart-keyed-0 .modebar").bounding_box()
    assert header.bounding_box()["y"] >= toolbar["y"] + toolbar["height"] - 1
    header.click()
    tab.page.locator("#chart-keyed-0 .updatemenu-dropdown-button").nth(2).click()
    tab.page.wait_for_function("document.getElementById('chart-keyed-0').data[0].z[0][0] === 0.9")
    assert tab.chart("keyed-0")["traces"][0]["z"] == [[0.9], [0.8], [0.7]]
    assert tab.problems == []
