"""Laws of the round loop, over a grid that runs real ClientApps."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp.strategy import FedAdagrad, FedAvg

from fedwaggle.errors import ConfigError, NodesError, RunError
from fedwaggle.metadata import pack
from fedwaggle.runs import Run, load
from fedwaggle.runs.reading import read_events
from fedwaggle.runs.report import write_report
from fedwaggle.schedules import step_decay
from fedwaggle.strategy import OutlierRule, RoundRules, Waggle


@dataclass(frozen=True)
class Facts:
    """What these clients say."""

    training_time: float
    converged: bool


class WaggleAdagrad(Waggle[Facts], FedAdagrad):
    """The strategy under test."""


class WaggleAvg(Waggle[Facts], FedAvg):
    """The plainest one."""


def record(*values: float) -> ArrayRecord:
    return ArrayRecord({"w": Array(np.array(values, dtype=np.float32))})


def values(arrays: ArrayRecord) -> list[float]:
    return arrays["w"].numpy().tolist()


def reply(msg, arrays, context=None, *, examples=1, metadata=None) -> Message:
    content = {
        "arrays": arrays,
        "metrics": MetricRecord({"train_loss": 0.5, "num-examples": examples}),
    }
    if metadata is not None:
        content["metadata"] = pack(metadata, context)
    return Message(RecordDict(content), reply_to=msg)


def add_partition(msg, context):
    """Add the client's partition id, and a fraction that rounds, to every weight."""
    part = context.node_config["partition-id"]
    new = msg.content["arrays"]["w"].numpy() + np.float32(part + 0.1)
    return reply(
        msg,
        ArrayRecord({"w": Array(new.astype(np.float32))}),
        context,
        examples=part + 1,
        metadata=Facts(training_time=part + 0.5, converged=part % 2 == 0),
    )


def start(strategy, grid, initial=None, rounds=1, **options):
    return strategy.start(grid, initial or record(0.0, 0.0), rounds, **options)


def events(run: Run, kind: str) -> list:
    return [e for e in read_events(run.path / "events.jsonl") if e.event == kind]


# -- Flower's own step


def test_the_step_is_flowers_to_the_bit_over_five_rounds(make_grid):
    """One client a round: its weights are the mean, so the bytes are stock FedAdagrad's."""

    def final(strategy):
        grid = make_grid(add_partition, 1)
        return start(strategy, grid, record(*np.linspace(-1, 1, 1000)), rounds=5).arrays

    one = {"min_train_nodes": 1, "min_available_nodes": 1, "fraction_evaluate": 0.0}
    options = {**one, "eta": 0.1, "tau": 0.1}
    stock, ours = final(FedAdagrad(**options)), final(WaggleAdagrad(**options))
    assert ours["w"].data == stock["w"].data
    assert ours["w"].numpy().dtype == np.float32


def test_the_mean_of_many_is_flowers_within_rounding(make_grid):
    """10 clients over 5 rounds: the same within float32's rounding, in any order of arrival."""

    def final(strategy, reverse):
        grid = make_grid(add_partition, 10, reverse=reverse)
        return start(strategy, grid, record(*np.linspace(-1, 1, 1000)), rounds=5).arrays

    options = {"fraction_evaluate": 0.0, "eta": 0.1, "tau": 0.1}
    stock = final(FedAdagrad(**options), reverse=False)
    ours = final(WaggleAdagrad(**options), reverse=False)
    backwards = final(WaggleAdagrad(**options), reverse=True)
    np.testing.assert_allclose(ours["w"].numpy(), stock["w"].numpy(), atol=1e-6)
    assert ours["w"].data == backwards["w"].data


def test_the_mean_is_weighted_by_examples(make_grid):
    """Partition 0 adds 0.1 (1 example), partition 1 adds 1.1 (3): (0.1 + 3.3) / 4 = 0.85."""

    def client(msg, context):
        part = context.node_config["partition-id"]
        return reply(msg, record(part + 0.1), examples=1 + 2 * part)

    unbounded = RoundRules(outliers=OutlierRule(share=0))
    strategy = WaggleAvg(fraction_evaluate=0.0, rules=unbounded)
    result = start(strategy, make_grid(client, 2), record(0.0))
    assert values(result.arrays) == [pytest.approx(0.85)]


# -- the learning rate


