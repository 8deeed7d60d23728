"""The shell of a page: style, script, data and Plotly in one file that makes no request.

A policy in the page's head (CSP) lets it run exactly the scripts that are written here, by their
hashes, and lets it load nothing. So a text that somehow got past the escaping still could not
run, and could not send anything away.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

__all__ = ["build_index", "build_page", "json_for_script"]

_HERE = Path(__file__).parent

# Before anything is drawn, so that a dark page does not flash white.
_EARLY_SCRIPT = (
    "document.documentElement.dataset.theme = "
    'matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";'
)


def build_page(template: str, title: str, data: dict[str, Any], **words: object) -> str:
    """Return a whole page.

    Parameters
    ----------
    template : str
        File name of the template.
    title : str
        Of the browser's tab.
    data : dict[str, Any]
        What the page's script reads; JSON.
    **words : object
        What the template shows. Every text is escaped.
    """
    style, script, plotly = _asset("page.css"), _asset("page.js"), _plotly()
    live = bool(data.get("live"))
    # What is marked as safe here is our own text, and JSON that cannot end its element.
    return (
        _environment()
        .get_template(template)
        .render(
            title=title,
            policy=_policy((_EARLY_SCRIPT, plotly, script), live=live),
            style=Markup(style),  # noqa: S704
            early_script=Markup(_EARLY_SCRIPT),  # noqa: S704
            plotly=Markup(plotly),  # noqa: S704
            script=Markup(script),  # noqa: S704
            data=Markup(json_for_script(data)),  # noqa: S704
            live=live,
            **words,
        )
    )


def build_index(title: str, runs: Sequence[Mapping[str, str]]) -> str:
    """Return the page that lists runs; every text is escaped, and no script runs.

    Parameters
    ----------
    title : str
        Of the page.
    runs : Sequence[Mapping[str, str]]
        Of each run: ``name``, ``folder``, ``status``, ``rounds``, ``best``, ``time``, ``differs``.
    """
    style = Markup(_asset("page.css"))  # noqa: S704  # our own text
    return _environment().get_template("index.html").render(title=title, style=style, runs=runs)


def json_for_script(data: object) -> str:
    r"""Return JSON that may stand in a script element.

    Raises
    ------
    ValueError
        If a number is not finite; JSON has none such.

    Examples
    --------
    >>> json_for_script({"a": "</script><!--"})
    '{"a":"\\u003c/script\\u003e\\u003c!--"}'
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))  # ASCII: no U+2028 either
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _policy(scripts: tuple[str, ...], *, live: bool) -> str:
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    rules = [
        "default-src 'none'",
        f"script-src {hashes}",
        "style-src 'unsafe-inline'",  # Plotly sets the style of elements
        "img-src data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return "; ".join([*rules, "connect-src 'self'"] if live else rules)


@cache
def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    # npm's plotly.js-cartesian-dist-min has all that the report draws. The whole of Plotly, which
    # its Python package ships, is three times as large.
    # A browser reads every line end as "\n" before it takes the hash. And a script may hold the
    # words that end a script element only in another spelling.
    script = _asset("plotly/plotly-cartesian.min.js").replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(r"</(?=script)", r"<\\/", script, flags=re.IGNORECASE)


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
