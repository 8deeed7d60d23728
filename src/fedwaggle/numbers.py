"""Numbers of a record as text; those that are no ordinary ones are shown, and break nothing."""

from __future__ import annotations

import math

__all__ = ["MAX_MAGNITUDE", "as_float", "is_ordinary", "number_text", "value_text"]

MAX_MAGNITUDE = 1e100
"""Of an ordinary number: sums, axes and bins of ordinary numbers do not overflow."""

_SHARES = ("acc", "precision", "recall")
"""In the names of metrics that are shares of what is right."""


def as_float(value: float) -> float:
    """Return a number of an event as a float; JSON has integers beyond all floats.

    Examples
    --------
    >>> as_float(3), as_float(-(10**400))
    (3.0, -inf)
    """
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def is_ordinary(value: float) -> bool:
    """Return whether sums and axes can hold a number.

    Examples
    --------
    >>> is_ordinary(-0.5), is_ordinary(1e308), is_ordinary(math.nan)
    (True, False, False)
    """
    return abs(value) <= MAX_MAGNITUDE


def number_text(value: float, *, digits: int = 4) -> str:
    """Return a number at a few significant digits.

    Examples
    --------
    >>> number_text(0.88731), number_text(6000), number_text(float("nan"))
    ('0.8873', '6,000', 'NaN')
    """
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else "-∞")
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.{digits}g}"


def value_text(metric: str, value: float) -> str:
    """Return the value of a metric, with the unit that its name implies.

    Shares of what is right, such as an accuracy, are percentages if they are between 0 and 1.

    Examples
    --------
    >>> value_text("accuracy", 0.8873), value_text("loss", 0.31234)
    ('88.73 %', '0.3123')
    """
    if any(word in metric.lower() for word in _SHARES) and 0 <= value <= 1:
        return f"{100 * value:.2f} %"
    return number_text(value)
