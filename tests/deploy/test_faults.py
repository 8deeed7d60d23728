"""Faults of a real federation: processes killed, hung and cut off; what it costs, and the way back.

Each test has a federation of its own. The seconds that each fault costs are printed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import running
from federations import HOSTILE, has_nginx, loopback, processes_of, submit, submitted, wait_for
from fedwaggle.runs.events import ClientQuarantined, ClientUpdated, RoundFinished, RoundStarted

pytestmark = [pytest.mark.slow]

SITES = ("0", "1", "2")
SETTINGS = {
    "num-server-rounds": 4,
    "local-epochs": 1,
    "min-available-nodes": 3,
    "fraction-train": 1.0,
    "fraction-evaluate": 0.0,
}


@contextmanager
def federation_in(folder: Path) -> Iterator[Any]:
    with loopback.Loopback(folder, SITES, has_proxy=False) as federation:
        yield federation


def client_apps(federation: Any) -> list[psutil.Process]:
    """Return the processes in which the client of site 2 runs."""
    return processes_of(federation.process("site-2"), "flwr-clientapp")


def at_work(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that have taken their message: torch is imported by the app."""
    return [process for process in processes if process.memory_info().rss > 250e6]


def rounds_done(federation: Any) -> int:
    """Return how many rounds the last run has finished."""
    folders = sorted(federation.outputs.glob("*/events.jsonl"))
    if not folders:
        return 0
    return folders[-1].read_text().count('"event":"round-finished"') - 1


def quarantined(run: Path) -> list[tuple[int, str, str]]:
    events = running.story(run)
    return [(e.round, e.client, e.code) for e in events if isinstance(e, ClientQuarantined)]


def missing(run: Path) -> list[tuple[int, str]]:
    rounds = [e for e in running.story(run) if isinstance(e, RoundFinished)]
    return [(e.round, name) for e in rounds for name in e.missing]


def round_seconds(run: Path) -> list[float]:
    return [round(e.seconds, 1) for e in running.story(run) if isinstance(e, RoundFinished)]


@pytest.fixture
def expected(tmp_path: Path) -> str:
    """Return the hash of the undisturbed run's model."""
    return running.final_hash(running.run(tmp_path / "local", settings=SETTINGS, nodes=3))


def test_after_the_server_app_is_killed_a_resumed_run_ends_as_undisturbed(
    tmp_path: Path, expected: str
) -> None:
    """SIGKILL in the third round; ``--resume latest`` with a new run id of Flower's."""
    with federation_in(tmp_path / "federation") as federation:
        with submitted(federation, running.QUICKSTART, settings=SETTINGS) as run:
            wait_for(lambda: rounds_done(federation) >= 2)
            for process in processes_of(federation.process("superexec"), "flwr-serverapp"):
                process.kill()
            killed = time.monotonic()
            output, _ = run.communicate(timeout=300)
            print(f"server app: the command noticed after {time.monotonic() - killed:.0f} s")
        assert run.returncode == 1, output[-3000:]
        assert "--engine superlink loopback --resume latest" in output
        began = time.monotonic()
        done = submit(federation, running.QUICKSTART, "--resume", "latest", settings=SETTINGS)
        print(f"server app: the resumed run took {time.monotonic() - began:.0f} s")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert running.final_hash(running.latest(federation.outputs)) == expected


def test_a_run_survives_its_superlink(tmp_path: Path, expected: str) -> None:
    """SIGKILL in the third round, and a new start on the same database, as systemd does it."""
    with federation_in(tmp_path / "federation") as federation:
        with submitted(federation, running.QUICKSTART, settings=SETTINGS) as run:
            wait_for(lambda: rounds_done(federation) >= 2)
            before = rounds_done(federation)
            federation.send("superlink", signal.SIGKILL)
            federation.start("superlink", [loopback.HERE / "superlink.sh"])
            killed = time.monotonic()
            wait_for(lambda: rounds_done(federation) > before)
            print(f"superlink: the next round ended {time.monotonic() - killed:.0f} s later")
            output, _ = run.communicate(timeout=300)
        assert run.returncode == 0, output[-3000:]
        assert running.final_hash(running.latest(federation.outputs)) == expected


