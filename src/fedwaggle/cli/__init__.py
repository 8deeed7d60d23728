"""``waggle``: run an app, begin a new one, and look at what runs have recorded.

Each command imports what it needs when it is called: ``waggle --help`` and the commands that
only read must not wait for PyTorch and Flower.
"""

from __future__ import annotations

from fedwaggle.cli import config, new, run, show
from fedwaggle.cli.base import Command, app

app.command(name="run", cls=Command)(run.run)
app.command(name="new", cls=Command)(new.new)
app.command(name="config", cls=Command)(config.config)
app.command(name="runs", cls=Command)(show.runs)
app.command(name="list", cls=Command, hidden=True)(show.runs)
app.command(name="report", cls=Command)(show.report)
app.command(name="watch", cls=Command)(show.watch)
app.command(name="compare", cls=Command)(show.compare)
app.command(name="export", cls=Command)(show.export)
app.command(name="track", cls=Command)(show.track)

__all__ = ["app"]
