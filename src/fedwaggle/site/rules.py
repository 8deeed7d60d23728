"""A site's rules, applied to the names and numbers of a reply: pure functions on plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedwaggle.site.policy import FieldRule, MetadataRules

__all__ = ["CHANGED_KEY", "WITHHELD_KEY", "Sifted", "sift_metadata", "sift_metrics"]

WITHHELD_KEY, CHANGED_KEY = "withheld", "changed"  # lists of names in a record


@dataclass(frozen=True)
class Sifted:
    """What may leave of some values.

    Attributes
    ----------
    values : dict[str, Any]
        What leaves.
    withheld : tuple[str, ...]
        Names of what does not.
    changed : tuple[str, ...]
        Names of what leaves with less detail: by a rule to clip or to round.
    """

    values: dict[str, Any]
    withheld: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def names(self, prefix: str = "") -> dict[str, list[str]]:
        """Return both lists of names as a record holds them: Flower cannot measure an empty one.

        Examples
        --------
        >>> Sifted({}, withheld=("power",)).names("metadata.")
        {'withheld': ['metadata.power']}
        """
        lists = {WITHHELD_KEY: self.withheld, CHANGED_KEY: self.changed}
        return {key: [prefix + name for name in names] for key, names in lists.items() if names}


def sift_metadata(values: Mapping[str, Any], rules: MetadataRules) -> Sifted:
    """Apply rules to the fields of metadata.

    Parameters
    ----------
    values : Mapping[str, Any]
        The metadata as JSON has it. A rule for a field holds for all numbers inside it, unless
        one of them has a rule of its own.
    rules : MetadataRules
        The site's rules.

    Examples
    --------
    >>> rules = MetadataRules(fields={"seconds": FieldRule(round=0), "gpu.id": FieldRule(allow=False)})
    >>> sift_metadata({"seconds": 2.26, "gpu": {"id": 7, "watts": 250}}, rules)
    Sifted(values={'seconds': 2.0, 'gpu': {'watts': 250}}, withheld=('gpu.id',), changed=('seconds',))
    """  # noqa: E501  # a value is a line
    fallback = FieldRule(allow=rules.default == "allow")
    return _sift(values, rules.fields, fallback, "")


def sift_metrics(values: Mapping[str, Any], rules: Mapping[str, FieldRule]) -> Sifted:
    """Apply rules to metrics: numbers, or lists of numbers, by name.

    Examples
    --------
    >>> sift_metrics({"loss": 0.123, "accuracy": 0.9}, {"loss": FieldRule(round=1)}).values
    {'loss': 0.1, 'accuracy': 0.9}
    """
    return _sift(values, rules, FieldRule(), "")


def _sift(
    values: Mapping[str, Any], rules: Mapping[str, FieldRule], above: FieldRule, path: str
) -> Sifted:
    """Sift one level; ``above`` is the rule of what holds these values."""
    kept: dict[str, Any] = {}
    withheld: list[str] = []
    changed: list[str] = []
    for name, value in values.items():
        place = f"{path}{name}"
        rule = rules.get(place, above)
        has_inner = any(other.startswith(f"{place}.") for other in rules)
        if isinstance(value, Mapping) and has_inner:
            inner = _sift(value, rules, rule, f"{place}.")
            if inner.values or rule.allow:
                kept[name] = inner.values
                withheld += inner.withheld
                changed += inner.changed
                continue
        if not rule.allow or (rule.changes_numbers and not _holds_numbers(value)):
            withheld.append(place)
            continue
        kept[name] = _less_exact(value, rule) if rule.changes_numbers else value
        if rule.changes_numbers:
            changed.append(place)
    return Sifted(kept, tuple(withheld), tuple(changed))


def _holds_numbers(value: object) -> bool:
    """Whether a rule for numbers can be kept: text could hold one that no rule sees."""
    if isinstance(value, Mapping):
        return all(map(_holds_numbers, value.values()))
    if isinstance(value, list):
        return all(map(_holds_numbers, value))
    return value is None or isinstance(value, bool | int | float)


def _less_exact(value: Any, rule: FieldRule) -> Any:  # noqa: ANN401  # JSON
    if isinstance(value, Mapping):
        return {name: _less_exact(each, rule) for name, each in value.items()}
    if isinstance(value, list):
        return [_less_exact(each, rule) for each in value]
    if isinstance(value, bool) or value is None:
        return value
    if rule.clip is not None:
        low, high = rule.clip
        if isinstance(value, int):  # a whole number stays one
            value = max(math.ceil(low), min(math.floor(high), value))
        else:
            value = max(low, min(high, value))
    return value if rule.round is None else round(value, rule.round)
