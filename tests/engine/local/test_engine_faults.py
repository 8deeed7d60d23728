"""A client that dies or hangs costs one error reply, and nobody else notices."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from fedwaggle.engine import run
from fedwaggle.errors import EngineError
from waiting import PATIENCE, wait_for_end

CLIENT = """
@app.train()
def train(message, context):
    number = context.state["n"]["n"] + 1 if "n" in context.state else 1
    context.state["n"] = MetricRecord({"n": number})
    do = message.content["config"]["do"] if context.node_config["partition-id"] == 1 else ""
    if do == "exit": os._exit(0)
    if do == "leave": sys.exit(3)
    if do == "leave well": sys.exit()
    if do == "give a reason": sys.exit("no data at this site")
    if do == "kill": os.kill(os.getpid(), signal.SIGKILL)
    if do == "segfault": ctypes.string_at(0)
    if do == "hang": time.sleep(600)
    if do == "memory": os.kill(os.getpid(), signal.SIGBUS)
    done = [os.path.join(os.path.dirname(__file__), f"done-{n}-{number}") for n in range(4)]
    if do == "fork server":
        while not all(map(os.path.exists, done[:1] + done[2:])): time.sleep(0.01)
        time.sleep(0.3)  # the others are answered by then: they would be lost with it
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    open(done[context.node_config["partition-id"]], "w").close()
    return answer(message, number)
"""

# What kills its worker each time is sent to a second one, and then counts as crashed.
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
        ("leave well", "its process ended with exit code 0"),
        ("give a reason", "its process ended with exit code 1: no data at this site"),
        ("kill", "its process was ended by SIGKILL, for the second time"),
        ("segfault", "its process was ended by SIGSEGV, for the second time"),
        ("memory", "its process was ended by SIGBUS, for the second time"),
        ("hang", "it did not answer within client-timeout (2 s)"),
        ("fork server", "its process was ended, for the second time"),
    ],
)
def test_a_worker_that_dies_costs_the_message_it_had(make_app, do: str, reason: str) -> None:
    """Of 4 nodes, node 1 goes wrong in round 2: all others count 1, 2, 3 and it counts 1, 8, 2."""
    app = make_app(CLIENT, MAIN, config=f'do = "{do}"')
    result = run(app, nodes=4, workers=2, client_timeout=2.0 if do == "hang" else None)
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
    while grid._pool._board.busy(range(1)):  # the last one's slot is cleared in a moment
        time.sleep(0.01)
    return answers
    """
    app = make_app(client, main)
    assert run(app, nodes=12, workers=1).value == [1] * 8 + [8] * 4


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
    """The client starts a process and is killed: the process, which would take 600 s, ends."""
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
    first, is_there = values(ask(grid, do="start")), {0: 1}
    for _ in range(600):
        if is_there == {0: 1}:
            time.sleep(0.1)
            is_there = values(ask(grid, do="look"))
    return first, is_there
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


def test_an_import_that_kills_the_fork_server_ends_the_run(make_app) -> None:
    with pytest.raises(EngineError, match="the process that starts workers keeps dying"):
        run(make_app("os.kill(os.getpid(), signal.SIGKILL)"), nodes=1)


# A client that says who started its worker, and may hang or leave a process behind before.
FORK_SERVER = """
import subprocess
@app.train()
def train(message, context):
    do = message.content["config"]["do"]
    if do == "hang": time.sleep(600)
    if do == "start": return answer(message, [os.getppid(), subprocess.Popen(["sleep", "600"]).pid])
    return answer(message, os.getppid())
"""


