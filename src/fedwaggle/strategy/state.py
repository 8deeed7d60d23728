"""The state of a run between two rounds: one value that can be saved, compared and resumed.

Everything that the next round depends on is in it, or in the Flower strategy behind the mixin
(FedAdagrad's v_t, FedAvgM's momentum, a clipping norm), whose own numbers are read from its
attributes and put back there. What it holds that has a state of its own goes along: a strategy
that it wraps, and everything with ``state_dict`` and ``load_state_dict``, such as the accountant
of a privacy budget.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord
from flwr.serverapp.strategy import Result, Strategy
from numpy.typing import NDArray

from fedwaggle.errors import RunError
from fedwaggle.runs.checkpoints import Snapshot
from fedwaggle.runs.events import BestModel, Event, RoundFinished, UnknownEvent
from fedwaggle.runs.reading import current_events
from fedwaggle.strategy.cohort.attendance import Attendance

__all__ = ["RunState", "from_snapshot", "restore_strategy", "to_ndarrays", "to_snapshot"]

logger = logging.getLogger("flwr.fedwaggle.strategy")

Histories = Mapping[str, Mapping[int, Mapping[str, Any]]]

_HISTORIES = (
    "train_metrics_clientapp",
    "evaluate_metrics_clientapp",
    "evaluate_metrics_serverapp",
)


@dataclass(frozen=True)
class RunState:
    """A run at the end of a round.

    Attributes
    ----------
    server_round : int
        The round; 0 is the initial model.
    arrays : ArrayRecord
        The global model.
    best : BestModel | None
        The best model so far.
    attendance : Attendance
        Who did not answer lately.
    skipped : int
        Rounds in a row that were skipped.
    stopped : bool
        Whether a policy has ended the run.
    policies : Mapping[str, Mapping[str, Any]]
        What each policy remembers, by its name.
    histories : Mapping[str, Mapping[int, Mapping[str, Any]]]
        The metrics of every round, under the names of Flower's ``Result``.
    """

    server_round: int
    arrays: ArrayRecord
    best: BestModel | None = None
    attendance: Attendance = field(default_factory=Attendance)
    skipped: int = 0
    stopped: bool = False
    policies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    histories: Histories = field(default_factory=dict)

    def with_metrics(self, server_round: int, **metrics: Mapping[str, Any]) -> Histories:
        """Return the histories with a round's metrics added, where there are any."""
        return {
            name: {
                **self.histories.get(name, {}),
                **({server_round: dict(metrics[name])} if metrics.get(name) else {}),
            }
            for name in _HISTORIES
        }

    def result(self) -> Result:
        """Return Flower's result of the run so far."""
        records = {
            name: {r: MetricRecord(dict(values)) for r, values in history.items()}
            for name, history in self.histories.items()
        }
        return Result(arrays=self.arrays, **records)


