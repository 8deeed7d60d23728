"""What a reply reports of its site's policy: what was withheld, and how its weights were bounded.

The report is a client's word, for the record and for a person; no decision rests on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.app import ConfigRecord, RecordDict
from pydantic import ValidationError

from fedwaggle.runs.events import SiteMeasures
from fedwaggle.site.outgoing import SITE_KEY
from fedwaggle.site.rules import CHANGED_KEY, WITHHELD_KEY
from fedwaggle.strategy.codes import Code, Refused
from fedwaggle.text import printable

__all__ = ["check_not_withheld", "site_measures"]

_NUMBERS = ("clip-norm", "noise-std", "epsilon", "delta")


def check_not_withheld(content: RecordDict) -> None:
    """Raise ``Refused`` if a site's policy keeps back the whole reply, and the reply states why."""
    reason = _record(content, SITE_KEY).get("refused")
    if isinstance(reason, str):
        raise Refused(Code.WITHHELD, f"the site's policy: {printable(reason)}")


def site_measures(content: RecordDict) -> SiteMeasures | None:
    """Return what a reply reports of its site's policy; None if it reports nothing usable."""
    site, metadata = _record(content, SITE_KEY), _record(content, "metadata")
    lists = {key: _names(site, key) for key in (WITHHELD_KEY, CHANGED_KEY)}
    for key, names in lists.items():
        names += [f"metadata.{name}" for name in _names(metadata, key)]
    numbers = {key.replace("-", "_"): site[key] for key in _NUMBERS if key in site}
    try:
        measures = SiteMeasures.model_validate({**lists, **numbers}, strict=True)
    except ValidationError:
        return None
    return None if measures == SiteMeasures() else measures


def _record(content: RecordDict, key: str) -> Mapping[str, Any]:
    record = content.get(key)
    return record if isinstance(record, ConfigRecord) else {}


def _names(record: Mapping[str, Any], key: str) -> list[str]:
    names = record.get(key)
    if not isinstance(names, list):
        return []
    return [printable(name, 100) for name in names[:1000] if isinstance(name, str)]
