"""The pool without processes: the same answers as with workers, in the server's own process."""

from __future__ import annotations

import os

import pytest

from fedwaggle.engine import run
from fedwaggle.errors import ConfigError

# Each client draws a number, counts its messages in its state, and spoils what it was sent.
CLIENT = """
import random
import numpy as np

@app.train()
def train(message, context):
    count = context.state["n"]["n"] + 1 if "n" in context.state else 1
    context.state["n"] = MetricRecord({"n": count})
    part = context.node_config["partition-id"]
    drawn = [random.random(), float(np.random.rand())]
    values = [float(part), float(count), *drawn, *message.content["c"]["list"]]
    message.content["c"]["list"].append(99.0)
    message.content["a"]["w"].data = b"spoilt"
    os.chdir("/")
    return answer(message, values)
"""
SERVER = """
import random
import numpy as np
folder = os.getcwd()
first, rounds = random.random(), []
for _ in range(3):
    arrays = ArrayRecord({"w": Array(np.arange(3.0))})
    content = RecordDict({"c": ConfigRecord({"list": [1.0, 2.0]}), "a": arrays})
    messages = [Message(content, node, "train") for node in grid.get_node_ids()]
    replies = list(grid.send_and_receive(messages))
    rounds.append(sorted(reply.content["m"]["value"] for reply in replies))
    assert content["c"]["list"] == [1.0, 2.0] and arrays["w"].numpy().tolist() == [0.0, 1.0, 2.0]
assert os.getcwd() == folder
return first, rounds, random.random(), sorted(grid.client_states().items())
"""


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": 2, "pool": "processes"}], ids=str)
def test_the_answers_are_those_of_worker_processes(make_app, options: dict) -> None:
    """Numbers of clients and of the server, states, and messages that clients spoil."""
    app = make_app(CLIENT, "import os\n" + SERVER)
    here = run(app, nodes=3, seed=7, **options).value
    assert here == run(app, nodes=3, workers=2, seed=7).value
    assert len({values[2] for values in here[1][0]}) == 3
    assert here[1][2][0][:2] == [0, 3]


def test_clients_run_in_the_process_and_the_thread_of_the_server(make_app) -> None:
    client = """
    import threading

    @app.train()
    def train(message, context):
        return answer(message, [os.getpid(), threading.get_ident()])
    """
    main = """
    import threading
    replies = ask(grid)
    return threading.get_ident(), [reply.content["m"]["value"] for reply in replies]
    """
    thread, values = run(make_app(client, main), nodes=2, workers=0).value
    assert values == [[os.getpid(), thread]] * 2


def test_what_a_client_raises_is_its_error_and_the_run_goes_on(make_app, capfd) -> None:
    client = """
    @app.train()
    def train(message, context):
        part = context.node_config["partition-id"]
        if part == 0: raise ValueError("boom")
        if part == 1: sys.exit("no more")
        if part == 2: return "words"
        if part == 3: context.run_config["lr"] = 2
        return answer(message, part)
    """
    main = """
    replies = {r.metadata.src_node_id - 1000: r for r in ask(grid)}
    return {n: r.error.reason if r.has_error() else r.content["m"]["value"]
            for n, r in sorted(replies.items())}
    """
    found = run(make_app(client, main), nodes=5, workers=0).value
    assert "boom" in found[0]
    assert "SystemExit: no more" in found[1]
    assert "expected the ClientApp to return a Message" in found[2]
    assert "run_config" in found[3]
    assert found[4] == 4
    assert "[client 0] ValueError: boom" in capfd.readouterr().err


def test_what_needs_processes_is_refused(make_app) -> None:
    app = make_app("")
    for option in ({"client_timeout": 1.0}, {"isolate": True}, {"gpus": 1}):
        with pytest.raises(ConfigError, match="workers: 0 runs clients in the server's process"):
            run(app, nodes=1, workers=0, **option)


DRAWING = """
import random
import numpy as np
{seeds}

@app.train()
def train(message, context):
    return answer(message, [random.random(), float(np.random.rand())])
"""
DRAWN = """
import random
import numpy as np
own = [random.random(), float(np.random.rand())]
return own, [r.content["m"]["value"] for _ in range(2) for r in ask(grid)]
"""


def test_without_a_seed_each_client_draws_other_numbers_than_the_server(make_app) -> None:
    """2 rounds of 3 clients: with the server's own, 7 draws of each generator, all different."""
    own, drawn = run(make_app(DRAWING.format(seeds=""), DRAWN), nodes=3, workers=0).value
    for numbers in zip(own, *drawn, strict=True):
        assert len(set(numbers)) == 7


def test_what_an_app_seeds_at_import_its_clients_begin_with(make_app) -> None:
    """They go on from there, from message to message, and a repeat draws the same."""
    app = make_app(DRAWING.format(seeds="random.seed(1); np.random.seed(1)"), DRAWN)
    (_, first), (_, again) = (run(app, nodes=3, workers=0).value for _ in range(2))
    assert first == again
    assert len({tuple(numbers) for numbers in first}) == 6
    assert first == run(app, nodes=3, workers=1).value[1]
