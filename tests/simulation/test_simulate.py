"""``simulate`` and ``run``: app objects and app folders on the local engine."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

import fedwaggle
from fedwaggle import ConfigError, simulate
from fedwaggle.engine.resources import engine_options

QUICKSTART = Path(__file__).parents[2] / "quickstart"


def plain_apps(step: float = 1.0) -> tuple[ServerApp, ClientApp]:
    """Return a plain Flower app: each client adds a step and its number to the model."""
    import numpy as np

    server, client = ServerApp(), ClientApp()

    @server.main()
    def main(grid: Grid, context: Context) -> dict[int, float]:
        strategy = FedAvg(fraction_evaluate=0.0)
        initial = ArrayRecord({"w": Array(np.zeros(1, np.float32))})
        result = strategy.start(grid, initial, num_rounds=int(context.run_config["rounds"]))
        return {"w": float(result.arrays["w"].numpy()[0])}

    @client.train()
    def train(msg: Message, context: Context) -> Message:
        w = msg.content["arrays"]["w"].numpy() + step + int(context.node_config["partition-id"])
        metrics = MetricRecord({"num-examples": 1, "pid": os.getpid()})
        content = {"arrays": ArrayRecord({"w": Array(w)}), "metrics": metrics}
        return Message(RecordDict(content), reply_to=msg)

    return server, client


def test_apps_that_no_worker_can_import_run(here: Path) -> None:
    """Two rounds of four clients: 1 + (0 + 1 + 2 + 3) / 4 = 2.5 each. A plain app has no record."""
    result = simulate(*plain_apps(), num_supernodes=4, config={"rounds": 2}, quiet=True)
    assert result.value == {"w": 5.0}
    assert (result.messages, result.errors, result.path) == (8, 0, None)
    assert not (here / "outputs").exists()
    assert "WAGGLE_OUTPUTS" not in os.environ


def test_it_takes_what_run_simulation_takes() -> None:
    """By name and by place, with the CPUs of a client."""
    server, client = plain_apps(step=3.0)
    backend = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    by_name = simulate(
        server_app=server,
        client_app=client,
        num_supernodes=2,
        backend_name="ray",
        backend_config=backend,
        config={"rounds": 1},
        quiet=True,
    )
    by_place = simulate(server, client, 2, "ray", backend, config={"rounds": 1}, quiet=True)
    assert by_name.value == by_place.value == {"w": 3.5}


def test_objects_and_the_folder_give_the_same_model() -> None:
    """The quickstart as a folder, and its two apps as objects: one hash after two rounds."""
    from my_federated_project.client_app import app as client_app
    from my_federated_project.server_app import app as server_app

    config = {"num-server-rounds": 2}
    folder = fedwaggle.run(QUICKSTART, num_supernodes=4, config=config, quiet=True)
    defaults = {"local-epochs": 5, "best-metric": "accuracy"}
    objects = simulate(server_app, client_app, 4, config={**defaults, **config}, quiet=True)
    inside = simulate(server_app, client_app, 4, config=config, workers=0, quiet=True)
    assert folder.record.sha256 == objects.record.sha256 == inside.record.sha256


@pytest.mark.parametrize(
    ("apps", "said"),
    [
        ((ClientApp(), ClientApp()), "server_app: expected a ServerApp, got ClientApp"),
        ((ServerApp(), print), "client_app: expected a ClientApp, got builtin_function"),
    ],
)
def test_what_is_no_app_is_refused(apps: tuple, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        simulate(*apps)


def test_what_cannot_go_to_a_worker_is_refused_with_what_would_help() -> None:
    lock, client = threading.Lock(), ClientApp()

    @client.train()
    def train(msg: Message, context: Context) -> Message:
        with lock:
            return msg

    with pytest.raises(ConfigError, match=r"cannot pickle '_thread.lock' .* workers=0"):
        simulate(plain_apps()[0], client)


def test_options_are_checked_together() -> None:
    with pytest.raises(ConfigError) as caught:
        simulate(*plain_apps(), num_supernodes=0, client_timeout=-1.0)
    assert len(caught.value.mistakes) == 2


def test_every_mistake_in_a_backend_config_is_told() -> None:
    with pytest.raises(ConfigError) as caught:
        engine_options(
            {
                "client_resources": {"num_cpus": "two", "num_gpus": 2, "memory": 1},
                "cluster": {},
                "init_args": {"num_cpus": 4, "include_dashboard": False},
            }
        )
    assert [mistake.partition(":")[0] for mistake in caught.value.mistakes] == [
        "backend_config.client_resources.num_cpus",
        "backend_config.client_resources.num_gpus",
        "backend_config.client_resources",
        "backend_config",
    ]


@pytest.mark.parametrize(
    ("backend_config", "options"),
    [
        ({}, {}),
        ({"client_resources": {"num_cpus": 4}, "init_args": {"num_cpus": 2}}, {"workers": 1}),
        ({"client_resources": {"num_gpus": 0}}, {"gpus": 0}),
        (
            {"client_resources": {"num_gpus": 0.5}, "init_args": {"num_gpus": 3}},
            {"gpus": 3, "clients_per_gpu": 2},
        ),
    ],
)
def test_a_backend_config_becomes_options(backend_config: dict, options: dict) -> None:
    assert engine_options(backend_config) == options
