"""``waggle``: run an app, begin a new one, and look at what runs have recorded.

Each command imports what it needs when it is called: ``waggle --help`` and the commands that
only read must not wait for PyTorch and Flower.
"""

from __future__ import annotations

from fedwaggle.cli import config, new, read, run
from fedwaggle.cli.base import Command, app

app.command(name="run", cls=Command)(run.run)
app.command(name="new", cls=Command)(new.new)
app.command(name="config", cls=Command)(config.config)
app.command(name="runs", cls=Command)(read.runs)
app.command(name="list", cls=Command, hidden=True)(read.runs)
app.command(name="report", cls=Command)(read.report)
app.command(name="watch", cls=Command)(read.watch)
app.command(name="compare", cls=Command)(read.compare)
app.command(name="export", cls=Command)(read.export)
app.command(name="track", cls=Command)(read.track)

__all__ = ["app"]
