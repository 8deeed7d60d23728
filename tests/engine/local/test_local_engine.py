"""The local engine runs an unmodified app with the meaning that Flower gives it."""

from __future__ import annotations

import resource
import sys
import threading
import time
from pathlib import Path

import pytest

from fedwaggle.engine import read_app, run
from fedwaggle.errors import ConfigError, EngineError
from waiting import PATIENCE

COUNT = """
@app.train()
def train(message, context):
    number = context.state["n"]["n"] + 1 if "n" in context.state else 1
    context.state["n"] = MetricRecord({"n": number})
    if message.content.get("config", {}).get("fail"):
        raise ValueError("boom")
    return answer(message, number)
"""


def test_a_client_sees_the_context_that_flower_gives(make_app) -> None:
    client = """
    @app.query()
    def query(message, context):
        facts = ConfigRecord({
            "node": [context.node_id - 1000, *context.node_config.values()],
            "keys": list(context.node_config), "rounds": context.run_config["rounds"],
            "same": message.metadata.dst_node_id == context.node_id, "empty": not context.state,
            "run": context.run_id == message.metadata.run_id,
        })
        return Message(RecordDict({"f": facts}), reply_to=message)
    """
    main = """
    replies = ask(grid, kind="query") + ask(grid, kind="query")
    assert context.run_config == {"rounds": 7, "lr": 0.5}, context.run_config
    assert context.node_config == {} and context.run_id == grid.run.run_id
    return [dict(r.content["f"]) for r in replies if r.metadata.src_node_id == 1002]
    """
    app = make_app(client, main, config="rounds = 3\nlr = 0.5")
    expected = {
        "node": [2, 2, 3],
        "keys": ["partition-id", "num-partitions"],
        "rounds": 7,
        "same": True,
        "empty": True,
        "run": True,
    }
    assert run(app, nodes=3, config={"rounds": 7}).value == [expected, expected]


def test_a_node_keeps_its_state_whichever_worker_serves_it(make_app) -> None:
    main = "return [values(ask(grid)) for _ in range(3)]"
    result = run(make_app(COUNT, main), nodes=5, workers=2)
    assert result.value == [dict.fromkeys(range(5), n) for n in (1, 2, 3)]
    assert (result.messages, result.errors) == (15, 0)


def test_a_state_may_hold_arrays_and_may_be_emptied(make_app) -> None:
    client = """
    import numpy as np
    @app.train()
    def train(message, context):
        had = len(context.state)
        if had:
            assert context.state["head"]["w"].numpy().tolist() == [1.5, 2.5]
            context.state = RecordDict()
        else:
            context.state["head"] = ArrayRecord({"w": Array(np.array([1.5, 2.5]))})
        return answer(message, had)
    """
    main = """
    seen = [values(ask(grid))[0]]
    seen.append(len(grid.client_states()))
    seen.append(values(ask(grid))[0])
    return [*seen, len(grid.client_states())]
    """
    assert run(make_app(client, main), nodes=1).value == [0, 1, 1, 0]


def test_a_client_that_raises_is_an_error_reply_and_its_state_stays(make_app) -> None:
    main = """
    first = ask(grid)
    bad, = ask(grid, nodes=[1000], fail=True)
    return bad.error.code, bad.error.reason, bad.metadata.src_node_id, values(ask(grid))[0]
    """
    reason = "<class 'ValueError'>:<'boom'>"
    assert run(make_app(COUNT, main), nodes=2).value == (2, reason, 1000, 2)


CONFIG = """
@app.train()
def train(message, context):
    count = context.node_config.get("count", 0)
    context.node_config["count"] = count + 1
    context.node_config["num-partitions"] = 99
    if message.content.get("config", {}).get("fail"):
        raise ValueError("boom")
    return answer(message, [count, context.node_config["partition-id"], len(context.state)])
"""


def test_a_node_keeps_the_config_that_a_client_gave_it(make_app) -> None:
    """As in Flower's simulation; not after an error, and it can be taken and given back."""
    main = """
    seen = [values(ask(grid))]
    ask(grid, fail=True)
    states = grid.client_states()
    seen.append(values(ask(grid)))
    grid.restore_client_states(states)
    return [*seen, values(ask(grid))], states.keys() == {"0", "1"}
    """
    first, second = ({0: [n, 0, 0], 1: [n, 1, 0]} for n in (0, 1))
    result = run(make_app(CONFIG, main), nodes=2, workers=2)
    assert result.value == ([first, second, second], True)


