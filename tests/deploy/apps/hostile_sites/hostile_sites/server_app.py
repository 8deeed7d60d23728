"""A server that adds up the clients' mean, and nothing else."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedwaggle import RunConfig, Waggle, open_run, read_config


class Strategy(Waggle[None], FedAvg):
    """FedAvg of clients without metadata."""


class Config(RunConfig):
    """The keys of the attacker."""

    attack: str = "none"
    attack_size: int = 300_000_000


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for the rounds of the config."""
    config = read_config(context.run_config, Config)
    with open_run(config, context, grid, package=__package__) as run:
        Strategy.of(config, run, fraction_evaluate=0.0).start(
            grid=grid,
            initial_arrays=ArrayRecord({"w": Array(np.zeros(1000, dtype=np.float32))}),
            num_rounds=config.num_server_rounds,
            timeout=config.round_timeout,
        )
