"""The runs below a folder: found by name, listed, and shown as a table.

::

    names        a name that people can remember, by the folder
    finding      the runs of a folder as values, and one of them by its name
    table        the list for a terminal
"""

from __future__ import annotations

from fedwaggle.runs.listing.finding import RunListing, find_run, list_runs, record_in_short

__all__ = ["RunListing", "find_run", "list_runs", "record_in_short"]