def test_a_client_that_changes_the_run_config_is_refused_as_flower_refuses_it(make_app) -> None:
    """Code 0 with Flower's words; its state stays, and the next message has the config as it is."""
    client = """
    @app.train()
    def train(message, context):
        number = context.state["n"]["n"] + 1 if "n" in context.state else 1
        context.state["n"] = MetricRecord({"n": number})
        if message.content["config"]["change"]:
            context.run_config["lr"] = 9.0
        return answer(message, [float(number), context.run_config["lr"]])
    """
    main = """
    refused, = ask(grid, change=True)
    reason = refused.error.reason.replace(str(context.run_id), "RUN")
    return refused.error.code, reason, values(ask(grid, change=False))
    """
    reason = (
        "<class 'ValueError'>:<'The `run_config` field of the `Context` object cannot be modified "
        "(run_id: RUN).'>"
    )
    result = run(make_app(client, main, config="lr = 0.5"), nodes=1)
    assert result.value == (0, reason, {0: [1.0, 0.5]})


def test_the_list_of_nodes_is_the_callers_own(make_app) -> None:
    main = """
    nodes = grid.get_node_ids()
    nodes.remove(1001)
    nodes.sort(reverse=True)
    return nodes, grid.get_node_ids()
    """
    value = run(make_app(COUNT, main), nodes=3).value
    assert value == ([1002, 1000], [1000, 1001, 1002])


def test_a_run_names_its_app_as_flower_does(make_app) -> None:
    main = "return grid.run.fab_id, grid.run.fab_version, grid.run.run_id == context.run_id"
    assert run(make_app(COUNT, main), nodes=1).value == ("tests/tiny_app", "1.0.0", True)


def test_states_can_be_taken_and_given_back_by_name(make_app) -> None:
    main = """
    ask(grid), ask(grid, nodes=[1001])
    states = grid.client_states()
    ask(grid)
    grid.restore_client_states(states)
    return sorted(states), values(ask(grid))
    """
    assert run(make_app(COUNT, main), nodes=3).value == (["0", "1", "2"], {0: 2, 1: 3, 2: 2})


def test_messages_to_one_node_are_handled_one_after_the_other(make_app) -> None:
    main = """
    grid.push_messages([])
    messages = [Message(RecordDict(), 1000, "train") for _ in range(6)]
    return [r.content["m"]["value"] for r in grid.send_and_receive(messages)]
    """
    assert run(make_app(COUNT, main), nodes=2, workers=2).value == [1, 2, 3, 4, 5, 6]


def test_replies_come_in_the_order_of_the_messages(make_app) -> None:
    """Node 0 takes longest and node 3 is first to answer; a sum over replies must not care."""
    client = """
    @app.train()
    def train(message, context):
        time.sleep(0.1 * (3 - context.node_config["partition-id"]))
        return answer(message, 1)
    """
    main = "return [r.metadata.src_node_id - 1000 for r in ask(grid)]"
    assert run(make_app(client, main), nodes=4, workers=4).value == [0, 1, 2, 3]


def test_what_a_client_does_to_its_message_nobody_else_sees(make_app) -> None:
    client = """
    import numpy as np
    @app.train()
    def train(message, context):
        seen = float(message.content["a"]["0"].numpy().sum()) + len(message.content["config"])
        array = message.content["a"]["0"].numpy()
        array += 100.0
        message.content["a"]["0"].data = Array(array).data
        message.content["config"]["more"] = 1
        del message.content["a"]
        return answer(message, seen)
    """
    main = """
    import numpy as np
    records = RecordDict({"a": ArrayRecord([np.ones(3)]), "config": ConfigRecord({"x": 1})})
    replies = grid.send_and_receive([Message(records, n, "train") for n in grid.get_node_ids()])
    seen = values(replies)
    assert records["a"].to_numpy_ndarrays()[0].tolist() == [1, 1, 1]
    assert dict(records["config"]) == {"x": 1}
    return seen
    """
    assert run(make_app(client, main), nodes=6, workers=2).value == dict.fromkeys(range(6), 4.0)


