"""``federate``: a run from functions, whose result is the record as values, tables and a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.serverapp.strategy import FedAdam
from torch import nn

from fedwaggle import ConfigError, DatasetError, RunError, Waggle, federate
from fedwaggle.runs import load
from fedwaggle.simulation.result import SimulationResult


@pytest.fixture
def result(diabetes: dict) -> SimulationResult:
    return federate(
        **diabetes,
        strategy=FedAdam,
        strategy_options={"eta": 0.3},
        rounds=3,
        config={"lr": 0.1},
        quiet=True,
    )


def test_a_run_is_values_tables_and_a_model(
    result: SimulationResult, here: Path, diabetes: dict
) -> None:
    """Three rounds of a regression: the error falls, and the least is that of the best model."""
    assert result.path.parent == here / "outputs"
    assert (result.record.strategy, result.record.status) == ("FedAdam", "finished")
    rounds = result.rounds_to_pandas()
    assert rounds["round"].tolist() == [0, 1, 2, 3]
    errors = rounds["metrics.mae"].tolist()
    assert result.metrics == {"mae": errors[-1]}
    assert errors[-1] < errors[0]
    assert [sum(each.values()) for each in result.record.label_counts.values()] == [35] * 10
    best = result.record.best
    assert (best.metric, best.value) == ("mae", min(errors))
    updates = result.updates_to_pandas()
    assert len(updates) == 3 * 5
    assert all(len(losses) == 5 for losses in updates["metadata.losses"])
    model = result.best_model(nn.Linear(10, 1))
    test_set = load_test_set(diabetes)
    assert diabetes["test"](model, test_set)["mae"] == pytest.approx(best.value)
    assert result.report().stat().st_size > 10_000


def load_test_set(diabetes: dict):
    from fedwaggle import to_examples

    return to_examples(diabetes["load_data"]("test", None))


def test_a_notebook_shows_the_curve_and_the_table(result: SimulationResult) -> None:
    page = result._repr_html_()
    assert "<polyline points=" in page
    assert "mae from 0." in page
    assert page.count("<tr>") == 1 + 4
    assert result.report().as_uri() in page
    assert "<script" not in page


def test_the_same_seed_gives_the_same_model(diabetes: dict) -> None:
    """With one worker and with two; another seed gives another model."""
    hashes = [
        federate(
            **diabetes, rounds=2, config={"seed": seed}, workers=workers, quiet=True
        ).record.sha256
        for seed, workers in ((0, 1), (0, 2), (1, 2))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_mistakes_are_told_before_anything_starts(diabetes: dict, here: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'local-epochs'"):
        federate(**diabetes, config={"local-epoch": 2})
    with pytest.raises(ConfigError, match=r"strategy: expected a class of flwr\.serverapp"):
        federate(**diabetes, strategy="FedAvg")
    assert not (here / "outputs").exists()


def test_a_strategy_with_the_mixin_is_taken_as_it_is(diabetes: dict) -> None:
    class Counting(Waggle[diabetes["metadata"]], FedAdam):
        def on_train_metadata(self, server_round, updates):
            return {"epochs": sum(len(update.metadata.losses) for update in updates)}

    done = federate(**{**diabetes, "metadata": None}, strategy=Counting, rounds=1, quiet=True)
    assert done.rounds_to_pandas()["train_metrics.epochs"].tolist()[1] == 25


def test_a_result_without_a_record_says_what_is_missing() -> None:
    done = SimulationResult(value=7, seconds=1.0, messages=2, errors=0, path=None)
    with pytest.raises(RunError, match="expected a strategy with the Waggle mixin"):
        done.rounds_to_pandas()
    assert "The app kept no record" in done._repr_html_()


def test_names_from_the_record_are_no_html(result: SimulationResult) -> None:
    """A metric may have any name; a page shows it as text."""
    from dataclasses import replace

    from fedwaggle.simulation.page import result_page

    record = load(result.path)
    rounds = tuple(
        replace(each, metrics={"<script>x": 1.0}, train_metrics={}) for each in record.rounds
    )
    page = result_page(replace(record, rounds=rounds, best=None), "1 message")
    assert "<script>" not in page
    assert "&lt;script&gt;x" in page


def test_more_nodes_than_test_examples_end_the_run_before_it_begins(
    here: Path, diabetes: dict
) -> None:
    """442 rows, of which 92 are to test: 100 clients could train, but not evaluate."""
    with pytest.raises(DatasetError, match="cannot make 100 partitions: there are only 92"):
        federate(**diabetes, num_supernodes=100, rounds=1, quiet=True)