def test_a_client_that_hangs_ends_itself_and_serves_the_next_round(tmp_path: Path) -> None:
    settings = {"num-server-rounds": 2, "attack": "hang", "round-timeout": 30}
    with federation_in(tmp_path / "federation") as federation:
        done = submit(federation, HOSTILE, settings=settings)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        run = running.latest(federation.outputs)
        assert quarantined(run) == [(1, "2", "client-raised"), (2, "2", "client-raised")]
        assert "deadline of 20 s passed" in (run / "events.jsonl").read_text()
        print(f"hang: rounds of {round_seconds(run)[1:]} s")
        settings |= {"attack": "none", "num-server-rounds": 1}
        assert submit(federation, HOSTILE, settings=settings).returncode == 0
        assert quarantined(running.latest(federation.outputs)) == []


def test_a_client_process_that_is_killed_changes_nothing(tmp_path: Path, expected: str) -> None:
    """SIGKILL in the second round: its node is asked again."""
    with federation_in(tmp_path / "federation") as federation:
        with submitted(federation, running.QUICKSTART, settings=SETTINGS) as run:
            wait_for(lambda: rounds_done(federation) >= 1)
            wait_for(lambda: not client_apps(federation))  # of the first round
            (client,) = wait_for(lambda: at_work(client_apps(federation)))
            client.kill()
            output, _ = run.communicate(timeout=400)
        assert run.returncode == 0, output[-3000:]
        folder = running.latest(federation.outputs)
        assert quarantined(folder) == []
        assert "its client process died; it is asked again" in output, output[-3000:]
        assert running.final_hash(folder) == expected
        print(f"client app killed once: rounds of {round_seconds(folder)[1:]} s")


def test_a_client_process_that_always_dies_costs_one_reply(tmp_path: Path) -> None:
    settings = {"num-server-rounds": 1, "attack": "die"}
    with federation_in(tmp_path / "federation") as federation:
        done = submit(federation, HOSTILE, settings=settings)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        run = running.latest(federation.outputs)
        assert quarantined(run) == [(1, "2", "client-crashed")]
        print(f"client app killed: a round of {round_seconds(run)[1:]} s")
        settings |= {"attack": "none"}
        assert submit(federation, HOSTILE, settings=settings).returncode == 0
        assert quarantined(running.latest(federation.outputs)) == []


def test_a_node_that_is_killed_in_a_round_is_missed_and_taken_in_again(tmp_path: Path) -> None:
    settings = {"num-server-rounds": 3, "attack": "hang", "round-timeout": 100}
    settings |= {"min-available-nodes": 2}
    with federation_in(tmp_path / "federation") as federation:
        with submitted(federation, HOSTILE, settings=settings) as run:
            wait_for(lambda: client_apps(federation))
            federation.send("site-2", signal.SIGKILL)
            killed = time.monotonic()
            wait_for(lambda: rounds_done(federation) >= 1)
            print(f"node killed: the round ended {time.monotonic() - killed:.0f} s later")
            output, _ = run.communicate(timeout=400)
        assert run.returncode == 0, output[-3000:]
        first = running.latest(federation.outputs)
        assert quarantined(first) == [(1, "2", "client-unavailable")]
        federation.start_site("2")  # as systemd does, 70 s after the kill
        settings |= {"attack": "none", "num-server-rounds": 1, "min-available-nodes": 3}
        assert submit(federation, HOSTILE, settings=settings).returncode == 0
        events = running.story(running.latest(federation.outputs))
        assert sorted(e.client for e in events if isinstance(e, ClientUpdated)) == ["0", "1", "2"]


def can_make_networks() -> bool:
    """Whether this user may make network namespaces, and there is a proxy to reach from one."""
    if os.geteuid() != 0 or shutil.which("ip") is None or not has_nginx():
        return False
    made = subprocess.run(["ip", "netns", "add", "fault-probe"], check=False, capture_output=True)
    subprocess.run(["ip", "netns", "del", "fault-probe"], check=False, capture_output=True)
    return made.returncode == 0


