"""Numbers and strangers' words, made fit for a page."""

from __future__ import annotations

import html
import math
import re

from fedwaggle.numbers import number_text
from fedwaggle.text import printable

__all__ = [
    "bytes_text",
    "natural_key",
    "plotly_text",
    "seconds_text",
    "title_text",
]

_UNITS = ("kB", "MB", "GB", "TB", "PB")
_MOST_SECONDS = 1e9  # 30 years; beyond, hours are no help


def bytes_text(count: float) -> str:
    """Return a size with a decimal unit.

    Examples
    --------
    >>> bytes_text(950), bytes_text(1_250_000), bytes_text(999_999)
    ('950 B', '1.25 MB', '1 MB')
    """
    count = float(f"{count:.3g}")  # what is shown, so that 1,000 of a unit are one of the next
    if count < 1000:
        return f"{count:.0f} B"
    power = min(int(math.log10(count) // 3), len(_UNITS))
    return f"{count / 1000**power:.3g} {_UNITS[power - 1]}"


def seconds_text(seconds: float) -> str:
    """Return a duration as a person would write it.

    Examples
    --------
    >>> seconds_text(0.0421), seconds_text(7.25), seconds_text(95), seconds_text(7384)
    ('42 ms', '7.2 s', '1 min 35 s', '2 h 03 min')
    >>> seconds_text(-2.5), seconds_text(1e308)  # a client may say anything
    ('-2.5 s', '1e+308 s')
    """
    if not abs(seconds) <= _MOST_SECONDS:  # NaN is not, either
        return f"{number_text(seconds)} s"
    if seconds < 0:
        return f"-{seconds_text(-seconds)}"
    if seconds < 0.9995:
        return f"{1000 * abs(seconds):.0f} ms"  # -0.0 is not below 0
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def plotly_text(text: str, limit: int = 60) -> str:
    """Return a text that Plotly shows as it stands: it reads tags and entities in its texts.

    Examples
    --------
    >>> plotly_text("<b>7</b> & more")
    '&lt;b&gt;7&lt;/b&gt; &amp; more'
    """
    return html.escape(printable(text, limit), quote=False)


def title_text(name: str, limit: int = 60) -> str:
    """Return the name of a field or a metric as words.

    Examples
    --------
    >>> title_text("slowest_training_time")
    'Slowest training time'
    """
    words = printable(name.replace("_", " "), limit) or printable(name, limit)
    return words[:1].upper() + words[1:]


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort names as people do: ``site-2`` before ``site-10``.

    Examples
    --------
    >>> sorted(["10", "site-10", "site-2", "9"], key=natural_key)
    ['9', '10', 'site-2', 'site-10']
    """
    parts = re.findall(r"[0-9]{1,18}|[^0-9]+|[0-9]+", text[:200])
    return [
        (0, int(part), "") if part.isascii() and part.isdigit() and len(part) < 19 else (1, 0, part)
        for part in parts
    ]