def to_ndarrays(arrays: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Return the arrays of a record, by name."""
    return {name: array.numpy() for name, array in arrays.items()}


def to_snapshot(
    state: RunState,
    strategy: Strategy,
    client_states: Mapping[str, bytes],
    settings: frozenset[str] = frozenset(),
    seed: int = 0,
) -> Snapshot:
    """Return everything that the next round depends on.

    Parameters
    ----------
    state : RunState
        The state of the run.
    strategy : Strategy
        The strategy; its own numbers are read.
    client_states : Mapping[str, bytes]
        What the clients keep between rounds, by name, where the engine holds it.
    settings : frozenset[str]
        Attributes of the strategy that are no state: they are not read.
    seed : int
        The seed that decides the rounds.
    """
    arrays = {f"model/{name}": array for name, array in to_ndarrays(state.arrays).items()}
    values = _without(settings, _strategy_values(strategy, arrays))
    for client, content in client_states.items():
        arrays[f"client/{client}"] = np.frombuffer(content, np.uint8)
    return Snapshot(
        state.server_round,
        arrays,
        {
            "model": list(state.arrays),
            "seed": seed,
            "strategy": values,
            "best": state.best.model_dump() if state.best else None,
            "misses": dict(state.attendance.misses),
            "rests_until": dict(state.attendance.rests_until),
            "skipped": state.skipped,
            "stopped": state.stopped,
            "policies": {name: dict(memory) for name, memory in state.policies.items()},
        },
    )


def from_snapshot(
    snapshot: Snapshot, record: Iterable[Event | UnknownEvent]
) -> tuple[RunState, dict[str, bytes]]:
    """Return the state of the run, and the states of its clients.

    Parameters
    ----------
    snapshot : Snapshot
        The resume point.
    record : Iterable[Event | UnknownEvent]
        The events of the run: they hold the metrics of its rounds, so that a resume point does
        not grow with every round.

    Raises
    ------
    RunError
        If the snapshot lacks something.
    """
    values = snapshot.values
    try:
        arrays = {name: Array(array) for name, array in snapshot.model.items()}
        state = RunState(
            server_round=snapshot.server_round,
            arrays=ArrayRecord(arrays),
            best=snapshot.best,
            attendance=Attendance(values["misses"], values["rests_until"]),
            skipped=values["skipped"],
            stopped=values["stopped"],
            policies=values["policies"],
            histories=_histories(record, snapshot.server_round),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"snapshot of round {snapshot.server_round}: {error!r}") from error
    prefix = "client/"
    clients = {
        name.removeprefix(prefix): array.tobytes()
        for name, array in snapshot.arrays.items()
        if name.startswith(prefix)
    }
    return state, clients


def _histories(record: Iterable[Event | UnknownEvent], server_round: int) -> Histories:
    """Return the metrics of the rounds up to ``server_round``, as the record has them."""
    histories: dict[str, dict[int, Mapping[str, Any]]] = {name: {} for name in _HISTORIES}
    for event in current_events(record):
        if isinstance(event, RoundFinished) and event.round <= server_round:
            groups = (event.train_metrics, event.evaluate_metrics, event.metrics)
            for history, metrics in zip(histories.values(), groups, strict=True):
                if metrics:
                    history[event.round] = metrics
    return histories


def restore_strategy(
    strategy: Strategy,
    snapshot: Snapshot,
    *,
    settings: frozenset[str] = frozenset(),
    given: frozenset[str] = frozenset(),
) -> None:
    """Put a strategy's own numbers back.

    Parameters
    ----------
    strategy : Strategy
        A strategy as its constructor made it.
    snapshot : Snapshot
        The snapshot of an equal one.
    settings : frozenset[str]
        Attributes of the strategy that are no state: they stay, whatever the snapshot states.
    given : frozenset[str]
        Attributes that keep what the constructor gave them, in a wrapped strategy too. What has
        a state of its own (a wrapped strategy, an accountant) gets it back all the same.

    Raises
    ------
    RunError
        If something refuses the state that it is given back, as an accountant does whose budget
        was changed.
    """
    stored = _without(settings, snapshot.values["strategy"])
    _restore(strategy, stored, snapshot.arrays, given)


def _without(settings: frozenset[str], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is stored of a strategy without its settings."""
    attributes = stored.get("attributes", {})
    kept = {name: value for name, value in attributes.items() if name not in settings}
    return {**stored, "attributes": kept}


def _restore(
    part: Any,  # noqa: ANN401  # a strategy, or whatever one may hold
    stored: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    given: frozenset[str],
    path: str = "strategy",
) -> None:
    if "state_dict" in stored:
        try:
            part.load_state_dict(_unflatten(stored["state_dict"], arrays))
        except ValueError as error:
            raise RunError(
                f"{path}: refuses its state at the resume point ({error}); make it as it was made "
                "in that run, or begin a new run"
            ) from error
    for name, value in stored.get("attributes", {}).items():
        # Numbers go back where there are numbers: never over a function or an accountant.
        if name not in given and _is_numeric(getattr(part, name, None)):
            setattr(part, name, _unflatten(value, arrays))
    parts, wrapped = _parts(part), stored.get("wrapped", {})
    for name in sorted({*parts, *wrapped}):
        if name not in wrapped:
            logger.warning("%s.%s: begins anew, its state could not be kept", path, name)
        elif name not in parts:
            logger.warning("%s.%s: is not there any more, its state is dropped", path, name)
        else:
            _restore(parts[name], wrapped[name], arrays, given, f"{path}.{name}")


def _strategy_values(
    strategy: Strategy, arrays: dict[str, NDArray[Any]], path: str = "strategy"
) -> dict[str, Any]:
    """Return a strategy's numbers as JSON; its arrays are put into ``arrays``.

    A strategy that has ``state_dict`` and ``load_state_dict`` states itself what to keep.
    Flower's privacy strategies wrap another one, and may hold an accountant, which count as well.
    """
    wrapped = {}
    for name, part in _parts(strategy).items():
        if isinstance(part, Strategy):
            wrapped[name] = _strategy_values(part, arrays, f"{path}/{name}")
        elif _is_numeric(content := part.state_dict()):  # no torch module's is: it has tensors
            flat = _flatten(content, f"{path}/{name}/state_dict", arrays)
            wrapped[name] = {"state_dict": flat}
    if _has_state_dict(strategy):
        content = _flatten(strategy.state_dict(), f"{path}/state_dict", arrays)  # type: ignore[attr-defined]
        return {"state_dict": content, "wrapped": wrapped}
    attributes = {
        name: _flatten(value, f"{path}/{name}", arrays)
        for name, value in vars(strategy).items()
        if name not in _DERIVED and _is_numeric(value)
    }
    return {"attributes": attributes, "wrapped": wrapped}


def _parts(value: object) -> dict[str, Any]:
    """Return what a strategy holds that has a state of its own; nothing else has such parts."""
    held = vars(value) if isinstance(value, Strategy) else {}
    return {n: v for n, v in held.items() if isinstance(v, Strategy) or _has_state_dict(v)}


def _has_state_dict(value: object) -> bool:
    return not isinstance(value, type) and all(
        callable(getattr(value, verb, None)) for verb in ("state_dict", "load_state_dict")
    )


_DERIVED = {"current_arrays"}  # FedOpt's copy of the global model, set anew in every round


def _is_numeric(value: object) -> bool:
    """Whether a value is made of numbers, texts and arrays alone."""
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _is_numeric(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(_is_numeric(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str | np.ndarray | np.generic)


def _flatten(value: object, path: str, arrays: dict[str, NDArray[Any]]) -> Any:  # noqa: ANN401
    """Return a value as JSON, in which an array is the path that it has in ``arrays``."""
    if isinstance(value, np.ndarray | np.generic):
        arrays[path] = np.asarray(value)
        return {"array": path, "scalar": isinstance(value, np.generic)}
    if isinstance(value, Mapping):
        return {"map": {k: _flatten(v, f"{path}/{k}", arrays) for k, v in value.items()}}
    if isinstance(value, list | tuple):
        items = [_flatten(item, f"{path}/{k}", arrays) for k, item in enumerate(value)]
        return {"list": items, "tuple": isinstance(value, tuple)}
    return value


def _unflatten(stored: object, arrays: Mapping[str, NDArray[Any]]) -> Any:  # noqa: ANN401
    """Return the value that :func:`_flatten` was given."""
    if not isinstance(stored, dict):
        return stored
    if "array" in stored:
        array = arrays[stored["array"]]
        return array[()] if stored["scalar"] else array.copy()
    if "map" in stored:
        return {key: _unflatten(item, arrays) for key, item in stored["map"].items()}
    items = [_unflatten(item, arrays) for item in cast("list[object]", stored["list"])]
    return tuple(items) if stored["tuple"] else items
