"""A client runs the server's code, and ends in time: also one that never returns to Python."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from fedwaggle.errors import ConfigError
from fedwaggle.site import safeguards
from fedwaggle.site.code import code_hash, package_folder
from fedwaggle.site.deadline import deadline

PACKAGE = "fedwaggle.site"
CONTEXT = Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={})


def call(**config: float | str) -> Message:
    """Send a message through the mod to a client app that returns what it was sent."""
    content = RecordDict({"config": ConfigRecord(dict(config))})
    message = Message(content, dst_node_id=2, message_type="train")
    return safeguards(PACKAGE)(message, CONTEXT, lambda msg, _: Message(content, reply_to=msg))


def test_the_servers_own_code_passes() -> None:
    assert not call(**{"app-code": code_hash(package_folder(PACKAGE))}).has_error()


def test_a_server_that_names_no_code_is_taken_as_it_is() -> None:
    assert not call(lr=0.1).has_error()


def test_other_code_is_refused_with_both_hashes() -> None:
    own = code_hash(package_folder(PACKAGE))
    with pytest.raises(ConfigError, match=rf"here \({own[:12]}\) is not the server's \(abc\)"):
        call(**{"app-code": "abc"})


def test_a_package_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="expected the app's package"):
        safeguards(None)


def test_a_block_that_waits_is_interrupted_with_a_reason() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="deadline of 0 s passed"), deadline(0.2):
        time.sleep(60)
    assert time.monotonic() - began < 30


def test_a_block_that_ends_in_time_is_left_alone() -> None:
    with deadline(0.2):
        pass
    time.sleep(0.3)  # no alarm is left behind
    with deadline(0):
        pass


SWALLOWS = """
import time
from fedwaggle.site import deadline as module
module._LAST_SECONDS = 0.5
with module.deadline(0.2):
    while True:
        try:
            time.sleep(60)
        except TimeoutError:
            print("caught", flush=True)
"""


def test_a_client_that_swallows_the_interrupt_is_ended_with_its_stacks() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWS], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "caught\n")
    assert "Timeout" in done.stderr
    assert 'File "<string>", line 8' in done.stderr


def test_the_hash_covers_names_contents_and_sub_packages(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    hashes = set()
    for name, text in (("a.py", "1"), ("a.py", "2"), ("b.py", "2"), ("inner/c.py", "2")):
        (tmp_path / name).write_text(text)
        hashes.add(code_hash(tmp_path))
    assert len(hashes) == 4


@pytest.mark.parametrize(("size", "passes"), [(262_144, True), (262_145, False)])
def test_a_record_that_would_burden_the_superlink_does_not_leave(size: int, passes: bool) -> None:
    """Four times 64 KiB, over a network; a simulation has no network."""
    blob = RecordDict({"blob": ConfigRecord({"bytes": bytes(size)})})
    asked = RecordDict({"config": ConfigRecord({"client-deadline": 60.0})})
    message = Message(asked, dst_node_id=2, message_type="train")
    mod = safeguards(PACKAGE)
    if passes:
        assert not mod(message, CONTEXT, lambda msg, _: Message(blob, reply_to=msg)).has_error()
    else:
        with pytest.raises(ConfigError, match="expected at most 262144 bytes"):
            mod(message, CONTEXT, lambda msg, _: Message(blob, reply_to=msg))
