"""GPUs and workers that are asked for: shared out, or refused in words."""

from __future__ import annotations

import pytest

from fedwaggle.engine.options import EngineOptions, worker_devices
from fedwaggle.errors import ConfigError

VISIBLE = "CUDA_VISIBLE_DEVICES"


def test_with_gpus_in_sight_there_is_a_worker_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one for each core, each with a CUDA context of its own."""
    monkeypatch.setenv(VISIBLE, "3,5")
    options = EngineOptions(nodes=100)
    assert (options.num_gpus, options.num_workers, options.can_fork) == (2, 2, False)
    assert worker_devices(options.num_gpus, options.num_workers, {VISIBLE: "3,5"}) == ["3", "5"]
    assert EngineOptions(nodes=100, clients_per_gpu=3).num_workers == 6
    assert EngineOptions(nodes=100, workers=4).num_workers == 4


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_gpus_are_none(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    monkeypatch.setenv(VISIBLE, hidden)
    options = EngineOptions(nodes=100)
    assert (options.num_gpus, options.can_fork) == (0, True)
    with pytest.raises(ConfigError, match="gpus: expected at most 0, as many as are visible here"):
        EngineOptions(gpus=1)


def test_more_than_there_are_and_more_workers_than_fit_are_told_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VISIBLE, "0,1")
    with pytest.raises(ConfigError) as caught:
        EngineOptions(gpus=3, workers=9, clients_per_gpu=2)
    assert list(caught.value.mistakes) == [
        "gpus: expected at most 2, as many as are visible here, got 3; ask for fewer, or change "
        "CUDA_VISIBLE_DEVICES",
        "workers: expected at most 6, gpus times clients-per-gpu, got 9; raise clients-per-gpu, or "
        "leave workers out",
    ]


def test_the_address_of_a_cluster_needs_the_pool_that_goes_there() -> None:
    with pytest.raises(ConfigError, match="ray-address: expected the pool ray beside it"):
        EngineOptions(ray_address="auto")
    with pytest.raises(ConfigError, match="pool: ray has no client-timeout"):
        EngineOptions(pool="ray", isolate=True)


def test_an_existing_ray_cluster_is_not_told_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray refuses ``num_cpus`` and ``num_gpus`` where it connects to a cluster."""
    options = EngineOptions(nodes=4, workers=2, gpus=1, clients_per_gpu=2)
    assert options.federation()["init-args-num-cpus"] == 2
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert options.federation() == {
        "num-supernodes": 4,
        "client-resources-num-cpus": 1,
        "client-resources-num-gpus": 0.5,
    }
