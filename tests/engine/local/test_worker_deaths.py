"""A worker that is killed changes nothing: its message is sent again, once."""

from __future__ import annotations

import pytest

from fedwaggle.engine import run

# Counts its messages, draws a number that it does not seed, and is killed where it is asked to be:
# each time, or the first time that it comes to this.
CLIENT = """
import random
from pathlib import Path

def first_time(name):
    try:
        (Path(__file__).parent / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

@app.train()
def train(message, context):
    number = context.state["n"]["n"] + 1 if "n" in context.state else 1
    context.state["n"] = MetricRecord({"n": number})
    do = message.content["config"]["do"]
    if do in ("worker", "server") and context.node_config["partition-id"] == 1 and first_time(do):
        time.sleep(0.2)
        os.kill(os.getpid() if do == "worker" else os.getppid(), signal.SIGKILL)
        time.sleep(600)
    if do in ("server", "slow"): time.sleep(0.6)  # at work when the fork server is killed
    return answer(message, [float(number), random.random()])
"""


def test_a_killed_worker_changes_nothing(make_app, caplog: pytest.LogCaptureFixture) -> None:
    """Node 1's worker is killed in round 2, the fork server in round 3: the answers stay."""
    main = """
    plan = ["", "worker", "server", ""] if context.run_config["kill"] else [""] * 4
    return [values(ask(grid, do=do)) for do in plan]
    """
    app = make_app(CLIENT, main, config="kill = true")
    undisturbed = run(app, nodes=4, workers=2, seed=7, config={"kill": False})
    disturbed = run(app, nodes=4, workers=2, seed=7, verbose=True)
    assert disturbed.value == undisturbed.value
    assert (disturbed.messages, disturbed.errors) == (16, 0)
    assert "the message to client 1 is sent again: its process was ended by SIGKILL" in caplog.text


def test_a_killed_worker_changes_nothing_where_messages_are_isolated(make_app) -> None:
    app = make_app(CLIENT, 'return values(ask(grid, do="worker"))')
    result = run(app, nodes=3, workers=2, isolate=True)
    assert {client: number for client, (number, _) in result.value.items()} == {0: 1, 1: 1, 2: 1}


def test_workers_may_be_killed_while_they_wait(make_app) -> None:
    """Six in a row, none of which had a message: the seventh answers."""
    client = """
    @app.train()
    def train(message, context):
        return answer(message, os.getppid())
    """
    main = """
    import os, signal
    import psutil
    fork_server, = values(ask(grid)).values()
    killed = set()
    while len(killed) < 6:
        for worker in psutil.Process(fork_server).children():
            if worker.pid not in killed and grid._pool._board.arrivals(0) > len(killed):
                worker.kill()
                killed.add(worker.pid)
        time.sleep(0.01)
    return values(ask(grid)) == {0: fork_server}
    """
    assert run(make_app(client, main), nodes=1, workers=1).value is True


def test_a_client_that_kills_the_fork_server_each_time_does_not_end_the_run(make_app) -> None:
    """Twice in each of 2 rounds: it is the one that counts as crashed, and the others answer."""
    client = """
    @app.train()
    def train(message, context):
        if context.node_config["partition-id"] == 1:
            time.sleep(0.5)  # the others are answered by then
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(600)
        return answer(message, 0)
    """
    app = make_app(client, "return [values(ask(grid)) for _ in range(2)]")
    assert run(app, nodes=3, workers=2).value == [{0: 0, 1: 8, 2: 0}] * 2


# Notes each call in a file, and sleeps while it is asked to.
NOTED = """
from pathlib import Path
@app.train()
def train(message, context):
    with (Path(__file__).parent / "calls").open("a") as calls:
        calls.write(f"{os.getpid()}\\n")
    if message.content["config"]["do"] == "sleep": time.sleep(600)
    return answer(message, 0)
"""


@pytest.mark.parametrize("how", ["given up", "expired"])
def test_what_nobody_waits_for_any_more_is_not_sent_again(make_app, how: str) -> None:
    """The client begins, its message's time is up, its worker is killed: it is called no more."""
    main = """
    import os, signal
    from pathlib import Path
    grid.get_node_ids()
    calls = Path(context.run_config["folder"], "tiny_app", "calls")
    content = RecordDict({"config": ConfigRecord({"do": "sleep"})})
    ttl = 1.0 if context.run_config["how"] == "expired" else None
    timeout = 1.0 if ttl is None else None
    late = list(grid.send_and_receive([Message(content, 1000, "train", ttl=ttl)], timeout=timeout))
    first, = calls.read_text().split()
    os.kill(int(first), signal.SIGKILL)
    after = values(ask(grid, do=""))
    return [reply.error.code for reply in late], after, len(calls.read_text().split())
    """
    app = make_app(NOTED, main, config=f'how = "{how}"\nfolder = ""')
    result = run(app, nodes=1, workers=1, config={"folder": str(app)})
    assert result.value == ([3] if how == "expired" else [], {0: 0}, 2)
