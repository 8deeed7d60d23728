"""What one attacker of ten costs: accuracy with each attack, and with each defence.

::

    python benchmarks/bench_robustness.py            # every attack, default bounds, three seeds
    python benchmarks/bench_robustness.py --defences # the other strategies too, one seed
    python benchmarks/bench_robustness.py --honest   # no attacker, uneven data: nobody quarantined
    python benchmarks/bench_robustness.py --write    # put the tables into docs/robustness.md

Each line is a real ``waggle run`` of the quickstart with its own defaults, in which client 3
attacks (``apps/attacked``). Results are appended to ``--results``, one JSON object a line, and a
run that stands there already is not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedwaggle.runs.events import ClientQuarantined, ClientUpdated, RoundFinished, RunFinished
from fedwaggle.runs.reading import current_events, read_events

HERE = Path(__file__).parent
QUICKSTART = HERE.parent / "quickstart"
ATTACKS = (
    "huge once",
    "huge",
    "huger",
    "zeros",
    "change reversed",
    "weights negated",
    "change x 1000",
    "change x -1000",
    "change x -99",
    "random",
)
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
DEFENCES = ("none", "FedMedian", "FedTrimmedAvg", "Krum")
SPREADS = {
    "iid": {},
    "dirichlet 0.1": {"partitioner": "dirichlet", "alpha": 0.1},
    "one class": {"partitioner": "classes", "classes-per-client": 1},
    "sizes x 100": {},
}


@dataclass(frozen=True)
class Case:
    """One run: who attacks how, and what defends."""

    attack: str = ""
    claim: bool = False
    defence: str = "default"
    spread: str = "iid"
    seed: int = 0


def attacks(seeds: int) -> list[Case]:
    """Return every attack, with and without a claim to ten million examples."""
    kinds = [("absent", False), ("", False), ("evaluation", False), ("evaluation", True)]
    kinds += [(attack, claim) for attack in ATTACKS for claim in (False, True)]
    return [Case(attack, claim, seed=seed) for seed in range(seeds) for attack, claim in kinds]


def defences() -> list[Case]:
    """Return every attack against what is there besides the default."""
    return [
        Case(attack, defence=defence) for defence in DEFENCES for attack in ("absent", "", *ATTACKS)
    ]


def honest(seeds: int) -> list[Case]:
    """Return runs without an attacker."""
    return [
        Case(spread=spread, defence=defence, seed=seed)
        for seed in range(seeds)
        for spread in SPREADS
        for defence in ("default", "none")
    ]


def run(case: Case) -> dict[str, Any]:
    """Run a case, and return what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            **SPREADS[case.spread],
            "seed": case.seed,
            "batch-size": 32,
            "outputs": folder,
            "outlier-share": 0.0 if case.defence == "none" else 0.1,
        }
        pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        command = [str(Path(sys.executable).with_name("waggle")), "run", "--nodes", "10"]
        done = subprocess.run(
            [*command, "--workers", "1", str(HERE / "apps" / "attacked"), *pairs],
            check=False,
            env={**os.environ, **_environment(case)},
            capture_output=True,
            text=True,
        )
        (record,) = Path(folder).glob("*/events.jsonl")
        return {**asdict(case), "status": done.returncode, **_facts(record, case)}


def _environment(case: Case) -> dict[str, str]:
    paths = os.pathsep.join([str(QUICKSTART), os.environ.get("PYTHONPATH", "")])
    return {
        "PYTHONPATH": paths,
        "ATTACK": case.attack,
        "CLAIM": "1" if case.claim else "",
        "STRATEGY": case.defence if case.defence in DEFENCES[1:] else "",
        "SIZES": "1" if case.spread == "sizes x 100" else "",
        "BLIND": "1" if case.attack == "evaluation" else "",
    }


def _facts(record: Path, case: Case) -> dict[str, Any]:
    events = current_events(read_events(record))
    rounds = [event for event in events if isinstance(event, RoundFinished)]
    last = rounds[-1].metrics.get("accuracy") if rounds else None
    quarantined = [e for e in events if isinstance(e, ClientQuarantined) and e.phase == "train"]
    updates = [event for event in events if isinstance(event, ClientUpdated)]
    if case.attack == "evaluation":
        last = _accuracy_of(record.parent / "best.pth")
    return {
        "accuracy": last,
        "rounds": rounds[-1].round if rounds else 0,
        "finished": any(isinstance(event, RunFinished) for event in events),
        "quarantined": len(quarantined),
        "bounded": sum(update.scale < 1 or update.weight is not None for update in updates),
        "updates": len(updates),
    }


