"""Laws of the label counts: what real nodes train on is known before they train, or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from hypothesis import given
from hypothesis import strategies as st

from fedwaggle import Waggle, answer_identity
from fedwaggle.runs import Run, load
from fedwaggle.strategy.cohort.labels import label_counts_in

SITES = ("site-a", "site-b", "site-c")
LABELS = {"site-a": [0, 0, 1], "site-b": [1, 2], "site-c": [2]}


class Named(Waggle, FedAvg):
    pass


def client(msg, context):
    content = {"arrays": msg.content["arrays"], "metrics": MetricRecord({"num-examples": 1})}
    return Message(RecordDict(content), reply_to=msg)


def sites(make_grid, *, labels=LABELS, answer=None, tells=True):
    """Return a grid of three named sites, each with labels of its own."""

    def load_data(split, context):
        y = np.array(labels[context.node_config["site"]])
        return np.zeros((len(y), 2), np.float32), y

    app = answer_identity(ClientApp(), load_data if tells else None)
    app.train()(client)
    if answer is not None:
        app._registered_funcs.pop("query.labels")
        app.query("labels")(answer)
    grid = make_grid(client, 3, names=SITES)
    grid.app = app
    for context, name in zip(grid.contexts.values(), SITES, strict=True):
        context.node_config = {"site": name}
    return grid


def trained(grid, folder, rounds=1):
    run = Run.create(folder)
    run.count_labels = lambda nodes: pytest.fail("only a simulation counts on the server")
    with run:
        strategy = Named(run=run, fraction_train=1.0, fraction_evaluate=0.0)
        weights = ArrayRecord([np.zeros(2, np.float32)])
        strategy.start(grid, weights, num_rounds=rounds)
    return load(run.path)


def test_sites_are_asked_once_before_they_train(make_grid, tmp_path):
    record = trained(sites(make_grid), tmp_path, rounds=2)
    assert record.label_counts == {
        "site-a": {"0": 2, "1": 1},
        "site-b": {"1": 1, "2": 1},
        "site-c": {"2": 1},
    }
    lines = (record.path / "events.jsonl").read_text().splitlines()
    kinds = [line.split('"event":"')[1].split('"')[0] for line in lines]
    assert kinds.count("labels-counted") == 1
    assert kinds.index("labels-counted") < kinds.index("client-updated")


def test_a_site_that_joins_later_is_asked_when_it_joins(make_grid, tmp_path):
    grid = sites(make_grid)
    late = grid.contexts.pop(102)

    class Joining(Named):
        def on_round_end(self, summary):
            if summary.server_round == 1:
                grid.contexts[102] = late

    run = Run.create(tmp_path)
    run.count_labels = lambda nodes: []
    with run:
        strategy = Joining(run=run, fraction_train=1.0, fraction_evaluate=0.0)
        strategy.start(grid, ArrayRecord([np.zeros(2, np.float32)]), num_rounds=2)
    assert list(load(run.path).label_counts) == ["site-a", "site-b", "site-c"]


def test_a_site_that_does_not_tell_trains_all_the_same(make_grid, tmp_path):
    record = trained(sites(make_grid, tells=False), tmp_path)
    assert record.label_counts == {}
    assert [len(each.updates) for each in record.rounds] == [0, 3]


@pytest.mark.parametrize(
    "lie",
    [
        {},
        {"labels": ["0"], "counts": [1, 2]},
        {"labels": ["0"], "counts": [-1]},
        {"labels": ["a\nb"], "counts": [1]},
        {"labels": [str(n) for n in range(10_001)], "counts": [1] * 10_001},
        {"labels": "0", "counts": 3},
        {"labels": [1], "counts": [1]},
    ],
)
def test_what_a_hostile_site_tells_is_not_recorded(make_grid, tmp_path, lie):
    def answer(msg, context):
        return Message(RecordDict({"labels": ConfigRecord(lie)}), reply_to=msg)

    record = trained(sites(make_grid, answer=answer), tmp_path)
    assert record.label_counts == {}
    assert record.status == "finished"


def test_a_site_whose_data_cannot_be_read_is_left_out(make_grid, tmp_path):
    """It cannot train either, and that is another law's matter; the others are counted."""
    grid = sites(make_grid, labels={**LABELS, "site-b": [[0, 1], [1, 0]]})
    grid.contexts[101].node_config = {"site": "none"}
    assert list(trained(grid, tmp_path).label_counts) == ["site-a", "site-c"]


@given(st.dictionaries(st.text(), st.lists(st.integers() | st.text() | st.floats())))
def test_whatever_comes_counts_are_whole_numbers_by_printable_names(record):
    for name, count in label_counts_in(record).items():
        assert name.isprintable()
        assert 0 <= count <= 2**53
