"""A stranger's words are safe to print: one line, no control codes, cut."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedwaggle.text import printable, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain words", "plain words"),
        ("  a\tb\r\nc  ", "a b c"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[1;1Hgone", "gone"),  # clears the screen
        ("\x1b]0;title\x07bell", "]0;title bell"),  # a window's title: the text stays, no code
        ("safe\u202egnp.exe", "safe gnp.exe"),  # writes backwards from here
        ("zero\u200bwidth", "zero width"),
        ("lone\ud800surrogate", "lone surrogate"),  # could not be encoded
        ("é 漢字 😀", "é 漢字 😀"),
        ("", ""),
    ],
)
def test_control_codes_are_taken_out_and_words_are_kept(text: str, expected: str) -> None:
    """Terminals obey codes; a log must not."""
    assert printable(text) == expected


@given(st.text(), st.integers(1, 50))
def test_what_comes_back_is_printable_and_short(text: str, limit: int) -> None:
    """For any text, and again for what came back."""
    line = printable(text, limit)
    assert len(line) <= limit
    assert line.isprintable()
    line.encode()  # raises if it cannot be written
    assert printable(line, limit) == line


def test_a_huge_text_costs_nothing() -> None:
    """100 MB are not read to their end."""
    huge = "\x1b[31m" * 20_000_000
    began = time.process_time()
    assert len(printable(huge, 80)) <= 80
    assert time.process_time() - began < 2.0


def test_a_value_is_shown_by_its_type_and_a_short_form() -> None:
    """A list of a million, a huge int, and a text with codes in it."""
    assert shown([0] * 10**6) == "list [0, 0, 0, 0, 0, 0, ...]"
    assert shown("\x1b[31m") == r"str '\x1b[31m'"
    assert shown(10**10_000).startswith("int ")
    assert len(shown("a" * 10**6)) <= 80
