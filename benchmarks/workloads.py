"""What is measured: workloads, who takes part in each, and the figures that are read off."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contestants import BareLoop, Contestant, Job, MemoryCopies, StockFlower, Waggle
from measuring import Outcome

HERE = Path(__file__).parent
LENET, NOOP = HERE / "apps" / "lenet", HERE / "apps" / "noop"
QUICKSTART = HERE.parent / "quickstart"
BARE, STOCK, OURS = "bare torch loop", "stock `flwr run`", "`waggle run`"
MIB = 1 << 20

# Stands at the end of the copied task.py, as Flower may load a module twice.
STAMP = """

def stamped(step):
    import json, os

    def stamped_step(*arguments, **options):
        result = step(*arguments, **options)
        try:
            with open(os.environ["RESULT_FILE"], "x") as file:
                json.dump({"marks": [time.time()]}, file)
        except FileExistsError:
            pass  # another step was first
        return result

    return stamped_step

torch.optim.SGD.step = stamped(torch.optim.SGD.step)
"""

Reading = Callable[[Outcome], float]


@dataclass(frozen=True)
class Figure:
    """A table: a row for each contestant, and what is read from its outcomes.

    Attributes
    ----------
    key, title, wanted : str
        Name, headline, and what we ask of our engine.
    columns : Mapping[str, Reading]
        Headers, and what stands below them. The first column is compared.
    baseline : str
        The contestant that the first column is compared with.
    """

    key: str
    title: str
    wanted: str
    columns: Mapping[str, Reading]
    baseline: str


@dataclass(frozen=True)
class Workload:
    """Contestants that run the same job, and the figures that come of it."""

    contestants: Mapping[str, Contestant]
    figures: tuple[Figure, ...]


def round_seconds(outcome: Outcome) -> float:
    """Read the seconds of a round."""
    return outcome.round_seconds


def total_seconds(outcome: Outcome) -> float:
    """Read the seconds of the whole command."""
    return outcome.total_seconds


def part(name: str) -> Reading:
    """Read a part that was noted; nan where it was not."""
    return lambda outcome: outcome.parts.get(name, float("nan"))


ROUND = {"seconds a round": round_seconds}
WHOLE = {**ROUND, "whole command, s": total_seconds, "loss": part("train-loss")}


def all_workloads(quick: bool, folder: Path) -> list[Workload]:
    """Return every workload; ``folder`` is for what has to be written first."""
    return [few_clients(quick), many_clients(quick), first_step(folder), nodes(quick), big(quick)]


def few_clients(quick: bool) -> Workload:
    """W1 and W4: the work of training outweighs all else."""
    config: dict[str, Any] = {
        "num-server-rounds": 2 if quick else 4,
        "clients-per-round": 5,
        "examples-per-client": 6000,
        "local-epochs": 1 if quick else 5,
        "batch-size": 32,
    }
    job = Job(LENET, nodes=10, config=config, watch_memory=True)
    time = Figure(
        "W1",
        f"10 clients with 6,000 images, 5 a round, {config['local-epochs']} local epochs, batch 32",
        "at most 1.05 of the bare loop",
        WHOLE,
        BARE,
    )
    memory = Figure(
        "W4",
        "Memory of all processes in W1",
        "at most 954 MiB (1 GB)",
        {"peak PSS, MiB": lambda outcome: outcome.peak_bytes / MIB},
        BARE,
    )
    return Workload(
        {BARE: BareLoop(job), STOCK: StockFlower(job), OURS: Waggle(job)}, (time, memory)
    )


def many_clients(quick: bool) -> Workload:
    """W2: many short messages."""
    config = {
        "num-server-rounds": 4 if quick else 12,
        "clients-per-round": 50,
        "examples-per-client": 50,
        "local-epochs": 1,
        "batch-size": 10,
    }
    job = Job(LENET, nodes=1000, config=config)
    time = Figure(
        "W2",
        "1,000 clients with 50 images, 50 a round, 1 epoch, batch 10",
        "at most 1.2 of the bare loop",
        WHOLE,
        BARE,
    )
    return Workload({BARE: BareLoop(job), STOCK: StockFlower(job), OURS: Waggle(job)}, (time,))


def first_step(folder: Path) -> Workload:
    """W3: how long one waits for the first training to begin."""
    config = {"num-server-rounds": 1, "local-epochs": 1}
    job = Job(stamped_quickstart(folder), nodes=10, config=config, result_key="")
    columns = {"seconds to the first step": part("first mark"), "whole command, s": total_seconds}
    wait = Figure(
        "W3",
        "The quickstart, from the command to the first client's training",
        "at most 3 s",
        columns,
        STOCK,
    )
    return Workload({STOCK: StockFlower(job), OURS: Waggle(job)}, (wait,))


def nodes(quick: bool) -> Workload:
    """W5: what nodes cost that are not sampled."""
    config = {
        "num-server-rounds": 10 if quick else 40,
        "clients-per-round": 50,
        "parameters": 40_000,
    }
    few, many = "100 nodes", "100,000 nodes"
    time = Figure(
        "W5",
        "Clients that do nothing, 50 a round, 40,000 parameters, `waggle run`",
        "at most 1.1 of 100 nodes",
        ROUND,
        few,
    )
    return Workload(
        {
            few: Waggle(Job(NOOP, nodes=100, config=config)),
            many: Waggle(Job(NOOP, nodes=100_000, config=config)),
        },
        (time,),
    )


def big(quick: bool) -> Workload:
    """W6: a model so large that only its bytes count."""
    config = {
        "num-server-rounds": 3,
        "clients-per-round": 20,
        "parameters": 1_000_000 if quick else 10_000_000,
    }
    job = Job(NOOP, nodes=20, config=config)
    aggregation = part("aggregation-seconds")
    columns = {
        **ROUND,
        "of it in FedAvg's aggregation, s": aggregation,
        "the rest, s": lambda outcome: outcome.round_seconds - aggregation(outcome),
    }
    copies = "21 copies and 20 sums"
    time = Figure(
        "W6",
        f"20 clients that do nothing, {config['parameters']:,} parameters",
        "near the time of the copies",
        columns,
        copies,
    )
    return Workload(
        {copies: MemoryCopies(job), STOCK: StockFlower(job), OURS: Waggle(job)}, (time,)
    )


def stamped_quickstart(folder: Path) -> Path:
    """Copy the quickstart, and let its client note when its first training begins."""
    app = folder / "quickstart"
    shutil.copytree(QUICKSTART, app, ignore=shutil.ignore_patterns("__pycache__", "outputs"))
    with (app / "my_federated_project" / "task.py").open("a") as task:
        task.write(STAMP)
    return app
