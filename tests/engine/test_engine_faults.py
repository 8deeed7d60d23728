"""A client that dies or hangs costs one error reply, and nobody else notices."""

from __future__ import annotations

import pytest

from fedwaggle.engine import run
from fedwaggle.errors import EngineError

CLIENT = """
@app.train()
def train(message, context):
    number = context.state["n"]["n"] + 1 if "n" in context.state else 1
    context.state["n"] = MetricRecord({"n": number})
    do = message.content["config"]["do"] if context.node_config["partition-id"] == 1 else ""
    if do == "exit": os._exit(0)
    if do == "leave": sys.exit(3)
    if do == "kill": os.kill(os.getpid(), signal.SIGKILL)
    if do == "segfault": ctypes.string_at(0)
    if do == "hang": time.sleep(600)
    if do == "memory": os.kill(os.getpid(), signal.SIGBUS)
    if do == "zygote": os.kill(os.getppid(), signal.SIGKILL); time.sleep(600)
    return answer(message, number)
"""

MAIN = """
before = values(ask(grid, do=""))
replies = ask(grid, do=context.run_config["do"])
reason, = [r.error.reason for r in replies if r.has_error()]
return before, values(replies), values(ask(grid, do="")), reason
"""


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        ("exit", "its process ended with exit code 0"),
        ("leave", "its process ended with exit code 3"),
        ("kill", "its process was ended by SIGKILL"),
        ("segfault", "its process was ended by SIGSEGV"),
        ("memory", "its process was ended by SIGBUS"),
        ("hang", "it did not answer within client-timeout (0.5 s)"),
        ("zygote", "its process was ended"),
    ],
)
def test_a_worker_that_dies_costs_the_message_it_had(make_app, do: str, reason: str) -> None:
    """Of 4 nodes, node 1 goes wrong in round 2: all others count 1, 2, 3 and it counts 1, 8, 2."""
    app = make_app(CLIENT, MAIN, config=f'do = "{do}"')
    result = run(app, nodes=4, workers=2, client_timeout=0.5 if do == "hang" else None)
    good = {0: 2, 2: 2, 3: 2}
    expected = "ClientApp stopped responding: " + reason + "."
    assert result.value == (
        {0: 1, 1: 1, 2: 1, 3: 1},
        {**good, 1: 8},
        {0: 3, 1: 2, 2: 3, 3: 3},
        expected,
    )
    assert (result.messages, result.errors) == (12, 1)


def test_many_deaths_in_a_row_lose_no_message(make_app) -> None:
    """One worker, 12 messages, every third kills it: 4 errors, 8 answers, none missing."""
    client = """
    @app.train()
    def train(message, context):
        if int(message.metadata.message_id) % 3 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer(message, 1)
    """
    main = """
    answers = sorted(values(ask(grid)).values())
    return answers, grid._pool._board.busy(range(1))
    """
    app = make_app(client, main)
    assert run(app, nodes=12, workers=1).value == ([1] * 8 + [8] * 4, [])


def test_a_worker_that_is_killed_while_it_waits_is_replaced(make_app) -> None:
    client = """
    @app.train()
    def train(message, context):
        return answer(message, os.getpid())
    """
    main = """
    import os, signal
    first = values(ask(grid))[0]
    os.kill(first, signal.SIGKILL)
    second = values(ask(grid))[0]
    return first != second
    """
    assert run(make_app(client, main), nodes=1, workers=1).value is True


def test_what_a_dead_client_started_does_not_outlive_it(make_app) -> None:
    """The client starts a process and is killed: the process is gone by the next answer."""
    client = """
    import subprocess
    @app.train()
    def train(message, context):
        if message.content["config"]["do"] == "look":
            return answer(message, int(os.path.exists(f"/proc/{open(PATH).read()}/cwd")))
        with open(PATH, "w") as file:
            file.write(str(subprocess.Popen(["sleep", "600"]).pid))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    main = """
    first = values(ask(grid, do="start"))
    time.sleep(0.2)
    return first, values(ask(grid, do="look"))
    """
    app = make_app(client, main)
    file = app / "tiny_app" / "client_app.py"
    file.write_text(f"PATH = {str(app / 'pid')!r}\n" + file.read_text())
    assert run(app, nodes=1).value == ({0: 8}, {0: 0})


def test_threads_that_the_import_starts_make_workers_import_for_themselves(make_app) -> None:
    client = """
    import threading
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    imported_in = os.getpid()
    @app.train()
    def train(message, context):
        return answer(message, int(imported_in == os.getpid()))
    """
    assert run(make_app(client), nodes=2, workers=1).value == {0: 1, 1: 1}


def test_workers_that_cannot_live_end_the_run(make_app) -> None:
    """Each worker imports by itself (a GPU is asked for), and the import kills it."""
    with pytest.raises(EngineError, match="workers end before they take a message"):
        run(make_app("os.kill(os.getpid(), signal.SIGKILL)"), nodes=1, gpus=1)


def test_an_import_that_kills_the_zygote_ends_the_run(make_app) -> None:
    with pytest.raises(EngineError, match="the process that starts workers keeps dying"):
        run(make_app("os.kill(os.getpid(), signal.SIGKILL)"), nodes=1)
