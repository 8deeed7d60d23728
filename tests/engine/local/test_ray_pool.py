"""The pool on a Ray cluster: two machines' worth of processes on this one, one of them killed."""

from __future__ import annotations

import gc
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

import running
from waiting import PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray has many

SETTINGS = {"num-server-rounds": 2, "local-epochs": 1}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Start a cluster of two nodes with one CPU each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.add_node(num_cpus=1)
    yield made
    made.shutdown()
    del made
    gc.collect()  # Ray leaves files open, of which the next test would be warned


def has_an_update(outputs: Path) -> bool:
    return any(b"client-updated" in path.read_bytes() for path in outputs.glob("*/events.jsonl"))


def test_the_quickstart_ends_with_the_same_model_on_a_cluster(
    tmp_path: Path, cluster: Cluster
) -> None:
    options = ("--pool", "ray", "--ray-address", cluster.address)
    there = running.run(tmp_path / "ray", *options, settings=SETTINGS, nodes=4)
    here = running.run(tmp_path / "linux", settings=SETTINGS, nodes=4)
    assert running.final_hash(there) == running.final_hash(here)


def test_a_machine_that_is_killed_costs_no_client_its_update(
    tmp_path: Path, cluster: Cluster
) -> None:
    """Its messages are sent again, with the same seeds: the model is the undisturbed run's."""
    settings = {"num-server-rounds": 3, "local-epochs": 4, "fraction-train": 1.0}
    lost = cluster.add_node(num_cpus=1)
    options = ("--pool", "ray", "--ray-address", cluster.address)
    with running.running(tmp_path / "ray", *options, settings=settings, nodes=6) as process:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and not has_an_update(tmp_path / "ray"):
            time.sleep(0.05)
        cluster.remove_node(lost, allow_graceful=False)
        try:
            assert process.wait(PATIENCE) == 0
        except subprocess.TimeoutExpired:
            pytest.fail("the run waits for a machine that is gone")
    here = running.run(tmp_path / "linux", settings=settings, nodes=6)
    there = running.latest(tmp_path / "ray")
    assert running.of_kind(running.story(there), "client-quarantined") == []
    assert running.final_hash(there) == running.final_hash(here)
