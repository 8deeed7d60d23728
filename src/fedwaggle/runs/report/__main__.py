"""``python -m fedwaggle.runs.report RUN SECONDS``: draw one report, and end.

The exit status is 0, or :data:`NOT_WRITTEN` if the page was drawn and there is no room for it. Of
what went wrong, the last line on standard error is the reason.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from fedwaggle.errors import RunError
from fedwaggle.runs.paths import REPORT
from fedwaggle.runs.report.drawing import NOT_WRITTEN
from fedwaggle.runs.report.render import render, write_page


def main(run: str, seconds: str) -> int:
    """Draw the report of the run in a folder, and return the exit status."""
    signal.alarm(int(seconds))  # if whoever waits for it was killed, nobody else ends it
    page = render(Path(run))
    try:
        write_page(Path(run) / REPORT, page)
    except RunError as error:
        print(error, file=sys.stderr)
        return NOT_WRITTEN
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
