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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, multiprocessing

APP = Path(__file__).parent / "apps" / "lenet"
sys.path.insert(0, str(APP))
from lenet_app.task import Net, load_images, load_partition, train  # noqa: E402

WORKERS = 2


@dataclass
class Memory:
    """What the processes share: a model as one row (P,), and a row for each client (K, P)."""

    model: Tensor
    replies: Tensor


@dataclass
class Worker:
    """A process that trains clients one after the other, in one model of its own."""

    memory: Memory
    config: dict[str, Any]
    model: Net

    def train(self, row: int, partition: int, server_round: int) -> tuple[int, float]:
        """Train a client, leave its state in a row, and return its examples and its loss."""
        config = self.config
        self.model.load_state_dict(as_state(self.memory.model, self.model))
        images, labels = load_partition(
            config["data-dir"], partition, config["examples-per-client"]
        )
        loss = train(
            self.model,
            images,
            labels,
            epochs=config["local-epochs"],
            batch_size=config["batch-size"],
            lr=config["lr"],
            seed=server_round,
        )
        copy_state(self.model, self.memory.replies[row])
        return len(labels), loss


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


def begin_worker(memory: Memory, config: dict[str, Any]) -> None:
    """Make a worker ready: one thread, the data in memory, the model built."""
    torch.set_num_threads(1)
    load_images(config["data-dir"])
    train_job.worker = Worker(memory, config, Net())  # type: ignore[attr-defined]


def train_job(job: tuple[int, int, int]) -> tuple[int, float]:
    """Let this process's worker do a job."""
    result: tuple[int, float] = train_job.worker.train(*job)  # type: ignore[attr-defined]
    return result


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Run all rounds; return when each was over, and the mean loss of the last."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, cohort_size = Net(), config["clients-per-round"]
    size = sum(tensor.numel() for tensor in model.state_dict().values())
    memory = Memory(
        torch.empty(size).share_memory_(), torch.empty(cohort_size, size).share_memory_()
    )
    copy_state(model, memory.model)
    loss = 0.0
    context = multiprocessing.get_context("spawn")
    with context.Pool(WORKERS, begin_worker, (memory, config)) as pool:
        marks = [time.time()]
        for server_round in range(1, config["num-server-rounds"] + 1):
            cohort = random.sample(range(config["nodes"]), cohort_size)
            jobs = [(row, partition, server_round) for row, partition in enumerate(cohort)]
            counts, losses = zip(*pool.imap(train_job, jobs), strict=True)
            weights = torch.tensor(counts) / sum(counts)
            torch.mv(memory.replies.T, weights, out=memory.model)
            loss = float(weights @ torch.tensor(losses))
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