def test_each_message_carries_what_it_held_when_it_was_pushed(make_app) -> None:
    """The server uses one record for all: 0, 1, 2 are in it when messages 0, 1, 2 are pushed."""
    client = """
    @app.train()
    def train(message, context):
        arrays = message.content["a"].to_numpy_ndarrays()
        return answer(message, [message.content["config"]["i"], int(arrays[0][0])])
    """
    main = """
    import numpy as np
    config, arrays = ConfigRecord(), ArrayRecord()
    def messages():
        for i, node in enumerate(grid.get_node_ids()):
            config["i"], arrays["0"] = i, Array(np.array([10 * i]))
            yield Message(RecordDict({"config": config, "a": arrays}), node, "train")
    return values(grid.send_and_receive(messages()))
    """
    assert run(make_app(client, main), nodes=3).value == {0: [0, 0], 1: [1, 10], 2: [2, 20]}


def test_ids_groups_and_types_are_as_flower_sets_them(make_app) -> None:
    client = """
    @app.query("hello")
    def hello(message, context):
        return answer(message, int(message.metadata.message_id))
    """
    main = """
    messages = [
        Message(RecordDict(), node, "query.hello", group_id="g7", ttl=60.0)
        for node in grid.get_node_ids()
    ]
    replies = list(grid.send_and_receive(messages))
    by_id = {r.metadata.reply_to_message_id: r for r in replies}
    assert set(by_id) == {m.metadata.message_id for m in messages}
    for m in messages:
        sent, got = m.metadata, by_id[m.metadata.message_id].metadata
        assert (got.src_node_id, got.dst_node_id) == (sent.dst_node_id, sent.src_node_id)
        assert (got.run_id, got.group_id) == (sent.run_id, "g7")
        assert got.message_type == "query.hello" and 0 < got.ttl <= 60.0
        assert by_id[sent.message_id].content["m"]["value"] == int(sent.message_id)
    assert {r.metadata.dst_node_id for r in replies} == {1}
    return len({r.metadata.message_id for r in replies})
    """
    assert run(make_app(client, main), nodes=3).value == 3


def test_mods_and_lifespans_run_around_each_message(make_app) -> None:
    client = """
    def double(message, context, call_next):
        reply = call_next(message, context)
        reply.content["m"]["value"] *= 2
        return reply

    app = ClientApp(mods=[double])
    entered = []

    @app.lifespan()
    def lifespan(context):
        entered.append(context.node_id)
        yield
        entered.pop()

    @app.train(mods=[double])
    def train(message, context):
        return answer(message, len(entered))

    @app.evaluate()
    def evaluate(message, context):
        return answer(message, 10)
    """
    main = "return spans, values(ask(grid)), values(ask(grid, kind='evaluate'))"
    tail = """
    spans = []
    @app.lifespan()
    def lifespan(context):
        spans.append("open")
        yield
        spans.append("closed")
    """
    value = run(make_app(client, main, server_tail=tail), nodes=2).value
    assert value == (["open", "closed"], {0: 4, 1: 4}, {0: 20, 1: 20})


def test_an_unknown_action_is_the_clients_error(make_app) -> None:
    main = 'return [r.error.reason for r in ask(grid, kind="query.nothing")]'
    reason = "<class 'ValueError'>:<'No query function registered with name 'nothing''>"
    assert run(make_app(COUNT, main), nodes=1).value == [reason]


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (
            "None",
            "<class 'TypeError'>:<'expected the ClientApp to return a Message, got NoneType'>",
        ),
        ("Message(Error(6, 'no budget'), reply_to=message)", "no budget"),
        (
            "Message(RecordDict(), 1, 'train')",
            "<class 'ValueError'>:<'expected a reply to the message: build it with "
            "reply_to=message'>",
        ),
    ],
)
def test_a_reply_is_a_message_or_an_error_that_answers(make_app, returned, reason) -> None:
    client = f"@app.train()\ndef train(message, context):\n    return {returned}"
    main = "return [r.error.reason for r in ask(grid)]"
    assert run(make_app(client, main), nodes=1).value == [reason]


def test_a_node_that_does_not_exist_answers_as_the_server_does(make_app) -> None:
    main = """
    reply, = ask(grid, nodes=[5])
    return reply.error.code, reply.metadata.src_node_id, bool(reply.metadata.reply_to_message_id)
    """
    assert run(make_app(COUNT, main), nodes=1).value == (5, 1, True)


