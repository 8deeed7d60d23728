"""What a run shows of itself in a notebook: one line that is updated."""

from __future__ import annotations

import html
import sys
import time
from typing import TYPE_CHECKING

from fedwaggle.engine.screen.progress import Progress, Shown

if TYPE_CHECKING:
    from flwr.app import Message

    from fedwaggle.grids import RecordedRun

__all__ = ["NotebookProgress", "is_notebook"]

_REFRESH_SECONDS = 0.1


class NotebookProgress(Progress):
    """Shows one line in a notebook, which is updated; and of Flower's log, warnings."""

    def __init__(self, shown: Shown) -> None:
        super().__init__(shown)
        from IPython.display import display

        self._gate.shut()
        self._shown = display(  # type: ignore[no-untyped-call]
            _as_html("starting"), raw=True, display_id=True
        )
        self._drawn = 0.0

    def run_recorded(self, run: RecordedRun) -> None:
        """Nothing to do: the result shows the record."""

    def pushed(self, message: Message) -> None:
        """Count a message."""
        super().pushed(message)
        self._draw(at_once=False)

    def replied(self, message: Message, reply: Message) -> None:
        """Count an answer."""
        super().replied(message, reply)
        self._draw(at_once=False)

    def round_ended(self) -> None:
        """Nothing to say: the line has shown it."""

    def close(self) -> None:
        """Show how the last round ended."""
        self._draw(at_once=True)
        super().close()

    def _draw(self, *, at_once: bool) -> None:
        now = time.monotonic()
        if not at_once and now - self._drawn < _REFRESH_SECONDS:
            return
        self._drawn = now
        self._shown.update(_as_html(self.tally.line(self.shown.num_rounds, now)), raw=True)


def _as_html(line: str) -> dict[str, str]:
    return {"text/plain": line, "text/html": f"<pre>{html.escape(line)}</pre>"}


def is_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")
