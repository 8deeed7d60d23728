"""The limit: the rounds of ``apps/lenet`` as a bare torch loop on two processes.

The same steps on the same data, with nothing around them: two workers that load the data once
and keep one model, state dicts handed over pipes, and a mean over the state dicts. No check, no
record, no failure handled. An engine cannot be expected to be faster than this.

``python benchmarks/torch_loop.py CONFIG.json`` takes overrides of the app's config, and
``nodes``, and writes the same ``result-file`` as the app.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import sys
import time
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

APP = Path(__file__).parent / "apps" / "lenet"
sys.path.insert(0, str(APP))
from lenet_app.task import Net, load_images, load_partition, train  # noqa: E402

WORKERS = 2

State = dict[str, Any]  # of arrays: ndarrays on their way, tensors in the model


def prepare(data_dir: str) -> None:
    """Make a worker ready: one thread, the data in memory, the model built."""
    torch.set_num_threads(1)
    load_images(data_dir)
    own_model()


@lru_cache(maxsize=1)
def own_model() -> Net:
    """Return this worker's model."""
    return Net()


def train_client(job: tuple[State, int, int, dict[str, Any]]) -> tuple[State, int, float]:
    """Train one client, and return its state, its number of examples and its loss."""
    state, partition, server_round, config = job
    model = own_model()
    model.load_state_dict({key: torch.from_numpy(array) for key, array in state.items()})
    images, labels = load_partition(config["data-dir"], partition, config["examples-per-client"])
    loss = train(
        model,
        images,
        labels,
        epochs=config["local-epochs"],
        batch_size=config["batch-size"],
        lr=config["lr"],
        seed=server_round,
    )
    return as_numpy(model.state_dict()), len(labels), loss


def as_numpy(state: dict[str, Tensor]) -> State:
    """Return a state dict as ndarrays, which pickle as plain bytes."""
    return {key: tensor.numpy() for key, tensor in state.items()}


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Run all rounds; return when each was over, and the mean loss of the last."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    state = as_numpy(Net().state_dict())
    loss = 0.0
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(WORKERS, prepare, (config["data-dir"],)) as pool:
        marks = [time.time()]
        for server_round in range(1, config["num-server-rounds"] + 1):
            cohort = random.sample(range(config["nodes"]), config["clients-per-round"])
            jobs = [(state, partition, server_round, config) for partition in cohort]
            replies = list(pool.imap_unordered(train_client, jobs))
            total = sum(count for _, count, _ in replies)
            state = {
                key: sum(reply[key] * (count / total) for reply, count, _ in replies)
                for key in state
            }
            loss = sum(loss * count / total for _, count, loss in replies)
            marks.append(time.time())
    return {"marks": marks, "train-loss": loss}


def main() -> None:
    """Run the rounds that the app's config and a file of overrides describe."""
    project = tomllib.loads((APP / "pyproject.toml").read_text())
    overrides = json.loads(Path(sys.argv[1]).read_text())
    config = {**project["tool"]["flwr"]["app"]["config"], **overrides}
    Path(config["result-file"]).write_text(json.dumps(run(config)))


if __name__ == "__main__":
    main()