def test_replies_are_pulled_once_and_an_unknown_id_is_an_error(make_app) -> None:
    main = """
    ids = list(grid.push_messages([Message(RecordDict(), n, "train") for n in (1000, 1001)]))
    pulled = []
    while len(pulled) < 2:
        answered = grid.wait_for_replies(set(ids) - set(pulled), 10.0)
        replies = grid.pull_messages(answered)
        pulled += [reply.metadata.reply_to_message_id for reply in replies]
    again, = grid.pull_messages(ids[:1])
    assert again.error.code == 3 and again.metadata.reply_to_message_id == ids[0]
    return sorted(pulled) == ids, grid.wait_for_replies(ids, 0.0)
    """
    assert run(make_app(COUNT, main), nodes=2).value == (True, [])


# Clients with an odd number answer once the server has let them, and not before.
HELD_ODD = """
LET_GO = os.path.join(os.path.dirname(__file__), "let-go")
@app.train()
def train(message, context):
    while context.node_config["partition-id"] % 2 and not os.path.exists(LET_GO):
        time.sleep(0.01)
    context.state["n"] = MetricRecord({"n": 1})
    return answer(message, 0)
"""
LET_GO = """
def let_go():
    from pathlib import Path
    Path(__file__).with_name("let-go").touch()

def come_to_have_states(grid, *names):
    "Return whether these clients, and no others, come to have a state."
    end = time.monotonic() + 240.0
    while sorted(grid.client_states()) != sorted(names) and time.monotonic() < end:
        ask(grid, nodes=[1000])  # a late reply is read while the server waits for another
    return sorted(grid.client_states()) == sorted(names)
"""


def test_a_timeout_returns_what_came_and_the_rest_is_absent(make_app) -> None:
    """Nodes 0 and 2 answer at once; 1 too late, and its late reply never shows up."""
    main = """
    early = sorted(values(ask(grid, timeout=2.0)))
    let_go()
    came = come_to_have_states(grid, "0", "1", "2")
    return early, came, sorted(values(ask(grid, nodes=[1000, 1002])))
    """
    app = make_app(HELD_ODD, main, server_tail=LET_GO)
    assert run(app, nodes=3, workers=2).value == ([0, 2], True, [0, 2])


def test_what_no_client_has_begun_when_the_time_is_up_is_taken_back(make_app) -> None:
    """One worker: node 1 is held past the timeout, so node 3 behind it is never asked."""
    main = """
    grid.get_node_ids()  # returns when the client can begin
    early = sorted(values(ask(grid, nodes=[1001, 1003, 1003], timeout=1.0)))
    let_go()
    values(ask(grid, nodes=[1000]))
    return early, sorted(grid.client_states())
    """
    app = make_app(HELD_ODD, main, server_tail=LET_GO)
    assert run(app, nodes=4, workers=1).value == ([], ["0", "1"])


def test_a_message_past_its_time_to_live_is_not_delivered(make_app) -> None:
    main = """
    message = Message(RecordDict(), 1000, "train", ttl=5.0)
    message.metadata.created_at -= 10.0
    reply, = grid.send_and_receive([message])
    return reply.error.code, reply.metadata.src_node_id, grid.client_states()
    """
    assert run(make_app(COUNT, main), nodes=1).value == (3, 1, {})


HANG_ODD = """
@app.train()
def train(message, context):
    if context.node_config["partition-id"] % 2:
        time.sleep(600)
    return answer(message, 0)
"""


def test_a_time_to_live_ends_the_wait_for_a_client_that_hangs(make_app) -> None:
    """No timeout: node 1 would keep the server for 600 s, its message lives for 2 s."""
    main = """
    messages = [Message(RecordDict(), n, "train", ttl=2.0) for n in grid.get_node_ids()]
    ids = [*grid.push_messages(messages)]
    replies = {}
    while len(replies) < 2:
        for reply in grid.pull_messages(grid.wait_for_replies(set(ids) - set(replies))):
            replies[reply.metadata.reply_to_message_id] = reply
    error = replies[ids[1]].error
    again, = grid.send_and_receive([Message(RecordDict(), 1001, "train", ttl=0.2)])
    return error.code, replies[ids[0]].has_error(), again.error.code
    """
    result = run(make_app(HANG_ODD, main), nodes=2, workers=2)
    assert result.value == (3, False, 3)
    assert (result.messages, result.errors) == (3, 2)
    assert result.seconds < PATIENCE


