"""Decode, check and sum the replies of a round, beside Flower's own aggregation.

``python benchmarks/bench_fold.py`` measures 100 replies of a model of 10 million float32
parameters in 10 arrays: ours with the replies in the order of the sum, ours with the replies in
the reversed order (all wait in memory), ours reversed with 1 GiB of memory and the rest on disk,
stock ``aggregate_arrayrecords``, and one pass over the same bytes. Each is a fresh process. The
time begins with the first reply, and includes the norm of its change and the bounds on it: making
the replies, making room for the sums (a server does it while the clients train) and letting go of
the replies are outside. The five stand side by side in every repeat, and ratios are taken within
a repeat. Peak memory is resident memory above what it was once the first reply was made.
``--write`` puts the table into ``benchmarks/RESULTS.md``.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: F401  # a server whose model is of torch has imported it long before
from flwr.app import Array, ArrayRecord, Message, Metadata, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

from fedwaggle.strategy.averaging.arrays import ArraySpec, decoded
from fedwaggle.strategy.averaging.fold import Fold
from fedwaggle.strategy.bounds.changes import Ruler
from fedwaggle.strategy.bounds.outliers import Bounds, OutlierRule, Sizes
from fedwaggle.strategy.exchange import Arrival
from fedwaggle.strategy.replies.admission import Admitted, Limits, Template, admit
from fedwaggle.strategy.updates import Quarantined

ARRAYS = 10
GIB = 1 << 30
KINDS = {
    "ours, in order": "in-order",
    "ours, reversed": "reversed",
    "ours, reversed, 1 GiB in memory": "spilled",
    "stock aggregate_arrayrecords": "stock",
    "one pass over the bytes": "one-pass",
}
RESULTS = Path(__file__).parent / "RESULTS.md"
BEGIN, END = "<!-- bench_fold: begin -->", "<!-- bench_fold: end -->"


class Replies:
    """Replies that are made when they are asked for, each in memory of its own."""

    def __init__(self, parameters: int) -> None:
        rng = np.random.default_rng(0)
        self.base = rng.standard_normal((ARRAYS, parameters // ARRAYS)).astype(np.float32)
        self.spec = ArraySpec.of(self.base[0])

    def make(self, k: int) -> Message:
        """Return the k-th client's reply, with 100 + k examples."""
        self.base[:, 0] = k
        record = ArrayRecord()
        for i, row in enumerate(self.base):
            data = b"".join((self.spec.header, row.data))
            record[f"layer{i}.weight"] = Array("float32", row.shape, "numpy.ndarray", data)
        metrics = MetricRecord({"train_loss": 0.5, "num-examples": 100 + k})
        content = RecordDict({"arrays": record, "metrics": metrics})
        metadata = Metadata(1, str(k), k, 1, str(k), "", time.time(), 3600.0, "train")
        return Message(content=content, metadata=metadata)  # type: ignore[call-overload,no-any-return]


def reset_peak() -> int:
    """Forget the peak of resident memory, and return what is resident now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def resident(field: str) -> int:
    """Return resident memory, now (VmRSS) or at its peak (VmHWM), in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measure(kind: str, replies: int, parameters: int) -> dict[str, float]:
    """Run one kind in this process and return its seconds and its peak of memory in bytes."""
    source = Replies(parameters)
    first = source.make(0)
    before = reset_peak()
    messages = (first if k == 0 else source.make(k) for k in range(replies))
    if kind == "stock":
        seconds = _stock(messages)
    elif kind == "one-pass":
        seconds = _one_pass(messages)
    else:
        seconds = _ours(kind, messages, first, replies)
    return {"seconds": seconds, "peak": resident("VmHWM") - before}


