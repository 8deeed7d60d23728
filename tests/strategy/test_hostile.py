"""No client can end or poison a run: every kind of bad reply, alone and all at once.

The law: the run completes, the model is the one that the good clients alone would have made,
and every bad client is in the record under the right code.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdagrad, FedMedian

from fedwaggle.metadata import pack
from fedwaggle.runs import Run
from fedwaggle.runs.reading import read_events
from fedwaggle.strategy import RoundRules, Waggle

_spec = importlib.util.spec_from_file_location("hostile", Path(__file__).with_name("hostile.py"))
hostile = importlib.util.module_from_spec(_spec)
sys.modules["hostile"] = hostile
_spec.loader.exec_module(hostile)

GOOD = 10
BAD_KINDS = [name for name, kind in hostile.KINDS.items() if kind.code is not None]
RULES = RoundRules(max_num_examples=10**11, cooldown_after=0)


@dataclass(frozen=True)
class Facts:
    """What these clients say."""

    training_time: float


def model() -> ArrayRecord:
    return ArrayRecord(
        {
            "conv.weight": Array(np.linspace(-1, 1, 60, dtype=np.float32).reshape(3, 4, 5)),
            "bn.running_var": Array(np.ones(3, np.float32)),
            "bn.num_batches_tracked": Array(np.array(0, np.int64)),
        }
    )


def honest(msg, context) -> Message:
    """Move the model by a step that depends on the client and on its seed."""
    part = context.node_config["partition-id"]
    rng = np.random.default_rng(msg.content["config"]["seed"])
    sent = msg.content["arrays"]
    new = {key: array.numpy() for key, array in sent.items()}
    new["conv.weight"] = (new["conv.weight"] + rng.normal(size=(3, 4, 5))).astype(np.float32)
    new["bn.num_batches_tracked"] = new["bn.num_batches_tracked"] + part + 1
    content = {
        "arrays": ArrayRecord({key: Array(np.asarray(value)) for key, value in new.items()}),
        "metrics": MetricRecord({"train_loss": 0.5 + part, "num-examples": part + 1}),
        "metadata": pack(Facts(float(part))),
    }
    return Message(RecordDict(content), reply_to=msg)


def clients(spoilers):
    """Return a client app's train function: partition GOOD + i is spoiled by the i-th kind."""

    def train(msg, context):
        reply = honest(msg, context)
        number = context.node_config["partition-id"] - GOOD
        return reply if number < 0 else hostile.KINDS[spoilers[number]].spoil(reply)

    return train


def run_rounds(make_grid, folder, spoilers, base=FedAdagrad, rounds=2):
    """Run two rounds with all clients; return the hash of the last model, and the record."""

    class Strategy(Waggle[Facts], base):
        pass

    grid = make_grid(clients(spoilers), GOOD + len(spoilers))
    with Run.create(folder) as run:
        strategy = Strategy(run=run, rules=RULES, fraction_evaluate=0.0)
        result = strategy.start(grid, model(), rounds)
    events = list(read_events(run.path / "events.jsonl"))
    assert events[-1].event == "run-finished"
    assert list(result.arrays) == list(model())
    return events[-1].sha256, events


def codes_by_client(events) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for event in events:
        if event.event == "client-quarantined":
            found.setdefault(event.client, set()).add(event.code)
    return found