def test_each_round_sends_its_own_rate_and_the_callers_config_stays_as_it_was(make_grid):
    config = ConfigRecord({"mine": 1})
    grid = make_grid(add_partition, 2)
    strategy = WaggleAvg(learning_rate=step_decay(0.01, factor=0.5, every=5), fraction_evaluate=0.0)
    start(strategy, grid, rounds=11, train_config=config)
    sent = {m.content["config"]["server-round"]: m.content["config"]["lr"] for m in grid.sent}
    assert [sent[r] for r in (1, 4, 5, 9, 10, 11)] == [0.01, 0.01, 0.005, 0.005, 0.0025, 0.0025]
    assert dict(config) == {"mine": 1}
    assert all(m.content["config"]["mine"] == 1 for m in grid.sent)


def test_without_a_schedule_the_callers_rate_is_sent(make_grid):
    grid = make_grid(add_partition, 2)
    start(WaggleAvg(fraction_evaluate=0.0), grid, train_config=ConfigRecord({"lr": 0.3}))
    assert {m.content["config"]["lr"] for m in grid.sent} == {0.3}


# -- metadata


def test_the_strategy_reads_what_each_client_said_in_the_order_of_their_names(make_grid):
    seen = []

    class Reader(WaggleAvg):
        def on_train_metadata(self, server_round, updates):
            seen.append([(server_round, u.client, u.metadata) for u in updates])
            return {"clients_converged": sum(u.metadata.converged for u in updates)}

    grid = make_grid(add_partition, 3, reverse=True)
    result = start(Reader(fraction_evaluate=0.0), grid)
    assert seen == [
        [
            (1, "0", Facts(0.5, converged=True)),
            (1, "1", Facts(1.5, converged=False)),
            (1, "2", Facts(2.5, converged=True)),
        ]
    ]
    assert result.train_metrics_clientapp[1]["clients_converged"] == 2
    assert result.train_metrics_clientapp[1]["train_loss"] == pytest.approx(0.5)


def test_bad_metadata_keeps_the_weights_and_does_not_reach_the_strategy(make_grid, tmp_path):
    """Client 1 sends no metadata: its weights count, and the record says what was wrong."""
    seen = []

    class Reader(WaggleAvg):
        def on_train_metadata(self, server_round, updates):
            seen.extend(u.client for u in updates)

    def client(msg, context):
        part = context.node_config["partition-id"]
        said = Facts(1.0, converged=False) if part == 0 else None
        return reply(msg, record(float(part)), context, metadata=said)

    with Run.create(tmp_path) as run:
        strategy = Reader(run=run, fraction_evaluate=0.0)
        result = start(strategy, make_grid(client, 2), record(9.0))
    assert seen == ["0"]
    assert values(result.arrays) == [0.5]
    errors = {e.client: e.metadata_error for e in events(run, "client-updated")}
    assert errors["0"] is None
    assert errors["1"].code == "malformed"
    assert "pack(metadata, context)" in errors["1"].message


@pytest.mark.parametrize(("senders", "warnings"), [((), 1), ((0,), 0), ((0, 1), 0)])
def test_a_round_without_any_metadata_is_a_warning_once(make_grid, caplog, senders, warnings):
    """A strategy that expects metadata and gets none names the line to add, not in each round."""

    def client(msg, context):
        sends = context.node_config["partition-id"] in senders
        facts = Facts(1.0, converged=False) if sends else None
        return reply(msg, record(1.0), context, metadata=facts)

    with caplog.at_level("WARNING", logger="flwr.fedwaggle"):
        start(WaggleAvg(), make_grid(client, 2), record(9.0), rounds=3)
    found = [line for line in caplog.messages if "no client sent usable metadata" in line]
    assert len(found) == warnings
    line = 'content["metadata"] = pack(metadata, context)'
    assert all("round 1" in text and line in text for text in found)


def test_a_pickle_from_a_client_is_not_run(make_grid, tmp_path):
    """The payload would create a file. With default settings it does not, and the run goes on."""
    marker = tmp_path / "owned"

    class Payload:
        def __reduce__(self):
            return (Path.touch, (marker,))

    import pickle

    def client(msg, context):
        answer = reply(msg, record(1.0, 1.0))
        answer.content["metadata"] = ConfigRecord(
            {
                "schema": "Facts",
                "version": 1,
                "codec": "pickle",
                "payload": pickle.dumps(Payload()),
            }
        )
        return answer

    result = start(WaggleAvg(fraction_evaluate=0.0), make_grid(client, 2))
    assert values(result.arrays) == [1.0, 1.0]
    assert not marker.exists()
    pickle.loads(pickle.dumps(Payload()))  # the payload is live
    assert marker.exists()


