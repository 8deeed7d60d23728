"""Text that somebody else wrote, made safe to show.

A client's words end up in terminals, logs and pages. They are data: control codes are taken
out, and they are cut at a length that the reader chose.
"""

from __future__ import annotations

import re
import reprlib

__all__ = ["printable", "shown", "text_of"]

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def printable(text: str, limit: int = 500) -> str:
    r"""Return ``text`` on one line, without control codes, at most ``limit`` characters long.

    Parameters
    ----------
    text : str
        Any text.
    limit : int
        The most characters that come back; a cut text ends in an ellipsis.

    Examples
    --------
    >>> printable("\x1b[31mboom\x1b[0m\nat line 3\x07")
    'boom at line 3'
    >>> printable("abcdef", limit=4)
    'abc…'
    """
    # A hostile text may be huge: nothing past a few times the limit can matter.
    plain = _ANSI.sub("", text[: 8 * limit])
    spaced = "".join(c if c.isprintable() else " " for c in plain)
    line = " ".join(spaced.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def shown(value: object) -> str:
    """Return the type and a short form of a value.

    Examples
    --------
    >>> shown("a" * 1000)
    "str 'aaaaaaaaaaaa...aaaaaaaaaaaaa'"
    """
    try:
        short = reprlib.repr(value)
    except ValueError:  # Python refuses to write out a very large int
        short = "..."
    return printable(f"{type(value).__name__} {short}", 80)


def text_of(value: object) -> str:
    """Return ``str(value)``, also of a value of somebody else's class that cannot be printed."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001  # it is their code
        return f"<{type(value).__name__} that cannot be printed>"