def _ours(kind: str, messages: Iterator[Message], first: Message, replies: int) -> float:
    order = [str(k) for k in range(replies)]
    names = order if kind == "in-order" else order[::-1]
    template = Template.of(first.content["arrays"])  # type: ignore[arg-type]
    limits = Limits(max_num_examples=10_000)
    model = decoded(first.content["arrays"], template)  # type: ignore[arg-type]
    ruler, bounds = Ruler(template, model), Bounds(OutlierRule(clip_norm=1e9), replies)
    seconds = 0.0
    kept = []  # stock keeps all replies, too
    with Fold(order, template, buffer_bytes=GIB if kind == "spilled" else 64 * GIB) as fold:
        for name, message in zip(names, messages, strict=True):
            arrival = Arrival(message.metadata.src_node_id, message, 0.0)
            began = time.perf_counter()
            reply: Admitted[None] | Quarantined = admit(
                arrival, client=name, server_round=1, template=template, limits=limits,
                contract=None, ruler=ruler,
            )  # fmt: skip
            assert isinstance(reply, Admitted), reply
            fold.hold(name, reply.arrays)
            bounds.add(name, Sizes(reply.norms, reply.update.num_examples))
            for settled, terms in bounds.settled().items():
                fold.accept(settled, terms.weight)
            seconds += time.perf_counter() - began
            if kind == "reversed":
                kept.append(message)
            del message, arrival, reply
        began = time.perf_counter()
        for settled in bounds.rest():
            fold.accept(settled, 100)
        mean = fold.finish()
        seconds += time.perf_counter() - began
        assert mean is not None
    return seconds


def _stock(messages: Iterator[Message]) -> float:
    contents = [message.content for message in messages]
    began = time.perf_counter()
    aggregate_arrayrecords(contents, "num-examples")
    return time.perf_counter() - began


def _one_pass(messages: Iterator[Message]) -> float:
    seconds = 0.0
    for message in messages:
        data = [array.data for array in message.content["arrays"].values()]  # type: ignore[union-attr]
        began = time.perf_counter()
        for payload in data:
            np.frombuffer(payload, np.float32).max()
        seconds += time.perf_counter() - began
    return seconds


def table(runs: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> str:
    """Return the table: medians, and ratios within each repeat."""
    stock = [run["seconds"] for run in runs["stock"]]
    one_pass = [run["seconds"] for run in runs["one-pass"]]
    lines = [
        f"{options.replies} replies of {options.parameters:,} float32 parameters in {ARRAYS} "
        f"arrays; {options.repeats} repeats, medians (least to most); {platform.machine()}, "
        f"Python {platform.python_version()}, NumPy {np.__version__}.",
        "",
        "| | seconds | of stock | passes over the bytes | peak above the first reply |",
        "|---|---|---|---|---|",
    ]
    for name, kind in KINDS.items():
        seconds = [run["seconds"] for run in runs[kind]]
        of_stock = [s / t for s, t in zip(seconds, stock, strict=True)]
        passes = statistics.median(s / t for s, t in zip(seconds, one_pass, strict=True))
        peak = max(run["peak"] for run in runs[kind]) / 1e9
        lines.append(
            f"| {name} | {_spread(seconds)} | {_spread(of_stock)} | {passes:.1f} | {peak:.2f} GB |"
        )
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    """Return the median, the least and the most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def write(text: str) -> None:
    """Put the table between this benchmark's marks in the results; leave the rest alone."""
    section = f"{BEGIN}\n## Decode, check and fold\n\n{text}\n\n{END}\n"
    old = RESULTS.read_text() if RESULTS.exists() else ""
    if BEGIN in old:
        before, _, rest = old.partition(BEGIN)
        new = before + section + rest.partition(END)[2].removeprefix("\n")
    else:
        new = f"{old.rstrip()}\n\n{section}" if old else section
    RESULTS.write_text(new)


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replies", type=int, default=100)
    parser.add_argument("--parameters", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="into RESULTS.md")
    parser.add_argument("--kind", choices=KINDS.values(), help="one kind, in this process")
    options = parser.parse_args()
    if options.kind:
        print(json.dumps(measure(options.kind, options.replies, options.parameters)))
        return
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS.values()}
    size = [f"--replies={options.replies}", f"--parameters={options.parameters}"]
    for _ in range(options.repeats):
        for kind, done_so_far in runs.items():
            command = [sys.executable, __file__, f"--kind={kind}", *size]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            done_so_far.append(json.loads(done.stdout.splitlines()[-1]))
    text = table(runs, options)
    print(text)
    if options.write:
        write(text)


if __name__ == "__main__":
    main()