def test_the_pickle_codec_needs_the_operators_word():
    with pytest.raises(ConfigError, match="trust_pickle"):
        WaggleAvg(codec="pickle")


def test_trusted_pickle_is_warned_about_at_the_start_and_read(make_grid, caplog):
    def client(msg, context):
        answer = reply(msg, record(1.0, 1.0))
        answer.content["metadata"] = pack(Facts(2.0, converged=True), context, codec="pickle")
        return answer

    strategy = WaggleAvg(codec="pickle", trust_pickle=True, fraction_evaluate=0.0)
    said = []
    strategy.on_train_metadata = lambda server_round, updates: said.extend(
        u.metadata for u in updates
    )
    with caplog.at_level(logging.WARNING, logger="flwr"):
        start(strategy, make_grid(client, 2))
    assert "pickle" in caplog.text
    assert said == [Facts(2.0, converged=True)] * 2


# -- bad clients


def test_one_client_that_raises_is_recorded_and_the_others_are_used(make_grid, tmp_path):
    def client(msg, context):
        if context.node_config["partition-id"] == 1:
            raise RuntimeError("no disk")
        return add_partition(msg, context)

    with Run.create(tmp_path) as run:
        strategy = WaggleAvg(run=run, fraction_evaluate=0.0)
        start(strategy, make_grid(client, 3), rounds=2)
    bad = events(run, "client-quarantined")
    assert [(e.round, e.client, e.code) for e in bad] == [
        (1, "1", "client-raised"),
        (2, "1", "client-raised"),
    ]
    assert "no disk" in bad[0].reason
    assert [e.updates for e in events(run, "round-finished")] == [0, 2, 2]


def test_a_round_without_a_usable_update_keeps_the_model(make_grid):
    received = []

    def client(msg, context):
        received.append(values(msg.content["arrays"]))
        if msg.content["config"]["server-round"] == 1:
            raise RuntimeError(("boom", "bang")[context.node_config["partition-id"]])
        return add_partition(msg, context)

    strategy = WaggleAdagrad(fraction_evaluate=0.0)
    start(strategy, make_grid(client, 2), record(3.0, 4.0), rounds=2)
    assert received == [[3.0, 4.0]] * 4


def test_a_run_in_which_no_client_ever_trained_has_not_ended_well(make_grid):
    def client(msg, context):
        raise RuntimeError(("boom", "bang")[context.node_config["partition-id"]])

    with pytest.raises(NodesError, match="no client has trained the model: 2 rounds in a row"):
        start(WaggleAvg(fraction_evaluate=0.0), make_grid(client, 2), rounds=2)


def test_a_client_that_never_answers_is_missing_by_name(make_grid, tmp_path):
    grid = make_grid(add_partition, 3, names=["site-a", "site-b", "site-c"])
    grid.silent = {101}
    with Run.create(tmp_path) as run:
        strategy = WaggleAvg(run=run, fraction_evaluate=0.0)
        start(strategy, grid, timeout=1.0)
    assert events(run, "round-finished")[1].missing == ["site-b"]
    assert {e.client for e in events(run, "client-updated")} == {"site-a", "site-c"}


def test_a_client_that_fails_to_evaluate_does_not_end_the_run(make_grid, tmp_path):
    def evaluate(msg, context):
        if context.node_config["partition-id"] == 0:
            raise RuntimeError("no test data")
        metrics = MetricRecord({"accuracy": 0.5, "num-examples": 4})
        return Message(RecordDict({"metrics": metrics}), reply_to=msg)

    with Run.create(tmp_path) as run:
        result = start(WaggleAvg(run=run), make_grid(add_partition, 3, evaluate=evaluate))
    assert dict(result.evaluate_metrics_clientapp[1]) == {"accuracy": 0.5}
    (bad,) = events(run, "client-quarantined")
    assert (bad.client, bad.phase, bad.code) == ("0", "evaluate", "client-raised")


