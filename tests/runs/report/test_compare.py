"""Runs side by side: what differs, and what came out over seeds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fedwaggle.errors import RunError
from fedwaggle.runs.report.comparing import write_comparison
from runs.report_data import HOSTILE, Federation, hostile_events, run_events, write_run


def text_of(page: str) -> str:
    """Return the words of a page's body, without its scripts."""
    body = page[page.index("<body>") : page.index('<script type="application/json"')]
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def compared(tmp_path: Path, *kinds: Federation) -> str:
    tmp_path.mkdir(exist_ok=True)
    runs = [write_run(tmp_path / f"run-{i}", run_events(kind)) for i, kind in enumerate(kinds)]
    return write_comparison(runs, tmp_path / "compare.html").read_text()


def test_runs_that_differ_by_their_seed_are_one_experiment(tmp_path: Path) -> None:
    """Best accuracies of 88.46, 88.67 and 87.96 %: mean 88.37, standard deviation 0.36."""
    words = text_of(compared(tmp_path, Federation(seed=0), Federation(seed=1), Federation(seed=2)))
    assert "Experiments: 1." in words
    assert "1 3 3 88.37 % ± 0.36 %" in words  # experiment, runs, seeds, best


def test_a_repeated_seed_does_not_count_twice(tmp_path: Path) -> None:
    words = text_of(compared(tmp_path, Federation(seed=0), Federation(seed=0)))
    assert "1 2 1 88.46 %" in words
    assert "±" not in words.replace("mean ± standard deviation", "")
    assert "run-0 and run-1 ended with the same model, bit for bit." in words
    assert "Nothing: the runs have the same config, seed and versions." in words


def test_only_what_differs_is_listed(tmp_path: Path) -> None:
    page = compared(tmp_path, Federation(lr=0.01), Federation(lr=0.05, rounds=10))
    table = page[page.index('id="config"') :]
    keys = re.findall(r"<tr[^>]*><td>([^<]+)</td>", table[: table.index("</table>")])
    assert keys == ["lr", "num-server-rounds"]
    words = text_of(page)
    assert "1: lr = 0.01, num-server-rounds = 20" in words
    assert "2: lr = 0.05, num-server-rounds = 10" in words


def test_another_number_of_clients_is_another_experiment(tmp_path: Path) -> None:
    assert "Experiments: 2." in text_of(compared(tmp_path, Federation(), Federation(clients=12)))


def test_runs_of_every_state_can_be_compared(tmp_path: Path) -> None:
    events = run_events()
    runs = [
        write_run(tmp_path / "empty", []),
        write_run(tmp_path / "begun", events[:1]),
        write_run(tmp_path / "half", events[:60]),
        write_run(tmp_path / "dice", run_events(Federation(metric="dice", metadata=False))),
    ]
    words = text_of(write_comparison(runs, tmp_path / "compare.html").read_text())
    assert "empty 1 interrupted 0" in words  # run, experiment, status, rounds
    assert "half 2 0 interrupted 7" in words
    assert "Last dice" in words


def test_what_clients_say_is_never_markup(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a", hostile_events()), write_run(tmp_path / "b", run_events())]
    page = write_comparison(runs, tmp_path / "compare.html").read_text()
    assert HOSTILE not in page


def test_runs_of_the_same_name_are_told_apart_by_the_folder_above(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / where / "run", run_events()) for where in ("a", "b")]
    words = text_of(write_comparison(runs, tmp_path / "compare.html").read_text())
    assert "a/run and b/run ended with the same model" in words


def test_one_run_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="two runs at least, got 1"):
        write_comparison([tmp_path], tmp_path / "compare.html")


def test_a_run_named_twice_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", run_events())
    with pytest.raises(RunError, match="expected each run once, got a again"):
        write_comparison([run, tmp_path / "b" / ".." / "a"], tmp_path / "page.html")


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a", run_events()), tmp_path / "gone"]
    with pytest.raises(RunError, match=r"gone/events\.jsonl"):
        write_comparison(runs, tmp_path / "compare.html")


def test_three_experiments_are_lines_over_what_they_were_asked(tmp_path: Path) -> None:
    """One axis for the learning rate, in its order, and one for the best accuracy."""
    page = compared(tmp_path, *(Federation(lr=lr) for lr in (0.01, 0.05, 0.09)))
    found = re.search(r'id="page-data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    (figure,) = [f for f in json.loads(found[1])["figures"] if f["key"] == "parallel"]
    assert [trace["x"] for trace in figure["data"]] == [["lr", "best accuracy"]] * 3
    assert [trace["y"][0] for trace in figure["data"]] == [0.0, 0.5, 1.0]
    assert '"key":"parallel"' not in compared(tmp_path / "two", Federation(), Federation(lr=0.05))