def test_what_a_client_says_too_late_changes_its_state_and_nothing_else(make_app) -> None:
    """Node 1 answers after the 1 s that its message lives; node 3 comes after it."""
    main = """
    grid.get_node_ids()  # returns when the client can begin
    late, = grid.send_and_receive([Message(RecordDict(), 1001, "train", ttl=1.0)])
    before = sorted(grid.client_states())
    let_go()
    on_time, = ask(grid, nodes=[1003])
    return late.error.code, before, on_time.has_error(), sorted(grid.client_states())
    """
    result = run(make_app(HELD_ODD, main, server_tail=LET_GO), nodes=4, workers=1)
    assert result.value == (3, [], False, ["1", "3"])
    assert (result.messages, result.errors) == (2, 1)


def test_a_reply_that_came_in_time_counts_however_late_the_server_looks(make_app) -> None:
    main = """
    node, = grid.get_node_ids()  # returns when the client can begin
    ids = grid.push_messages([Message(RecordDict(), node, "train", ttl=2.0)])
    time.sleep(2.2)
    return [reply.has_error() for reply in grid.pull_messages(ids)]
    """
    assert run(make_app(COUNT, main), nodes=1).value == [False]


def test_a_time_to_live_counts_also_while_another_thread_listens(make_app) -> None:
    """One thread waits for node 1; another asks node 3 after it, for 0.3 s."""
    main = """
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(1) as threads:
        listens = threads.submit(ask, grid, [1001])
        time.sleep(0.2)
        reply, = grid.send_and_receive([Message(RecordDict(), 1003, "train", ttl=0.3)])
        still_listens = not listens.done()
        let_go()
        return reply.error.code, still_listens, values(listens.result())
    """
    app = make_app(HELD_ODD, main, server_tail=LET_GO)
    assert run(app, nodes=4, workers=2).value == (3, True, {1: 0})


def test_times_to_live_of_answered_messages_are_not_kept(make_app) -> None:
    """Node 1 hangs, so its end stays the next one; behind it 2,000 messages are answered."""
    main = """
    grid.push_messages([Message(RecordDict(), 1001, "train")])
    for _ in range(4):
        ask(grid, nodes=[1000] * 500)
    ids = grid.push_messages([Message(RecordDict(), 1000, "train", ttl=float("inf"))])
    grid.wait_for_replies(ids)
    return len(grid._traffic.open), len(grid._traffic._ends) < 1_100
    """
    assert run(make_app(HANG_ODD, main), nodes=2, workers=2).value == (1, True)


def test_a_message_object_is_sent_once(make_app) -> None:
    """As in Flower's simulation: a second push is refused, also of one that timed out."""
    main = """
    def refused(*messages):
        try:
            grid.push_messages(messages)
        except ValueError as error:
            return "build another Message" in str(error)
    twice, answered, late = [Message(RecordDict(), n, "train") for n in (1000, 1000, 1001)]
    both = refused(twice, twice)
    replies = [*grid.send_and_receive([answered]), *grid.send_and_receive([late], timeout=0.2)]
    again = [refused(answered), refused(late)]
    let_go()
    return both, again, len(replies), sorted(values(ask(grid)))
    """
    app = make_app(HELD_ODD, main, server_tail=LET_GO)
    assert run(app, nodes=2).value == (True, [True, True], 1, [0, 1])


def test_what_becomes_of_a_message_object_later_does_not_matter(make_app) -> None:
    main = """
    message = Message(RecordDict(), 1000, "train")
    ids = grid.push_messages([message])
    message.metadata.dst_node_id, message.metadata.ttl = 1001, 1e-9
    assert list(ids) == grid.wait_for_replies(ids, 10.0)
    return values(grid.pull_messages(ids))
    """
    assert run(make_app(COUNT, main), nodes=2).value == {0: 1}