def test_a_client_that_never_evaluates_is_missing_by_name_wherever_missing_clients_are(
    make_grid, tmp_path, caplog
):
    """Client 2 trains and never evaluates; the record, the log, summary and the report name it."""
    ends = []

    class Listener(WaggleAvg):
        def on_round_end(self, summary):
            ends.append(list(summary.evaluation.missing))

    def evaluate(msg, context):
        metrics = MetricRecord({"accuracy": 0.5, "num-examples": 4})
        return Message(RecordDict({"metrics": metrics}), reply_to=msg)

    grid = make_grid(add_partition, 3, evaluate=evaluate)
    grid._answers = lambda message: (
        (message.metadata.message_type, message.metadata.dst_node_id) != ("evaluate", 102)
    )
    with Run.create(tmp_path) as run, caplog.at_level(logging.WARNING, logger="flwr"):
        start(Listener(run=run), grid, timeout=1.0)
    assert [e.evaluate_missing for e in events(run, "round-finished")] == [[], ["2"]]
    assert ends == [[], ["2"]]
    assert "evaluate: no reply in time from 1 clients: 2" in caplog.text
    assert load(run.path).rounds[1].evaluate_missing == ("2",)
    page = write_report(run.path).read_text()
    assert "of 3 sampled, and 1 in evaluation" in page
    assert "<h2>Missing in evaluation</h2>" in page


def test_a_bad_reply_neither_is_a_miss_nor_ends_a_row_of_misses(make_grid, tmp_path):
    """Client 1 is silent, sends NaN, is silent: its second miss lets it rest in rounds 4 and 5."""

    def train(msg, context):
        bad = context.node_config["partition-id"] == 1
        return reply(msg, record(math.nan if bad else 1.0, 1.0), context)

    grid = make_grid(train, 3)
    grid._answers = lambda message: (
        message.metadata.dst_node_id != 101
        or message.content["config"].get("server-round") not in (1, 3)
    )
    rules = RoundRules(cooldown_after=2, cooldown_rounds=2)
    with Run.create(tmp_path) as run:
        strategy = WaggleAvg(run=run, rules=rules, fraction_evaluate=0.0)
        start(strategy, grid, rounds=6, timeout=1.0)
    rounds = load(run.path).rounds[1:]
    assert [each.missing for each in rounds] == [("1",), (), ("1",), (), (), ()]
    assert [each.cooling_down for each in rounds] == [(), (), (), ("1",), ("1",), ()]


# -- the record, the checkpoints, the hooks


def accuracies(*by_round: float):
    return lambda server_round, arrays: MetricRecord({"accuracy": by_round[server_round]})


def test_the_record_of_a_run_holds_every_round_and_every_client(make_grid, tmp_path):
    with Run.create(tmp_path, name="two") as run:
        strategy = WaggleAvg(run=run, learning_rate=lambda r: 0.1 / r, fraction_evaluate=0.0)
        start(
            strategy, make_grid(add_partition, 2), rounds=2, evaluate_fn=accuracies(0.1, 0.2, 0.3)
        )
    kinds = [e.event for e in read_events(run.path / "events.jsonl")]
    a_round = ["round-started", "client-updated", "client-updated"]
    assert kinds == [
        "run-started",
        "checkpoint-saved",
        "round-finished",
        *a_round,
        "checkpoint-saved",
        "round-finished",
        *a_round,
        "checkpoint-saved",
        "round-finished",
        "run-finished",
    ]
    second = max(events(run, "client-updated"), key=lambda e: (e.round, e.client))
    assert (second.round, second.client, second.num_examples) == (2, "1", 2)
    assert second.metadata == {"training_time": 1.5, "converged": False}
    assert [e.learning_rate for e in events(run, "round-finished")] == [None, 0.1, 0.05]
    assert [e.metrics["accuracy"] for e in events(run, "round-finished")] == [0.1, 0.2, 0.3]
    assert events(run, "run-finished")[0].best.round == 2


