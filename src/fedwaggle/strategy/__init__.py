"""The server side: a mixin that makes any Flower strategy read metadata and record the run."""

from fedwaggle.grids import engine_name
from fedwaggle.strategy.bounds.outliers import OutlierRule
from fedwaggle.strategy.policies import (
    Decision,
    Policy,
    RestStragglers,
    StopWhenConverged,
    policies_of,
)
from fedwaggle.strategy.rules import RoundRules
from fedwaggle.strategy.step.trainable import trainable_names
from fedwaggle.strategy.updates import (
    ClientUpdate,
    Contract,
    Evaluation,
    Quarantined,
    RoundSummary,
    Training,
)
from fedwaggle.strategy.waggle import Waggle

__all__ = [
    "ClientUpdate",
    "Contract",
    "Decision",
    "Evaluation",
    "OutlierRule",
    "Policy",
    "Quarantined",
    "RestStragglers",
    "RoundRules",
    "RoundSummary",
    "StopWhenConverged",
    "Training",
    "Waggle",
    "engine_name",
    "policies_of",
    "trainable_names",
]
