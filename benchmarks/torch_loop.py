"""The limit: the rounds of ``apps/lenet`` as a bare torch loop on two processes.

The same steps on the same data, with nothing around them: two workers that load the data once
and keep one model, state dicts that lie in memory which all processes share, and a mean over
them. No message, no check, no record, no failure handled. An engine cannot be expected to be
faster than this.

``python benchmarks/torch_loop.py CONFIG.json`` takes overrides of the app's config, and
``nodes``, and writes the same ``result-file`` as the app.
"""

from __future__ import annotations

import json
import random
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, multiprocessing

APP = Path(__file__).parent / "apps" / "lenet"
sys.path.insert(0, str(APP))
from lenet_app.task import Net, load_images, load_partition, train  # noqa: E402

WORKERS = 2

Config = dict[str, Any]
Jobs = Any  # a SimpleQueue, which is generic in name only


def work(model_row: Tensor, reply_rows: Tensor, jobs: Jobs, done: Jobs, config: Config) -> None:
    """Be a worker: train one client after the other, in one model, until there is no job left.

    Parameters
    ----------
    model_row, reply_rows : Tensor
        Memory that all processes share: the global model (P,), and a row for each client (K, P).
    jobs, done : SimpleQueue
        Gives ``(row, partition, round)``; takes ``(row, number of examples, loss)``.
    config : dict
        The app's config.
    """
    torch.set_num_threads(1)
    load_images(config["data-dir"])
    model = Net()
    for row, partition, server_round in iter(jobs.get, None):
        model.load_state_dict(as_state(model_row, model))
        images, labels = load_partition(
            config["data-dir"], partition, config["examples-per-client"]
        )
        loss = train(
            model,
            images,
            labels,
            epochs=config["local-epochs"],
            batch_size=config["batch-size"],
            lr=config["lr"],
            seed=server_round,
        )
        copy_state(model, reply_rows[row])
        done.put((row, len(labels), loss))


def as_state(row: Tensor, model: Net) -> dict[str, Tensor]:
    """Return a row as a state dict, without a copy."""
    tensors = model.state_dict()
    parts = row.split([tensor.numel() for tensor in tensors.values()])
    return {
        name: part.view(tensor.shape)
        for (name, tensor), part in zip(tensors.items(), parts, strict=True)
    }


def copy_state(model: Net, row: Tensor) -> None:
    """Copy a model's state into a row."""
    torch.cat([tensor.flatten() for tensor in model.state_dict().values()], out=row)


def run(config: Config) -> dict[str, Any]:
    """Run all rounds; return when each was over, and the mean loss of the last."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, cohort_size = Net(), config["clients-per-round"]
    size = sum(tensor.numel() for tensor in model.state_dict().values())
    model_row = torch.empty(size).share_memory_()
    reply_rows = torch.empty(cohort_size, size).share_memory_()
    copy_state(model, model_row)
    context = multiprocessing.get_context("spawn")
    jobs, done = context.SimpleQueue(), context.SimpleQueue()
    workers = [
        context.Process(target=work, args=(model_row, reply_rows, jobs, done, config))
        for _ in range(WORKERS)
    ]
    for worker in workers:
        worker.start()
    marks, loss = [time.time()], 0.0
    for server_round in range(1, config["num-server-rounds"] + 1):
        cohort = random.sample(range(config["nodes"]), cohort_size)
        for row, partition in enumerate(cohort):
            jobs.put((row, partition, server_round))
        _, counts, losses = zip(*sorted(done.get() for _ in cohort), strict=True)
        weights = torch.tensor(counts) / sum(counts)
        torch.mv(reply_rows.T, weights, out=model_row)
        loss = float(weights @ torch.tensor(losses))
        marks.append(time.time())
    for _ in workers:
        jobs.put(None)
    for worker in workers:
        worker.join()
    return {"marks": marks, "train-loss": loss}


def main() -> None:
    """Run the rounds that the app's config and a file of overrides describe."""
    project = tomllib.loads((APP / "pyproject.toml").read_text())
    overrides = json.loads(Path(sys.argv[1]).read_text())
    config = {**project["tool"]["flwr"]["app"]["config"], **overrides}
    Path(config["result-file"]).write_text(json.dumps(run(config)))


if __name__ == "__main__":
    main()
