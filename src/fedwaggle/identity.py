"""Who a client is: the name that its sampling, its seed and its place in every sum depend on.

Node ids are random and new in every run, so nothing may depend on them. A SuperNode that was
registered with a name keeps it, and the local engine knows its nodes. Where the engine does not
know, the server asks each node once, and the client answers with its partition id and with how
many partitions there are.
"""

from __future__ import annotations

__all__ = [
    "IDENTITY_ACTION",
    "IDENTITY_KEY",
    "LABELS_ACTION",
    "LABELS_KEY",
    "client_order",
    "printable_name",
]

# What the server asks a node beside training and evaluating, and the record with the answer.
IDENTITY_ACTION = "identity"
IDENTITY_KEY = "identity"
LABELS_ACTION = "labels"
LABELS_KEY = "labels"

_LONGEST_NAME = 64  # characters


def printable_name(name: object) -> str | None:
    """Return what a client calls itself: at most 64 printable characters, or None.

    Examples
    --------
    >>> printable_name("3"), printable_name("a" * 65), printable_name(3)
    ('3', None, None)
    """
    if not isinstance(name, str) or len(name) > _LONGEST_NAME:
        return None
    return name if name.isprintable() and name.strip() else None


def client_order(name: str) -> tuple[int, str]:
    """Return the sort key of a client's name, with numbers in the order of counting.

    Examples
    --------
    >>> sorted(["10", "9", "1"], key=client_order)
    ['1', '9', '10']
    """
    return (len(name), name)
