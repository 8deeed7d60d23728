"""Event streams that look like those of real runs, for the tests of what reads them.

The same arguments give the same events. Losses fall, a few clients are slow, some never answer,
and some replies are refused.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from fedwaggle.runs.events import (
    BestModel,
    CheckpointSaved,
    ClientQuarantined,
    ClientUpdated,
    DecisionTaken,
    Event,
    MetadataProblem,
    RoundFinished,
    RoundStarted,
    RunFinished,
    RunStarted,
    to_line,
)

MODEL_BYTES = 178_000
HOSTILE = "<b>7</b><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"

_REASONS = {
    "not-finite": "arrays: conv1.weight has 3 values that are NaN; the update is not used",
    "wrong-shape": "arrays: fc3.bias has shape (12,), expected (10,)",
    "client-error": "the client answered with an error: RuntimeError: out of memory",
}


@dataclass(frozen=True)
class Federation:
    """What kind of a run the events tell of."""

    rounds: int = 20
    clients: int = 10
    fraction: float = 0.5
    epochs: int = 5
    seed: int = 0
    lr: float = 0.01
    trouble: float = 0.03  # the share of replies that are refused, and of those that never come
    metadata: bool = True
    metric: str = "accuracy"
    begin: datetime = datetime(2026, 1, 2, 9, 0, tzinfo=UTC)


def run_events(kind: Federation = Federation()) -> list[Event]:
    """Return the events of a run that ended well."""
    return list(_Teller(kind).events())


def write_run(folder: Path, events: Sequence[Event]) -> Path:
    """Write ``events.jsonl`` into a folder, which is made, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(to_line(event) + "\n" for event in events)
    (folder / "events.jsonl").write_text(text)
    return folder


def hostile_events() -> list[Event]:
    """Return the events of a run whose clients put markup wherever they have a say."""
    kind = Federation(rounds=8, clients=4, fraction=1.0, trouble=0.3)
    return [event.model_copy(update=_hostile(event)) for event in run_events(kind)]


def _hostile(event: Event) -> dict[str, Any]:
    match event:
        case ClientUpdated():
            said = {HOSTILE: 1.0, f"{HOSTILE}?": True, "losses": {f"{HOSTILE}1": 1.0}}
            return {
                "client": HOSTILE + event.client,
                "metadata": {**(event.metadata or {}), **said},
                "metadata_error": MetadataProblem(code=HOSTILE, message=HOSTILE, paths=[HOSTILE]),
            }
        case ClientQuarantined():
            return {"client": HOSTILE, "code": HOSTILE, "reason": HOSTILE}
        case DecisionTaken():
            return {"policy": HOSTILE, "reason": HOSTILE, "clients": [HOSTILE]}
        case RoundFinished():
            metrics = {HOSTILE: 1.0, "__proto__": 2.0}
            phases = {HOSTILE: 1.0, "%{x}": 2.0}
            return {"missing": [HOSTILE], "train_metrics": metrics, "phases": phases}
        case RunStarted():
            return {"name": HOSTILE, "config": {HOSTILE: HOSTILE}}
        case _:
            return {}


