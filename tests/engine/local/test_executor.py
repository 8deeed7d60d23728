"""The pool of the standard library's processes: the same answers, wherever Python runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import running
from fedwaggle.engine import run
from fedwaggle.errors import ConfigError, EngineError
from waiting import PATIENCE


def test_what_a_client_raises_is_its_error(make_app, capfd) -> None:
    client = """
    @app.train()
    def train(message, context):
        part = context.node_config["partition-id"]
        if part == 0: raise ValueError("boom")
        if part == 1: sys.exit("no more")
        return answer(message, part)
    """
    main = """
    replies = {r.metadata.src_node_id - 1000: r for r in ask(grid)}
    return [r.error.reason if r.has_error() else r.content["m"]["value"]
            for _, r in sorted(replies.items())]
    """
    first, second, third = run(make_app(client, main), nodes=3, pool="processes").value
    assert first == "<class 'ValueError'>:<'boom'>"
    assert "no more" in second
    assert third == 2
    assert "[client 0] ValueError: boom" in capfd.readouterr().err


def test_a_process_that_dies_costs_its_message_one_more_try(make_app, tmp_path) -> None:
    """The first to answer kills its process; the executor is made anew, and all answer."""
    client = f"""
    import os, signal, pathlib
    mark = pathlib.Path({str(tmp_path)!r}) / "died"

    @app.train()
    def train(message, context):
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return answer(message, context.node_config["partition-id"])
    """
    app = make_app(client, "return values(ask(grid))")
    assert run(app, nodes=3, workers=1, pool="processes").value == {0: 0, 1: 1, 2: 2}


def test_an_app_that_cannot_be_imported_is_an_error_with_its_reason(make_app) -> None:
    app = make_app("raise ValueError('no data here')", "return values(ask(grid))")
    with pytest.raises(EngineError, match=r"cannot be imported.*no data here"):
        run(app, nodes=2, workers=1, pool="processes")


def test_what_it_cannot_do_is_refused_in_words(make_app) -> None:
    app = make_app("", "")
    for options in ({"client_timeout": 1.0}, {"isolate": True}, {"gpus": 1}, {"workers": 0}):
        with pytest.raises(ConfigError, match="pool: processes has no client-timeout, no isolate"):
            run(app, nodes=2, pool="processes", **options)


def test_it_uses_nothing_that_only_linux_has(make_app) -> None:
    """In a process without ``os.fork`` and ``memfd_create``, into which no part of ours leads."""
    client = "@app.train()\ndef train(message, context):\n    return answer(message, 1)"
    app = make_app(client, "return values(ask(grid))")
    code = (
        "import os, sys\n"
        "from fedwaggle.engine import run\n"
        "if __name__ == '__main__':\n"
        "    del os.fork, os.memfd_create, os.sched_getaffinity\n"
        f"    print(run({str(app)!r}, nodes=2, workers=1, pool='processes').value)\n"
        "    print(*[name for name in sys.modules if 'local.linux' in name])\n"
    )
    script = Path(app).parent / "script.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout == "{0: 1, 1: 1}\n\n", done.stderr


def test_the_quickstart_ends_with_the_same_model(tmp_path: Path) -> None:
    settings = {"num-server-rounds": 2, "local-epochs": 1}
    hashes = {
        pool: running.final_hash(
            running.run(tmp_path / pool, "--pool", pool, settings=settings, nodes=4)
        )
        for pool in ("linux", "processes")
    }
    assert hashes["linux"] == hashes["processes"]