def test_the_best_model_is_kept_the_last_round_included_and_a_nan_never(make_grid, tmp_path):
    """Accuracies 0.1, 0.5, NaN, 0.4, 0.6: rounds 0, 1 and 4 are saved; best.pth is round 4's."""

    def client(msg, context):
        return reply(msg, record(float(msg.content["config"]["server-round"])))

    with Run.create(tmp_path) as run:
        start(
            WaggleAvg(run=run, fraction_evaluate=0.0),
            make_grid(client, 2),
            record(0.0),
            rounds=4,
            evaluate_fn=accuracies(0.1, 0.5, float("nan"), 0.4, 0.6),
        )
    assert [e.round for e in events(run, "checkpoint-saved")] == [0, 1, 4]
    assert torch.load(run.path / "best.pth", weights_only=True)["w"].tolist() == [4.0]
    assert torch.load(run.path / "final.pth", weights_only=True)["w"].tolist() == [4.0]
    best = json.loads((run.path / "best.json").read_text())
    assert (best["round"], best["metric"], best["value"]) == (4, "accuracy", 0.6)


def test_the_end_of_each_round_tells_the_subclass_what_happened(make_grid, tmp_path):
    said = []

    class Listener(WaggleAvg):
        def on_round_end(self, summary):
            said.append(
                (
                    summary.server_round,
                    summary.num_rounds,
                    summary.is_best,
                    len(summary.training.updates),
                )
            )

    with Run.create(tmp_path) as run:
        strategy = Listener(run=run, fraction_evaluate=0.0)
        start(
            strategy, make_grid(add_partition, 2), rounds=2, evaluate_fn=accuracies(0.1, 0.3, 0.2)
        )
    assert said == [(0, 2, True, 0), (1, 2, True, 2), (2, 2, False, 2)]


def test_a_strategy_that_raises_is_a_failed_run_in_the_record(make_grid, tmp_path):
    class Broken(WaggleAvg):
        def on_train_metadata(self, server_round, updates):
            raise RuntimeError("my own mistake")

    def run_it(run):
        start(Broken(run=run, fraction_evaluate=0.0), make_grid(add_partition, 2))

    with pytest.raises(RuntimeError, match="my own mistake"), Run.create(tmp_path) as run:
        run_it(run)
    (failed,) = events(run, "run-failed")
    assert "my own mistake" in failed.error


