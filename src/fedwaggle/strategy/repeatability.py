"""Why another run with the same seed may end with another model.

The seed decides what this library decides. It cannot decide a few things: who answers in
time, how long a client trains, what a node without a name is called, noise that keeps a secret.
A run that depends on one of them reports it, once for each cause.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    Strategy,
)

from fedwaggle.strategy.codes import Code
from fedwaggle.strategy.layers import layers_of
from fedwaggle.strategy.policies import Policy, RestStragglers
from fedwaggle.strategy.updates import Quarantined, RoundSummary

__all__ = ["Cause", "known_causes", "lost_replies"]

Cause: TypeAlias = Literal["names", "replies", "times", "noise"]

_NOISY = (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
)
_LOST = {Code.CLIENT_CRASHED, Code.CLIENT_UNAVAILABLE, Code.MESSAGE_LOST}


def known_causes(strategy: Strategy, policies: Iterable[Policy[Any]]) -> dict[Cause, str]:
    """Return the causes that are known before the first round, each with its reason.

    Parameters
    ----------
    strategy : Strategy
        The strategy.
    policies : Iterable[Policy]
        Its policies.
    """
    causes: dict[Cause, str] = {}
    for policy in policies:
        if isinstance(policy, RestStragglers):
            causes["times"] = f"{policy.name} reads training times, which differ from run to run"
    if any(isinstance(layer, _NOISY) for layer in layers_of(strategy)):
        causes["noise"] = "the noise of differential privacy has no seed, so that it stays secret"
    return causes


def lost_replies(summary: RoundSummary[Any]) -> str | None:
    """Return why a round cannot be repeated: replies that came too late or never; else None.

    Parameters
    ----------
    summary : RoundSummary
        The round. Clients that raise an exception have answered, and would do so again.
    """
    training, evaluation = summary.training, summary.evaluation
    lost = {
        "train": _lost(training.missing, training.quarantined),
        "evaluate": _lost(evaluation.missing, evaluation.quarantined),
    }
    said = [f"{len(names)} to {phase} ({_some(names)})" for phase, names in lost.items() if names]
    if not said:
        return None
    return (
        f"in round {summary.server_round}, clients that were asked did not answer in time, or "
        f"crashed: {' and '.join(said)}; they may answer in another run"
    )


def _lost(missing: Sequence[str], quarantined: Sequence[Quarantined]) -> list[str]:
    return [*missing, *(bad.client for bad in quarantined if bad.code in _LOST)]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
