"""What a simulation returns: the record of the run as values and tables, and its best model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fedwaggle.errors import RunError
from fedwaggle.runs import RunRecord, load
from fedwaggle.runs.paths import BEST, REPORT
from fedwaggle.runs.report.drawing import draw_report
from fedwaggle.simulation.page import result_page

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    N = TypeVar("N", bound=nn.Module)

__all__ = ["SimulationResult"]


@dataclass(frozen=True)
class SimulationResult:
    """A simulation that has ended. A notebook shows it as a curve and a table.

    Attributes
    ----------
    value : Any
        What the server's main function returned.
    seconds : float
        Wall time (s).
    messages, errors : int
        Messages that were sent, and how many were answered by an error.
    path : Path | None
        The folder of the run; None if the app kept no record, as one without the ``Waggle`` mixin
        does not.
    """

    value: Any
    seconds: float
    messages: int
    errors: int
    path: Path | None

    @cached_property
    def record(self) -> RunRecord:
        """The record of the run: rounds, updates, decisions.

        Raises
        ------
        RunError
            If the app kept none.
        """
        return load(self._folder)

    @property
    def metrics(self) -> dict[str, Any]:
        """The server's evaluation of the last model; see :attr:`record` for errors."""
        return dict(self.record.metrics)

    def rounds_to_pandas(self) -> pd.DataFrame:
        """Return a table with a row for each round; see :meth:`RunRecord.rounds_to_pandas`."""
        return self.record.rounds_to_pandas()

    def updates_to_pandas(self) -> pd.DataFrame:
        """Return a table with a row for each client's update; see :meth:`RunRecord.to_pandas`."""
        return self.record.to_pandas()

    def best_model(self, model: N) -> N:
        """Load the best weights of the run into a model, and return the model.

        Parameters
        ----------
        model : torch.nn.Module
            A model with the names and shapes of the global model; it is changed.

        Raises
        ------
        RunError
            If the app kept no record, or no best model.
        """
        import torch

        file = self._folder / BEST
        if not file.is_file():
            raise RunError(
                f"{file}: expected the best model, but none was kept; best-metric must name a "
                "metric that the server's evaluation returns"
            )
        model.load_state_dict(torch.load(file, weights_only=True))
        return model

    def report(self) -> Path:
        """Return the file of the report, one HTML page; it is drawn if it is not there.

        Raises
        ------
        RunError
            If the app kept no record.
        """
        file = self._folder / REPORT
        if not file.is_file():
            draw_report(self._folder)
        return file

    @property
    def _folder(self) -> Path:
        if self.path is None:
            raise RunError(
                "the app kept no record: expected a strategy with the Waggle mixin that was given "
                "a run (open_run); what the server's main function returned is in value"
            )
        return self.path

    def _repr_html_(self) -> str:
        """Return the result as a notebook shows it."""
        figures = f"{self.messages:,} messages, {self.errors:,} errors, {self.seconds:.1f} s"
        return result_page(None if self.path is None else self.record, figures)