class _Teller:
    def __init__(self, kind: Federation) -> None:
        self.kind = kind
        self.dice = random.Random(kind.seed)
        self.now = kind.begin
        self.best: BestModel | None = None
        self.slowness = 4 * (0.01 / kind.lr) ** 0.5  # rounds
        names = [str(i) for i in range(kind.clients)]
        self.speed = {c: math.exp(self.dice.gauss(0, 0.25)) for c in names}
        self.speed[names[-1]] *= 4
        self.examples = {c: int(600 * math.exp(self.dice.gauss(0, 0.5))) for c in names}
        self.difficulty = {c: math.exp(self.dice.gauss(0, 0.15)) for c in names}

    def events(self) -> Iterator[Event]:
        kind = self.kind
        config = {"num-server-rounds": kind.rounds, "lr": kind.lr, "local-epochs": kind.epochs}
        yield RunStarted(
            time=self.now,
            name="quickstart",
            strategy="CustomFedAdagrad",
            engine="local",
            num_rounds=kind.rounds,
            nodes=kind.clients,
            config={**config, "seed": kind.seed, "dataset": "fashion-mnist-mini"},
            seed=kind.seed,
            versions={"python": "3.11.2", "flwr": "1.42.0", "torch": "2.13.0"},
            sha256=_hash("initial", kind.seed),
        )
        yield self._end(0, [], [], None)
        for number in range(1, kind.rounds + 1):
            yield from self._round(number)
        yield RunFinished(
            time=self.now,
            rounds=kind.rounds,
            best=self.best,
            metrics=self._model(kind.rounds),
            sha256=_hash("final", kind),
            seconds=(self.now - kind.begin).total_seconds(),
        )

    def _round(self, number: int) -> Iterator[Event]:
        kind, dice = self.kind, self.dice
        size = max(1, round(kind.fraction * kind.clients))
        cohort = sorted(dice.sample(sorted(self.speed), size), key=int)
        lr = kind.lr * 0.5 ** (number // 5)
        yield RoundStarted(
            time=self.now,
            round=number,
            learning_rate=lr,
            sampled=size,
            available=kind.clients,
            clients=cohort,
            bytes_down=size * MODEL_BYTES,
        )
        replies: list[ClientUpdated | ClientQuarantined] = []
        missing = []
        for client in cohort:
            fate = dice.random()
            if fate < kind.trouble / 2:
                missing.append(client)
            elif fate < kind.trouble:
                replies.append(self._refused(number, client))
            else:
                replies.append(self._update(number, client))
        replies.sort(key=lambda reply: reply.seconds)
        yield from replies
        self.now += timedelta(seconds=max((r.seconds for r in replies), default=1) + 0.3)
        if number % 8 == 0:
            yield DecisionTaken(
                time=self.now,
                round=number,
                policy="ExcludeStragglers",
                action="leave out for the next round",
                reason="training took 12.1 s, 3.9 times the cohort's median of 3.1 s",
                clients=[cohort[-1]],
            )
        end = self._end(number, replies, missing, lr)
        yield end
        yield from self._checkpoint(end)

    def _update(self, number: int, client: str) -> ClientUpdated:
        kind, dice = self.kind, self.dice
        seconds = 3 * self.speed[client] * math.exp(dice.gauss(0, 0.08))
        start = self._loss(number) * self.difficulty[client]
        losses = [start * (0.55 + 0.45 * math.exp(-0.5 * e)) for e in range(kind.epochs)]
        metadata: dict[str, Any] = {
            "training_time": seconds,
            "converged": number > 6 * self.difficulty[client] and dice.random() < 0.8,
            "training_losses": {f"epoch_{e + 1}": loss for e, loss in enumerate(losses)},
            "battery_percent": 100 - 80 * number / max(kind.rounds, 1) * dice.random(),
            "on_mains": dice.random() < 0.7,
        }
        return ClientUpdated(
            time=self.now + timedelta(seconds=seconds),
            round=number,
            client=client,
            node_id=str(10**18 + int(client)),
            num_examples=self.examples[client],
            metrics={"train_loss": losses[-1], "num-examples": self.examples[client]},
            metadata=metadata if kind.metadata else None,
            seconds=seconds + 0.2,
            bytes=MODEL_BYTES + 400,
        )

    def _refused(self, number: int, client: str) -> ClientQuarantined:
        code = self.dice.choice(sorted(_REASONS))
        seconds = 2 * self.speed[client]
        return ClientQuarantined(
            time=self.now + timedelta(seconds=seconds),
            round=number,
            client=client,
            node_id=str(10**18 + int(client)),
            code=code,
            reason=_REASONS[code],
            seconds=seconds,
        )

    def _end(
        self,
        number: int,
        replies: Sequence[ClientUpdated | ClientQuarantined],
        missing: list[str],
        lr: float | None,
    ) -> RoundFinished:
        updates = [reply for reply in replies if isinstance(reply, ClientUpdated)]
        train = max((reply.seconds for reply in replies), default=0.0)
        phases = {"train": train, "aggregate": 0.05, "evaluate": 0.2, "commit": 0.03}
        if not number:
            phases = {"evaluate": 0.2}
        self.now += timedelta(seconds=0.3)
        return RoundFinished(
            time=self.now,
            round=number,
            learning_rate=lr,
            metrics=self._model(number),
            train_metrics={"train_loss": 0.8 * self._loss(number)} if updates else {},
            updates=len(updates),
            quarantined=len(replies) - len(updates),
            missing=missing,
            bytes_up=len(updates) * MODEL_BYTES,
            phases=phases,
            seconds=sum(phases.values()),
        )

    def _checkpoint(self, end: RoundFinished) -> Iterator[Event]:
        value = end.metrics[self.kind.metric]
        assert isinstance(value, float)
        if self.best and value <= self.best.value:
            return
        digest = _hash("best", self.kind, end.round)
        self.best = BestModel(round=end.round, metric=self.kind.metric, value=value, sha256=digest)
        yield CheckpointSaved(
            time=self.now,
            file="best.pth",
            bytes=MODEL_BYTES,
            **self.best.model_dump(),
        )

    def _loss(self, number: int) -> float:
        return 2.3 * math.exp(-number / (1.5 * self.slowness)) + 0.35

    def _model(self, number: int) -> dict[str, float]:
        wobble = random.Random(f"{self.kind.seed} {number}").gauss(0, 0.006)
        score = 0.1 + 0.78 * (1 - math.exp(-number / self.slowness)) + wobble
        return {"loss": self._loss(number) - wobble, self.kind.metric: score}


def _hash(*parts: object) -> str:
    return sha256(" ".join(map(str, parts)).encode()).hexdigest()
