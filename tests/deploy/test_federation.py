"""The app on a real federation: TLS, registered sites, process isolation, nginx in front.

One federation of three sites serves the tests of this file, in their order.
"""

from __future__ import annotations

import http.client
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import running
from federations import HOSTILE, PeakMemory, has_nginx, loopback, processes_of, submit, wait_for
from fedwaggle.runs import load
from fedwaggle.runs.events import ClientQuarantined, ClientUpdated, RoundFinished, RunStarted

pytestmark = pytest.mark.skipif(not has_nginx(), reason="nginx is not installed")

SITES = ("0", "1", "2")  # as the local engine names its nodes
SETTINGS = {
    "num-server-rounds": 2,
    "local-epochs": 1,
    "min-available-nodes": 3,
    "fraction-train": 1.0,
    "fraction-evaluate": 0.34,
}


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("federation")
    hostile = {"2": "hostile=true"}
    with loopback.Loopback(folder, SITES, node_configs=hostile) as federation:
        yield federation


def test_a_federation_ends_with_the_model_of_the_local_engine(
    federation: Any, tmp_path: Path
) -> None:
    done = submit(federation, running.QUICKSTART, settings=SETTINGS)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    run = running.latest(federation.outputs)
    assert f"outputs: {run}" in done.stderr
    (start,) = [event for event in running.story(run) if isinstance(event, RunStarted)]
    assert start.engine == "flower-superlink"
    local = running.run(tmp_path / "local", settings=SETTINGS, nodes=3)
    assert running.final_hash(run) == running.final_hash(local)
    assert load(run).label_counts == load(local).label_counts


def test_through_the_proxy_an_outsider_reaches_the_fleet_alone(federation: Any) -> None:
    """What the SuperLink itself answers to anyone: its runs, its nodes, its documentation."""
    open_paths = ["/openapi.json", "/docs", "/v1/runtime/acquire-task", "/v1/control/list-runs"]
    for path in open_paths:
        assert federation.get(federation.address, path) == http.client.FORBIDDEN, path
        assert federation.get(federation.address, path, "POST") == http.client.FORBIDDEN, path
    assert federation.get(federation.inner_address, "/openapi.json") == http.client.OK


def test_on_the_server_nobody_without_the_secret_takes_a_task(federation: Any) -> None:
    path = "/v1/runtime/acquire-task"
    refused = {http.client.UNAUTHORIZED, http.client.FORBIDDEN}
    assert federation.get(federation.inner_address, path, "POST") in refused


def test_a_node_that_is_not_registered_is_refused(federation: Any, tmp_path: Path) -> None:
    key = tmp_path / "stranger.key"
    make_key = [loopback.HERE / "site-key.sh", key]
    subprocess.run(make_key, check=True, capture_output=True)
    log = refused_node(federation, tmp_path, NODE_KEY=str(key))
    assert "Exit Code: 305" in log


def test_a_node_that_trusts_another_authority_does_not_connect(
    federation: Any, tmp_path: Path
) -> None:
    """A site that is sent to an impostor: the certificate is not signed by its authority."""
    etc = tmp_path / "etc"
    subprocess.run(
        [loopback.HERE / "certificates.sh", etc / "certificates", "localhost"],
        check=True,
        capture_output=True,
    )
    log = refused_node(federation, tmp_path, WAGGLE_ETC=str(etc))
    assert "CERTIFICATE_VERIFY_FAILED" in log


def refused_node(federation: Any, folder: Path, **environment: str) -> str:
    """Start a node that should not get in, as a site's own script does; return its log."""
    marks = ("Exit Code: 305", "CERTIFICATE_VERIFY_FAILED")
    path = folder / "log.txt"
    with path.open("w") as log:
        node = subprocess.Popen(
            [loopback.HERE / "supernode.sh"],
            env={
                **federation.environment,
                "WAGGLE_STATE": str(folder / "state"),
                "NODE_KEY": str(federation.folder / "sites" / "0" / "site.key"),
                "NODE_PORT": str(loopback.free_port()),
                **environment,
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(lambda: any(mark in path.read_text() for mark in marks))
    finally:
        node.kill()
        node.wait()
    return path.read_text()


def test_a_policy_with_a_mistake_stops_its_node_at_once(federation: Any, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("min-example = 3")
    done = subprocess.run(
        [loopback.HERE / "supernode.sh"],
        env={
            **federation.environment,
            "WAGGLE_STATE": str(tmp_path),
            "NODE_CONFIG": f'site-policy="{policy}"',
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "min-example: unknown key" in done.stderr


IDLE_MB = 340  # of a server app with torch and Flower imported: measured 332


ATTACKS = {
    "raise": ("client-raised",),
    "nan": ("not-finite",),
    "zeros": ("too-large",),
    "arrays": ("too-large",),
    "metadata": ("missing", "message-lost"),  # the proxy refuses it, again and again
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_site_costs_only_its_own_reply(federation: Any, attack: str) -> None:
    """300 MB for a model of 4 kB, and other kinds: two sites go on, and the server stays small."""
    settings = {"num-server-rounds": 1, "attack": attack}
    if attack == "metadata":
        settings["round-timeout"] = 40

    def server_apps() -> list[Any]:
        return processes_of(federation.process("superexec"), "flwr-serverapp")

    with PeakMemory(server_apps) as memory:
        done = submit(federation, HOSTILE, settings=settings)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    events = running.story(running.latest(federation.outputs))
    bad = {e.client: e.code for e in events if isinstance(e, ClientQuarantined)}
    (end,) = [e for e in events if isinstance(e, RoundFinished) and e.round == 1]
    bad |= dict.fromkeys(end.missing, "missing")
    assert set(bad) == {"2"}
    assert bad["2"] in ATTACKS[attack]
    assert [e.client for e in events if isinstance(e, ClientUpdated)] in (["0", "1"], ["1", "0"])
    peak = max(memory.peaks.values())
    assert peak < IDLE_MB + 200, f"{peak:.0f} MB"


def test_after_all_of_this_the_federation_serves_the_next_run(federation: Any) -> None:
    settings = {**SETTINGS, "num-server-rounds": 1}
    done = submit(federation, running.QUICKSTART, settings=settings)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    events = running.story(running.latest(federation.outputs))
    assert len([e for e in events if isinstance(e, ClientUpdated)]) == 3