def test_each_push_may_keep_a_file_open(make_app) -> None:
    """200 pushes of one message each, in a process that may open 100 files and ask for more."""
    main = """
    ids = set()
    for node in grid.get_node_ids():
        ids.update(grid.push_messages([Message(RecordDict(), node, "train")]))
    done = set()
    while len(done) < 200 and (came := grid.wait_for_replies(ids - done, 10.0)):
        done |= {r.metadata.reply_to_message_id for r in grid.pull_messages(came)}
    return done == ids
    """
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = (100, before[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, low)
    try:
        assert run(make_app(COUNT, main), nodes=200, workers=1).value is True
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == low
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_any_thread_of_the_server_may_use_the_grid(make_app) -> None:
    main = """
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(8) as threads:
        return sum(v for r in threads.map(lambda n: ask(grid, [n]), grid.get_node_ids())
                   for v in values(r).values())
    """
    assert run(make_app(COUNT, main), nodes=24, workers=2).value == 24


def test_flowers_older_interface_runs_too(make_app) -> None:
    """A NumPyClient, a server function and the older FedAvg: 3 clients add 1, 2 and 3 to 0."""
    client = """
    import numpy as np
    from flwr.client import NumPyClient
    class Adder(NumPyClient):
        def __init__(self, number): self.number = number
        def fit(self, parameters, config): return [p + self.number for p in parameters], 1, {}
        def evaluate(self, parameters, config): return 0.5, 1, {"accuracy": float(parameters[0][0])}
    def client_fn(context):
        return Adder(1.0 + context.node_config["partition-id"]).to_client()
    app = ClientApp(client_fn=client_fn)
    """
    folder = make_app(client)
    (folder / "tiny_app" / "server_app.py").write_text(
        "import numpy as np\n"
        "from flwr.common import ndarrays_to_parameters\n"
        "from flwr.server import ServerAppComponents, ServerConfig\n"
        "from flwr.server.strategy import FedAvg\n"
        "from flwr.serverapp import ServerApp\n"
        "seen = []\n"
        "def server_fn(context):\n"
        "    def evaluate(server_round, arrays, config):\n"
        "        seen.append(round(float(arrays[0][0]), 9))\n"
        "        if server_round == 2: assert seen == [0.0, 2.0, 4.0], seen\n"
        "    start = ndarrays_to_parameters([np.zeros(2)])\n"
        "    strategy = FedAvg(initial_parameters=start, evaluate_fn=evaluate,\n"
        "                      min_available_clients=3)\n"
        "    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=2))\n"
        "app = ServerApp(server_fn=server_fn)\n"
    )
    result = run(folder, nodes=3)
    assert (result.value, result.errors) == (None, 0)


def test_results_do_not_depend_on_the_number_of_workers(make_app) -> None:
    client = """
    import random
    import numpy as np
    @app.train()
    def train(message, context):
        return answer(message, [random.random(), float(np.random.rand())])
    """
    main = """
    import random
    import numpy as np
    return [values(ask(grid)) for _ in range(2)], [random.random(), float(np.random.rand())]
    """
    app = make_app(client, main)
    one, two, other = (
        run(app, nodes=7, workers=workers, seed=seed).value
        for workers, seed in ((1, 5), (3, 5), (3, 6))
    )
    assert one == two
    rounds, servers = one
    assert not set(servers).intersection(other[1])
    drawn = [value for round_ in rounds for pair in round_.values() for value in pair] + servers
    assert len(set(drawn)) == len(drawn) == 30


def test_random_numbers_do_not_depend_on_who_is_free_first(make_app) -> None:
    """Node 0 is slow, so with two workers the second message to node 1 overtakes its second."""
    client = """
    import random
    @app.train()
    def train(message, context):
        time.sleep(0.0 if context.node_config["partition-id"] else 0.2)
        return answer(message, random.random())
    """
    app = make_app(client, "return [r.content['m']['value'] for r in ask(grid, [1000, 1001] * 2)]")
    one, two = (run(app, nodes=2, workers=workers, seed=0).value for workers in (1, 2))
    assert one == two
    assert len(set(one)) == 4


def test_torch_is_seeded_also_where_a_client_imports_it_in_its_function(make_app) -> None:
    """Two workers import it for a first message each; one worker, for its first of two."""
    client = """
    import importlib.util
    @app.train()
    def train(message, context):
        assert importlib.util.find_spec("torch") is not None  # a look, as many libraries take
        import torch
        assert type(torch.__spec__.loader) is importlib.machinery.SourceFileLoader
        return answer(message, torch.rand(()).item())
    """
    app = make_app(client)
    one, two = (run(app, nodes=2, workers=workers, seed=0).value for workers in (1, 2))
    assert one == two
    assert len(set(one.values())) == 2


def test_the_servers_error_comes_as_it_is_and_leaves_nothing_behind(make_app) -> None:
    app = make_app(COUNT, "ask(grid); raise LookupError('the server is wrong')")
    before = (list(sys.path), set(threading.enumerate()))
    with pytest.raises(LookupError, match="the server is wrong"):
        run(app, nodes=2)
    assert "tiny_app.server_app" not in sys.modules
    assert (list(sys.path), set(threading.enumerate())) == before
    assert run(make_app(COUNT), nodes=1).value == {0: 1}


def test_two_apps_with_modules_of_one_name_do_not_meet(make_app, tmp_path: Path) -> None:
    first = make_app(COUNT, "return 'first'")
    moved = tmp_path / "elsewhere"
    first.rename(moved)
    second = make_app(COUNT, "return 'second'")
    assert [run(folder, nodes=1).value for folder in (moved, second, moved)] == [
        "first",
        "second",
        "first",
    ]


def test_modules_that_answer_to_any_name_are_left_alone(make_app, monkeypatch) -> None:
    """As ``torch.ops`` does: ask it for a path and it gives something that is none."""

    class Anything:
        def __getattr__(self, name: str) -> object:
            return object()

    monkeypatch.setitem(sys.modules, "anything", Anything())
    main = "import sys; sys.modules['anything_else'] = sys.modules['anything']; return 1"
    monkeypatch.setitem(sys.modules, "anything_else", None)
    assert run(make_app(COUNT, main), nodes=1).value == 1


def test_a_client_app_that_cannot_be_imported_ends_the_run_with_its_traceback(make_app) -> None:
    app = make_app("import a_module_that_is_not_there")
    with pytest.raises(EngineError, match="No module named 'a_module_that_is_not_there'"):
        run(app, nodes=2)
    with pytest.raises(EngineError, match="expected a ClientApp, got int"):
        run(make_app("app = 3"), nodes=2)


def test_one_run_at_a_time(make_app) -> None:
    main = f"""
    from fedwaggle.engine import run
    run({str(make_app(COUNT, "return 1", name="inner_app"))!r}, nodes=1)
    """
    with pytest.raises(EngineError, match="a run is going on in this process"):
        run(make_app(COUNT, main), nodes=1)


def test_bad_options_are_reported_together(make_app) -> None:
    app = make_app(COUNT)
    with pytest.raises(ConfigError) as caught:
        run(app, nodes=0, workers=0, client_timeout=0.0, gpus=-1, clients_per_gpu=0)
    starts = [line.split(":")[0] for line in caught.value.mistakes]
    assert starts == ["nodes", "workers", "client-timeout", "gpus", "clients-per-gpu"]
    with pytest.raises(ConfigError, match="expected none beside an App"):
        run(read_app(app), config={"x": 1})


def test_isolated_messages_share_no_globals(make_app) -> None:
    """In one process a counter goes 1, 2, 3; isolated, every message finds it at 0."""
    client = """
    calls = []
    @app.train()
    def train(message, context):
        calls.append(1)
        return answer(message, len(calls))
    """
    app = make_app(client, "return [values(ask(grid))[0] for _ in range(3)]")
    assert run(app, nodes=1, workers=1).value == [1, 2, 3]
    assert run(app, nodes=1, workers=1, isolate=True).value == [1, 1, 1]


def test_workers_see_their_gpus_in_turn(make_app) -> None:
    """Two workers, one for each GPU: no client is done before both have begun."""
    client = """
    @app.train()
    def train(message, context):
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "unset")
        seen = [os.path.join(os.path.dirname(__file__), f"seen-{number}") for number in "01"]
        if gpu:
            open(seen[int(gpu)], "w").close()
        while gpu and not all(map(os.path.exists, seen)):
            time.sleep(0.01)
        return Message(RecordDict({"c": ConfigRecord({"gpu": gpu})}), reply_to=message)
    """
    app = make_app(client, 'return sorted({r.content["c"]["gpu"] for r in ask(grid)})')
    assert run(app, nodes=6, gpus=2).value == ["0", "1"]
    assert run(app, nodes=2, gpus=0).value == [""]


def test_more_messages_than_the_pool_has_room_for_leave_in_their_order(make_app) -> None:
    """40,000 at once, where 32,768 have room; the second time, all that wait are taken back."""
    client = """
    count = 0
    @app.train()
    def train(message, context):
        global count
        count += 1
        if message.content["config"]["slow"]:
            time.sleep(0.5)
        return answer(message, count)
    """
    main = """
    replies = [r.content["m"]["value"] for r in ask(grid, slow=False)]
    ask(grid, slow=True, timeout=0.1)
    return replies == list(range(1, 40_001)), values(ask(grid, [1000], slow=False))[0] < 40_100
    """
    began = time.process_time()  # of this process, the server: others have no part in it
    result = run(make_app(client, main), nodes=40_000, workers=1)
    assert result.value == (True, True)
    assert time.process_time() - began < 120.0


def test_nodes_cost_nothing_until_they_are_asked(make_app) -> None:
    main = """
    import resource
    nodes = list(grid.get_node_ids())
    replies = ask(grid, nodes=nodes[::2000])
    assert len(nodes) == 100_000 and len(replies) == 50
    assert [n.name for n in grid.get_nodes()][99_999] == "99999"
    return sorted(values(replies))[-1], len(grid.client_states())
    """
    began = time.process_time()  # of this process, the server: others have no part in it
    result = run(make_app(COUNT, main), nodes=100_000, workers=2)
    assert result.value == (98_000, 50)
    assert time.process_time() - began < 60.0


# Each reply is larger than what a worker may leave behind it unread (8 MiB).
LARGE = """
@app.train()
def train(message, context):
    array = Array("uint8", (10_000_000,), "raw", bytes(10_000_000))
    return Message(RecordDict({"a": ArrayRecord({"a": array})}), reply_to=message)
"""


def test_large_replies_wait_with_the_workers(make_app) -> None:
    """1 worker, 4 replies of 10 MB: with none pulled, it has begun 2, and none is the server's.

    Each that is pulled is whole, and lets the worker begin one more. A wait for room is no fault
    of the client: it is over its time of 0.5 s meanwhile, and is not ended.
    """
    main = """
    ids = list(grid.push_messages([Message(RecordDict(), n, "train") for n in grid.get_node_ids()]))
    begun, sizes = [], []
    while answered := grid.wait_for_replies(set(ids)):
        time.sleep(0.8)
        begun.append(grid._pool._board.taken(0))
        sizes.append([len(grid._traffic.ready[id].message.content["a"]) for id in answered])
        reply, = grid.pull_messages(answered)
        sizes.append(len(reply.content["a"]["a"].data))
        ids.remove(reply.metadata.reply_to_message_id)
        if not ids:
            return begun, sizes
    """
    result = run(make_app(LARGE, main), nodes=4, workers=1, client_timeout=0.5)
    assert result.value == ([2, 3, 4, 4], [[0], 10_000_000] * 4)
    assert result.errors == 0


def test_an_isolated_client_stays_until_its_large_reply_is_read(make_app) -> None:
    """1 worker at a time, 3 replies of 10 MB: the second begins when the first is pulled."""
    main = """
    ids = list(grid.push_messages([Message(RecordDict(), n, "train") for n in grid.get_node_ids()]))
    answered = grid.wait_for_replies(ids)
    time.sleep(0.5)
    begun = grid._pool._board.taken(0)
    replies = grid.pull_messages(answered)
    while len(replies) < 3:
        replies += grid.pull_messages(grid.wait_for_replies(ids))
    return begun, [len(reply.content["a"]["a"].data) for reply in replies]
    """
    result = run(make_app(LARGE, main), nodes=3, workers=1, isolate=True)
    assert result.value == (1, [10_000_000] * 3)


@pytest.mark.parametrize("how", ["polls", "waits"])
def test_replies_that_nobody_asks_for_hold_nobody_back(make_app, how) -> None:
    """Of 4 replies of 10 MB, the last is asked for first; the others have kept."""
    main = """
    ids = list(grid.push_messages([Message(RecordDict(), n, "train") for n in grid.get_node_ids()]))
    last, others = ids[-1:], ids[:-1]
    if context.run_config["how"] == "waits":
        grid.wait_for_replies(last)
    while not (replies := grid.pull_messages(last)):
        time.sleep(0.01)
    replies += grid.pull_messages(others)
    return [len(reply.content["a"]["a"].data) for reply in replies]
    """
    app = make_app(LARGE, main, config=f'how = "{how}"')
    assert run(app, nodes=4, workers=1).value == [10_000_000] * 4


def test_what_was_given_up_is_not_kept(make_app) -> None:
    """Of 4 messages to 1 worker, 1 is answered and 1 begun; all are given up, and 2 are trained."""
    main = """
    ids = list(grid.push_messages([Message(RecordDict(), n, "train") for n in grid.get_node_ids()]))
    grid.wait_for_replies(ids)
    while grid._pool._board.taken(0) < 2:
        time.sleep(0.01)
    grid.give_up(ids)
    reply, = grid.send_and_receive([Message(RecordDict(), 1000, "train")])
    return len(grid._traffic.ready), len(grid._traffic.open), grid._pool._board.taken(0)
    """
    assert run(make_app(LARGE, main), nodes=4, workers=1).value == (0, 0, 3)