@contextmanager
def network_of_its_own(name: str, host: str, site: str) -> Iterator[list[str]]:
    """Make a network namespace with one link to this machine; yield what runs a command in it."""
    for command in (
        f"netns add {name}",
        f"link add {name}-h type veth peer name {name}-s",
        f"link set {name}-s netns {name}",
        f"addr add {host}/30 dev {name}-h",
        f"link set {name}-h up",
        f"-n {name} addr add {site}/30 dev {name}-s",
        f"-n {name} link set {name}-s up",
        f"-n {name} link set lo up",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    try:
        yield ["ip", "netns", "exec", name]
    finally:
        subprocess.run(["ip", "link", "del", f"{name}-h"], check=False)
        subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.mark.skipif(not can_make_networks(), reason="needs root, iproute2 and nginx")
def test_a_site_that_is_cut_off_is_missed_rests_and_is_taken_in_again(tmp_path: Path) -> None:
    """Its link is taken down in round 2, and up again when it has been missed twice."""
    settings = {"num-server-rounds": 14, "round-timeout": 20, "cooldown-after": 2}
    settings |= {"min-available-nodes": 2}
    host, site = "10.77.13.1", "10.77.13.2"
    with (
        network_of_its_own("fedcut", host, site) as wrapper,
        loopback.Loopback(tmp_path / "federation", SITES[:2], listen=host) as federation,
    ):
        federation.add("2", wrapper)
        with submitted(federation, HOSTILE, settings=settings) as run:
            wait_for(lambda: rounds_done(federation) >= 1)
            subprocess.run(["ip", "link", "set", "fedcut-h", "down"], check=True)
            wait_for(lambda: missing_now(federation) >= 2)
            subprocess.run(["ip", "link", "set", "fedcut-h", "up"], check=True)
            output, _ = run.communicate(timeout=500)
        assert run.returncode == 0, output[-3000:]
        folder = running.latest(federation.outputs)
        events = running.story(folder)
        away = {number for number, name in missing(folder) if name == "2"}
        rested = {e.round for e in events if isinstance(e, RoundStarted) and "2" in e.cooling_down}
        updated = {e.round for e in events if isinstance(e, ClientUpdated) and e.client == "2"}
        print(
            f"cut off: missed in {sorted(away)}, rested in {sorted(rested)}, "
            f"in the mean of {sorted(updated)}"
        )
        assert len(away) >= 2
        assert rested
        assert max(updated) > max(rested)


def missing_now(federation: Any) -> int:
    path = max(federation.outputs.glob("*/events.jsonl"))
    return path.read_text().count('"missing":["2"]')


def test_a_site_with_an_older_copy_of_the_app_is_refused_or_runs_the_servers(
    tmp_path: Path,
) -> None:
    """A package of the same name lies on the site's path, with other code."""
    old = tmp_path / "old"
    shutil.copytree(HOSTILE / "hostile_sites", old / "hostile_sites")
    with (old / "hostile_sites" / "client_app.py").open("a") as code:
        code.write("\nOLD = True\n")
    with loopback.Loopback(tmp_path / "federation", SITES[:2], has_proxy=False) as federation:
        federation.add("2", PYTHONPATH=str(old))
        done = submit(federation, HOSTILE, settings={"num-server-rounds": 1})
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        run = running.latest(federation.outputs)
        print(f"older copy: {quarantined(run)}")
        events = (run / "events.jsonl").read_text()
        assert quarantined(run) in ([], [(1, "2", "client-raised")])
        if quarantined(run):
            assert "is not the server's" in events


@pytest.mark.timeout(3600)
def test_twenty_sites_for_fifty_rounds_lose_nothing(tmp_path: Path) -> None:
    """A quarter of them a round; memory and database are printed."""
    sites = [str(number) for number in range(20)]
    rounds = int(os.environ.get("SOAK_ROUNDS", "50"))
    settings = {"num-server-rounds": rounds, "min-available-nodes": 20, "fraction-train": 0.25}
    with loopback.Loopback(tmp_path / "federation", sites, has_proxy=False) as federation:
        started = time.monotonic()

        def used() -> tuple[float, float]:
            link = federation.process("superlink").memory_info().rss / 1e6
            database = federation.folder / "server" / "superlink" / "state.db"
            return link, database.stat().st_size / 1e6

        with submitted(federation, HOSTILE, settings=settings) as run:
            wait_for(lambda: rounds_done(federation) >= 2, seconds=600)
            before = used()
            while run.poll() is None:
                time.sleep(1)
                after = used()
            output = run.communicate()[0]
        assert run.returncode == 0, output[-3000:]
        folder = running.latest(federation.outputs)
        assert quarantined(folder) == []
        assert missing(folder) == []
        print(
            f"soak: {rounds} rounds in {time.monotonic() - started:.0f} s; SuperLink "
            f"{before[0]:.0f} to {after[0]:.0f} MB, database {before[1]:.1f} to {after[1]:.1f} MB"
        )