@pytest.fixture(scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("good")


@pytest.fixture
def of_the_good(make_grid, _folder: Path) -> str:
    """Return the model of a run in which only the good clients took part."""
    return run_rounds(make_grid, _folder, [])[0]


def test_the_catalogue_has_at_least_25_kinds_of_bad_reply() -> None:
    assert len(BAD_KINDS) >= 25


@pytest.mark.parametrize("kind", BAD_KINDS)
def test_one_bad_client_changes_nothing(make_grid, tmp_path, of_the_good, kind):
    sha256, events = run_rounds(make_grid, tmp_path, [kind])
    assert sha256 == of_the_good
    assert codes_by_client(events) == {str(GOOD): {hostile.KINDS[kind].code}}


@pytest.mark.parametrize("base", [FedAdagrad, FedMedian])
def test_all_of_them_at_once_change_nothing(make_grid, tmp_path, base):
    """As many bad clients as there are kinds, and 10 good ones."""
    good, _ = run_rounds(make_grid, tmp_path / "good", [], base)
    sha256, events = run_rounds(make_grid, tmp_path / "all", BAD_KINDS, base)
    assert sha256 == good
    expected = {str(GOOD + i): {hostile.KINDS[k].code} for i, k in enumerate(BAD_KINDS)}
    assert codes_by_client(events) == expected
    finished = [event for event in events if event.event == "round-finished"]
    assert [event.updates for event in finished] == [0, GOOD, GOOD]


def test_what_is_said_of_a_client_is_short_and_plain(make_grid, tmp_path):
    """A reason of 1 MB with control codes becomes one line without them."""
    _, events = run_rounds(make_grid, tmp_path, ["error-raised"], rounds=1)
    (bad,) = [event for event in events if event.event == "client-quarantined"]
    assert len(bad.reason) < 600
    assert bad.reason.isprintable()
    assert "client" in bad.reason


@pytest.mark.parametrize(
    "kind", [name for name, kind in hostile.KINDS.items() if kind.metadata_code is not None]
)
def test_bad_metadata_costs_a_client_its_weights_only_if_the_operator_says_so(
    make_grid, tmp_path, of_the_good, kind
):
    class Strategy(Waggle[Facts], FedAdagrad):
        pass

    def run_with(on_bad_metadata):
        rules = RoundRules(cooldown_after=0, on_bad_metadata=on_bad_metadata)
        with Run.create(tmp_path / on_bad_metadata) as run:
            strategy = Strategy(run=run, rules=rules, fraction_evaluate=0.0)
            strategy.start(make_grid(clients([kind]), GOOD + 1), model(), 2)
        return list(read_events(run.path / "events.jsonl"))

    kept, dropped = run_with("keep-weights"), run_with("drop-reply")
    problems = [e.metadata_error for e in kept if e.event == "client-updated" and e.metadata_error]
    assert [problem.code for problem in problems] == [hostile.KINDS[kind].metadata_code] * 2
    assert codes_by_client(kept) == {}
    assert codes_by_client(dropped) == {str(GOOD): {"bad-metadata"}}
    assert dropped[-1].sha256 == of_the_good != kept[-1].sha256


def test_buffers_are_averaged_and_whole_numbers_stay_whole(make_grid, tmp_path):
    """After a round of clients 0 to 9 with weights 1 to 10 that each count their own number."""

    class Strategy(Waggle[Facts], FedAdagrad):
        pass

    strategy = Strategy(fraction_evaluate=0.0)
    arrays = strategy.start(make_grid(clients([]), GOOD), model(), 1).arrays
    counted = arrays["bn.num_batches_tracked"].numpy()
    assert counted.dtype == np.int64
    assert counted == sum(n * n for n in range(1, 11)) / sum(range(1, 11))  # 385 / 55 = 7
    assert arrays["bn.running_var"].numpy().tolist() == [1.0, 1.0, 1.0]


APP = """
import time
import os
import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from fedwaggle.runs import Run
from fedwaggle.strategy import RoundRules, Waggle

class Strategy(Waggle, FedAvg):
    pass

client = ClientApp()

@client.train()
def train(msg, context):
    part = context.node_config["partition-id"]
    if part == 1:
        os._exit(1)
    if part == 2:
        time.sleep(3600)
    arrays = ArrayRecord({"w": Array(np.full(2, part, np.float32))})
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)

server = ServerApp()

@server.main()
def main(grid, context):
    from pathlib import Path
    with Run.create(Path(context.run_config["outputs"])) as run:
        rules = RoundRules(cooldown_after=2, cooldown_rounds=2)
        strategy = Strategy(run=run, rules=rules, fraction_evaluate=0.0)
        strategy.start(grid, ArrayRecord({"w": Array(np.zeros(2, np.float32))}), 3, timeout=60)
"""


def test_a_client_that_dies_and_one_that_hangs_cost_only_themselves(tmp_path):
    """Partitions 0, 3 and 4 of 5 send their number: (0 + 3 + 4) / 3. The two others rest."""
    from fedwaggle.engine import run

    app = tmp_path / "app"
    (app / "hostile_app").mkdir(parents=True)
    (app / "hostile_app" / "__init__.py").write_text(APP)
    (app / "pyproject.toml").write_text(
        "[project]\nname = 'hostile-app'\nversion = '1.0.0'\n"
        "[tool.flwr.app]\npublisher = 'tests'\n"
        "[tool.flwr.app.components]\n"
        "serverapp = 'hostile_app:server'\nclientapp = 'hostile_app:client'\n"
        "[tool.flwr.app.config]\noutputs = ''\n"
    )
    run(app, nodes=5, workers=2, config={"outputs": str(tmp_path / "out")}, client_timeout=4.0)
    (folder,) = (tmp_path / "out").iterdir()
    events = list(read_events(folder / "events.jsonl"))
    started = [event for event in events if event.event == "round-started"]
    assert [len(event.clients) for event in started] == [5, 5, 3]
    assert started[2].cooling_down == ["1", "2"]
    bad = codes_by_client(events)
    assert bad["1"] == {"client-crashed"}
    assert set(bad) == {"1", "2"}
    import torch

    model = torch.load(folder / "final.pth", weights_only=True)
    np.testing.assert_allclose(model["w"].numpy(), [7 / 3, 7 / 3], rtol=1e-6)