def test_without_a_run_nothing_is_written(make_grid, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start(WaggleAvg(fraction_evaluate=0.0), make_grid(add_partition, 2))
    assert list(tmp_path.iterdir()) == []


def test_a_reply_that_is_no_use_is_not_one_of_those_that_are_enough(make_grid, tmp_path):
    """Of 5 clients, 0 is first and sends NaN; 2 are enough, and each round has 2 usable ones."""

    def train(msg, context):
        part = context.node_config["partition-id"]
        return reply(msg, record(math.nan if part == 0 else 1.0, 1.0), context)

    rules = RoundRules(min_replies=2, max_skipped_rounds=1)
    options = {"fraction_evaluate": 0.0, "min_train_nodes": 2}
    with Run.create(tmp_path) as run:
        start(
            WaggleAvg(run=run, rules=rules, **options), make_grid(train, 5, in_order=True), rounds=2
        )
        rounds = events(run, "round-finished")[1:]
        bad = events(run, "client-quarantined")
    assert [len(e.missing) for e in rounds] == [2, 2]
    assert [e.client for e in bad] == ["0", "0"]


def test_an_evaluation_that_is_no_use_is_not_one_of_those_that_are_enough(make_grid, tmp_path):
    """Of 3 clients, 0 is first and sends NaN; 1 is enough, and the metric is that of client 1."""

    def evaluate(msg, context):
        part = context.node_config["partition-id"]
        loss = math.nan if part == 0 else float(part)
        metrics = MetricRecord({"loss": loss, "num-examples": 1})
        return Message(RecordDict({"metrics": metrics}), reply_to=msg)

    grid = make_grid(add_partition, 3, evaluate=evaluate, in_order=True)
    grid_rules = RoundRules(min_replies=1)
    result = start(WaggleAvg(rules=grid_rules, min_train_nodes=1), grid, rounds=1)
    assert result.evaluate_metrics_clientapp[1]["loss"] == 1.0


def test_bytes_that_cannot_be_decoded_are_a_quarantined_reply(make_grid, tmp_path, monkeypatch):
    """Flower raises where it pulls what client 1 sent, as an answer and as its identity."""
    grid = make_grid(add_partition, 3)
    pull = grid.pull_messages

    def decoding(ids):
        replies = pull(ids)
        if any(one.metadata.src_node_id == 101 for one in replies):
            MetricRecord.inflate(b"MetricRecord  7\x00" + b"\xff" * 7)
        return replies

    monkeypatch.setattr(grid, "pull_messages", decoding)
    with Run.create(tmp_path) as run:
        start(WaggleAvg(run=run, fraction_evaluate=0.0), grid, rounds=1)
        (bad,) = events(run, "client-quarantined")
        (end,) = events(run, "round-finished")[1:]
    assert (bad.client, bad.code) == ("node-101", "undecodable")
    assert bad.reason.startswith("Flower says: DecodeError")
    assert not end.skipped


def test_a_run_holds_the_rounds_of_one_start_and_refuses_a_second(make_grid, tmp_path):
    """Two rounds of pretraining stay; the fine-tuning goes into a run of its own."""
    options = {"fraction_evaluate": 0.0}
    with Run.create(tmp_path, name="pretraining") as run:
        pretrained = start(WaggleAvg(run=run, **options), make_grid(add_partition, 2), rounds=2)
        with pytest.raises(RunError, match="a strategy has been started in it; open a run of its"):
            start(WaggleAdagrad(run=run, **options), make_grid(add_partition, 2), rounds=1)
    with Run.create(tmp_path, name="fine-tuning") as second:
        tuned = WaggleAdagrad(run=second, **options)
        start(tuned, make_grid(add_partition, 2), pretrained.arrays)
    assert [each.round for each in load(run.path).rounds] == [0, 1, 2]
    assert load(run.path).status == "finished"
    assert [each.round for each in load(second.path).rounds] == [0, 1]


# -- What the subclass says of a round


def test_numbers_of_any_kind_that_the_subclass_returns_are_recorded(make_grid, tmp_path):
    class Speaker(WaggleAvg):
        def on_train_metadata(self, server_round, updates):
            return {
                "any": any(update.metadata.converged for update in updates),
                "all": np.bool_(False),
                "mean": np.float32(0.5),
                "most": torch.tensor(7),
                "each": np.array([1.5, 2.5]),
            }

    with Run.create(tmp_path) as run:
        strategy = Speaker(run=run, fraction_evaluate=0.0)
        result = start(strategy, make_grid(add_partition, 2))
    said = dict(result.train_metrics_clientapp[1])
    assert said.pop("train_loss") == 0.5
    assert said == {"any": 1, "all": 0, "mean": 0.5, "most": 7, "each": [1.5, 2.5]}
    assert events(run, "round-finished")[1].train_metrics["any"] == 1


@pytest.mark.parametrize("said", [None, "yes", {"a": 1}, [1, 2.5], np.zeros((2, 2)), 1j])
def test_what_is_no_number_is_an_error_that_names_it_in_the_round_that_said_it(
    make_grid, tmp_path, said
):
    class Speaker(WaggleAvg):
        def on_train_metadata(self, server_round, updates):
            return {"fine": 1.0, "stragglers": said} if server_round == 2 else None

    def run_it(run):
        start(Speaker(run=run), make_grid(add_partition, 2), rounds=9)

    with (
        pytest.raises(ConfigError, match="on_train_metadata, 'stragglers': expected a number"),
        Run.create(tmp_path) as run,
    ):
        run_it(run)
    assert [e.round for e in events(run, "round-finished")] == [0, 1]


def test_a_round_records_how_far_its_clients_pull_apart(make_grid, tmp_path: Path) -> None:
    """Changes of (1, 0), (0, 1) and (1, 1), weighted alike: their mean is (2/3, 2/3)."""

    def train(msg, context):
        change = np.float32([(1, 0), (0, 1), (1, 1)][context.node_config["partition-id"]])
        new = msg.content["arrays"]["w"].numpy() + change
        return reply(msg, record(*new))

    with Run.create(tmp_path) as run:
        strategy = WaggleAvg(run=run, fraction_train=1.0, fraction_evaluate=0.0)
        strategy.start(make_grid(train, 3), record(0, 0), num_rounds=1)
    (end,) = [e for e in read_events(run.path / "events.jsonl") if e.event == "round-finished"][1:]
    assert end.cosines == {"0": 0.7071, "1": 0.7071, "2": 1.0}
