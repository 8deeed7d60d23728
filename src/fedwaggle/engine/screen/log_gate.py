"""What of Flower's log is shown: of a run that is shown as a table, warnings and errors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

__all__ = ["LogGate"]


class LogGate:
    """Holds the lines below warnings back until it is known how the run is shown.

    An app that keeps a record has a table, and its log would say the same in more words. Another
    app has nothing but the log.
    """

    def __init__(self) -> None:
        self._held: list[tuple[logging.Handler, logging.LogRecord]] = []
        self._filters: list[tuple[logging.Handler, Callable[[logging.LogRecord], bool]]] = []
        self._is_open: bool | None = None  # None: not known yet

    def attach(self, logger: logging.Logger) -> None:
        """Stand before the handlers that a logger has now."""
        for handler in logger.handlers:
            gate = partial(self._passes, handler)
            handler.addFilter(gate)
            self._filters.append((handler, gate))

    def open(self) -> None:
        """Let all lines through, those that were held first; nothing if it was shut before."""
        if self._is_open is None:
            self._is_open = True
            for handler, record in self._held:
                handler.handle(record)
            self._held.clear()

    def shut(self) -> None:
        """Drop what is below a warning, from the first line on."""
        self._is_open = False
        self._held.clear()

    def detach(self) -> None:
        """Let what is still held through, and go away."""
        self.open()
        for handler, gate in self._filters:
            handler.removeFilter(gate)
        self._filters.clear()

    def _passes(self, handler: logging.Handler, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING or self._is_open:
            return True
        if self._is_open is None:
            self._held.append((handler, record))
        return False
