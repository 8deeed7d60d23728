"""The page on own data: its examples run."""

from __future__ import annotations

import doctest
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "data.md"


def test_the_examples_of_the_page_run() -> None:
    failures, examples = doctest.testfile(str(DOCUMENT), module_relative=False)
    assert examples > 0
    assert failures == 0
