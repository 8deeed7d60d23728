"""``waggle``: run an app, begin a new one, and look at what runs have recorded.

Each command imports what it needs when it is called: ``waggle --help`` and the commands that
only read must not wait for PyTorch and Flower.
"""

from __future__ import annotations

from fedwaggle.cli import new, run, show
from fedwaggle.cli.base import app

app.command(name="run")(run.run)
app.command(name="new")(new.new)
app.command(name="runs")(show.runs)
app.command(name="report")(show.report)
app.command(name="watch")(show.watch)
app.command(name="compare")(show.compare)
app.command(name="track")(show.track)

__all__ = ["app"]