def test_a_fork_server_outlives_the_thread_that_started_it(make_app) -> None:
    """Each round has a thread of its own; the fork server is killed once, so there are two."""
    main = """
    import os, psutil, signal
    from concurrent.futures import ThreadPoolExecutor
    def fork_server():
        with ThreadPoolExecutor(1) as thread:
            pid = thread.submit(lambda: values(ask(grid, do=""))[0]).result()
        time.sleep(0.2)
        return pid
    first = fork_server()
    workers = psutil.Process(first).children()
    os.kill(first, signal.SIGKILL)
    psutil.wait_procs(workers)
    return first, [fork_server() for _ in range(3)]
    """
    first, later = run(make_app(FORK_SERVER, main), nodes=1, workers=1).value
    assert len(set(later)) == 1
    assert first not in later


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP"])
def test_a_fork_server_may_die_while_a_client_is_overdue(make_app, how: str) -> None:
    """Before it could be told to end the client, or after it was and without having heard it."""
    main = """
    import os, signal
    from contextlib import suppress
    fork_server = values(ask(grid, do=""))[0]
    content = RecordDict({"config": ConfigRecord({"do": "hang"})})
    ids = list(grid.push_messages([Message(content, 1000, "train")]))
    time.sleep(0.2)
    os.kill(fork_server, signal.Signals[context.run_config["how"]])
    if context.run_config["how"] == "SIGSTOP":
        time.sleep(2.2)  # now the client is overdue
        with suppress(ProcessLookupError):
            os.kill(fork_server, signal.SIGKILL)
    grid.wait_for_replies(ids, 240.0)
    return values(grid.pull_messages(ids)), values(ask(grid, do=""))[0] != fork_server
    """
    app = make_app(FORK_SERVER, main, config=f'how = "{how}"')
    assert run(app, nodes=1, workers=1, client_timeout=2.0).value == ({0: 8}, True)


@pytest.mark.parametrize("is_heard", [True, False])
def test_what_clients_had_started_does_not_outlive_a_fork_server(make_app, is_heard: bool) -> None:
    """It is killed, with its workers; the run goes on, or ends before it heard of it."""
    main = """
    import os, signal
    fork_server, started = values(ask(grid, do="start"))[0]
    os.kill(fork_server, signal.SIGKILL)
    if context.run_config["is-heard"]:
        time.sleep(0.2)
        ask(grid, do="")
    return started
    """
    app = make_app(FORK_SERVER, main, config=f"is-heard = {str(is_heard).lower()}")
    started = run(app, nodes=1, workers=1).value
    wait_for_end([started])


def test_the_end_of_a_fork_server_is_heard_although_a_client_left_a_copy_of_itself(
    make_app,
) -> None:
    """Each worker imports by itself, and so inherits what its fork server lets it inherit."""
    client = """
    import threading
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    @app.train()
    def train(message, context):
        if message.content["config"]["do"]:
            if os.fork() == 0: time.sleep(600); os._exit(0)
            os.kill(os.getppid(), signal.SIGKILL); time.sleep(600)
        return answer(message, 1)
    """
    main = """
    began = time.monotonic()
    return values(ask(grid, do="kill")), time.monotonic() - began < 240.0
    """
    assert run(make_app(client, main), nodes=1, workers=1).value == ({0: 8}, True)


def test_more_large_replies_may_wait_than_files_may_be_open(make_app) -> None:
    """200 replies of 40 kB, each a file in memory, while the server is busy; it may open 160.

    Node 0 dies; one pull returns all 200 answers.
    """
    client = """
    @app.train()
    def train(message, context):
        if context.node_config["partition-id"] == 0: os._exit(1)
        content = RecordDict({"c": ConfigRecord({"data": bytes(40_000)})})
        return Message(content, reply_to=message)
    """
    main = """
    ids = list(grid.push_messages([Message(RecordDict(), n, "train") for n in grid.get_node_ids()]))
    board = grid._pool._board
    while board.taken(0) + board.taken(1) < 200 or board.busy(range(2)):
        time.sleep(0.1)
    replies = list(grid.pull_messages(ids))
    print(len(replies), sum(reply.has_error() for reply in replies))
    """
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160));"
        "from fedwaggle.engine import run;"
        f"run({str(make_app(client, main))!r}, nodes=200, workers=2)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (ended.stdout, ended.returncode) == ("200 1\n", 0), ended.stderr


def test_a_process_with_many_open_files_may_run_apps(make_app) -> None:
    """1,100 of them: ``select`` could not go beyond 1,023."""
    client = "@app.train()\ndef train(message, context):\n    return answer(message, 1)"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2_000), hard))
    held = []
    try:
        held += [os.open(os.devnull, os.O_RDONLY) for _ in range(1_100)]
        assert run(make_app(client), nodes=2, workers=1).value == {0: 1, 1: 1}
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
