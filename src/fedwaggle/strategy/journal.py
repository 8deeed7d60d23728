"""The server's side of the run record: what the round loop saw, told as events.

The loop calls one method at each turn. The journal writes the event, and at the end of a round
offers the model to the best checkpoint. Without a run it only logs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from pydantic import TypeAdapter

from fedwaggle.runs import Run
from fedwaggle.runs.checkpoints import BestModel, model_sha256, offer_best, save_final
from fedwaggle.runs.events import (
    ClientQuarantined,
    ClientUpdated,
    Event,
    RoundFinished,
    RoundStarted,
    RunFinished,
    RunStarted,
)
from fedwaggle.strategy.rounds import Evaluation, RoundSummary, Training
from fedwaggle.strategy.updates import ClientUpdate, Quarantined

__all__ = ["Journal"]