def _accuracy_of(model_file: Path) -> float:
    """Return the accuracy of the best model on the server's test set."""
    sys.path.insert(0, str(QUICKSTART))
    import torch

    from fedwaggle.data import load_images, to_examples
    from my_federated_project import task

    model = task.Net()
    model.load_state_dict(torch.load(model_file, weights_only=True))
    test_set = to_examples(load_images("fashion-mnist-mini", "test"))
    return task.test(model, test_set)["accuracy"]


def tables(results: list[dict[str, Any]]) -> str:
    """Return the tables of ``docs/robustness.md``: accuracy in per cent."""
    by_case = {tuple(r[name] for name in asdict(Case())): r for r in results}

    def found(case: Case) -> dict[str, Any] | None:
        return by_case.get(tuple(asdict(case).values()))

    def accuracy(case: Case) -> str:
        result = found(case)
        return "" if result is None or result["accuracy"] is None else f"{_percent(result):.1f}"

    def cost(attack: str, claim: bool, seed: int) -> str:
        absent, attacked = found(Case("absent", seed=seed)), found(Case(attack, claim, seed=seed))
        if absent is None or attacked is None:
            return ""
        change = _percent(attacked) - _percent(absent)
        return f"{change:+.1f}" + ("" if attacked["finished"] else " (ended)")

    seeds = sorted({r["seed"] for r in results if r["attack"] == "absent"})
    lines = [
        "| attack | " + " | ".join(f"seed {s} | and 10,000,000 examples" for s in seeds) + " |",
        "|---|" + "---|" * (2 * len(seeds)),
    ]
    absent = [accuracy(Case("absent", seed=seed)) for seed in seeds]
    lines.append("| *the client is absent (%)* | " + " | ".join(f"{a} | " for a in absent) + " |")
    for attack in (*ATTACKS, "evaluation"):
        cells = [cost(attack, claim, seed) for seed in seeds for claim in (False, True)]
        lines.append(f"| {attack} | " + " | ".join(cells) + " |")
    names = ["none", "default", *DEFENCES[1:]]
    lines += ["", "| attack | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for attack in ("", "absent", *ATTACKS):
        cells = [accuracy(Case(attack, defence=name)) for name in names]
        if sum(map(bool, cells)) > 1:
            lines.append(f"| {attack or '*no attack*'} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| data | seed | accuracy, default | without bounds | updates | shortened | quarantined |",
        "|---|---|---|---|---|---|---|",
    ]
    for spread in SPREADS:
        for seed in seeds:
            result = found(Case(spread=spread, seed=seed))
            if result is not None:
                unbounded = accuracy(Case(spread=spread, defence="none", seed=seed))
                counts = " | ".join(str(result[k]) for k in ("updates", "bounded", "quarantined"))
                lines.append(
                    f"| {spread} | {seed} | {_percent(result):.1f} | {unbounded} | {counts} |"
                )
    return "\n".join(lines)


def _percent(result: dict[str, Any]) -> float:
    return 100 * float(result["accuracy"])


def write(results: list[dict[str, Any]]) -> None:
    """Put the tables into the document, between their marks."""
    page = HERE.parent / "docs" / "robustness.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{tables(results)}\n{END}{after}")


def main() -> None:
    """Run what was asked for, two at a time."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--defences", action="store_true", help="other strategies, one seed")
    parser.add_argument("--honest", action="store_true", help="no attacker, uneven data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path("robustness.jsonl"))
    parser.add_argument("--write", action="store_true", help="the tables of what is known")
    options = parser.parse_args()
    if options.write:
        write([json.loads(line) for line in options.results.read_text().splitlines()])
        return
    if options.defences:
        cases = defences()
    else:
        cases = honest(options.seeds) if options.honest else attacks(options.seeds)
    text = options.results.read_text() if options.results.exists() else ""
    known = [json.loads(line) for line in text.splitlines()]
    names = asdict(Case()).keys()
    done = {tuple(result[name] for name in names) for result in known}
    todo = [case for case in cases if tuple(asdict(case).values()) not in done]
    with ThreadPoolExecutor(2) as pool, options.results.open("a") as file:
        for number, result in enumerate(pool.map(run, todo), 1):
            file.write(json.dumps(result) + "\n")
            file.flush()
            print(f"{number}/{len(todo)}", json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
