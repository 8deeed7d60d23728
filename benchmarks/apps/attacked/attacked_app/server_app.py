"""The quickstart's server, with the strategy that the environment names.

``STRATEGY`` is one of ``STRATEGIES``; without it, the quickstart's own. With ``BLIND=1`` the
server has no test set: the best model is picked by what clients report.
"""

from __future__ import annotations

import os
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedMedian, FedTrimmedAvg, Krum
from torch import nn

from fedwaggle.config import RunConfig
from fedwaggle.runs import Run
from fedwaggle.strategy import Waggle
from my_federated_project import server_app as quickstart
from my_federated_project.strategy import CustomFedAdagrad
from my_federated_project.task import TrainProcessMetadata


class Median(Waggle[TrainProcessMetadata], FedMedian):
    """The median of the weights."""


class TrimmedMean(Waggle[TrainProcessMetadata], FedTrimmedAvg):
    """The mean without the largest and the smallest fifth."""


class OneOf(Waggle[TrainProcessMetadata], Krum):
    """The update that is closest to the others."""


STRATEGIES = {
    "FedMedian": (Median, {}),
    "FedTrimmedAvg": (TrimmedMean, {"beta": 0.2}),
    "Krum": (OneOf, {"num_malicious_nodes": 1}),
}

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the quickstart with another strategy, if one is named."""
    name = os.environ.get("STRATEGY")
    if name:
        quickstart.CustomFedAdagrad = _maker(*STRATEGIES[name])  # type: ignore[misc, assignment]
    if os.environ.get("BLIND"):
        _without_test_set()
    quickstart.main(grid, context)


def _maker(cls: type[Waggle], options: dict[str, Any]) -> Any:  # noqa: ANN401  # stands in for a class
    """Return what makes a strategy of a config as ``CustomFedAdagrad.of`` does."""

    class Maker:
        @staticmethod
        def of(config: RunConfig, run: Run, model: nn.Module, **fedadagrad_only: float) -> Waggle:
            return cls.of(config, run, model, **options)

    return Maker


def _without_test_set() -> None:
    start = CustomFedAdagrad.start

    def blind(self: CustomFedAdagrad, **parameters: Any) -> Any:  # noqa: ANN401
        test = parameters.pop("evaluate_fn")
        result = start(self, **parameters)
        last = test(parameters["num_rounds"], result.arrays)
        result.evaluate_metrics_serverapp[parameters["num_rounds"]] = last
        return result

    CustomFedAdagrad.start = blind  # type: ignore[method-assign]
