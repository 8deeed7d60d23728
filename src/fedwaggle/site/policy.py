"""The site policy: a TOML file in which the operator of a site writes what may leave it.

::

    min-examples = 50                 # with fewer examples, nothing leaves
    label-counts = false              # how many examples of each class there are

    [metadata]
    default = "deny"                  # fields that have no rule stay here

    [metadata.fields]
    converged = {}                    # sent as it is
    training_time = { round = 0, clip = [0, 600] }
    "gpu.watts" = { allow = false }

    [metrics.train_loss]
    round = 3

    [weights]
    clip-norm = 1.0                   # the longest change (L2) that leaves
    epsilon = 8.0                     # with delta: noise is added, for differential privacy
    delta = 1e-5

A node names the file in its node config, ``site-policy="/etc/waggle/site-policy.toml"``, and no
key of a run overrides it. ``python -m fedwaggle.site.policy FILE`` checks one.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedwaggle.errors import ConfigError

__all__ = [
    "ALLOW_KEY",
    "POLICY_KEY",
    "FieldRule",
    "MetadataRules",
    "SitePolicy",
    "WeightsRule",
    "read_site_policy",
]

POLICY_KEY = "site-policy"
ALLOW_KEY = "metadata-allow"

_WEIGHT_METRIC = "num-examples"


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        alias_generator=lambda name: name.replace("_", "-"),
        validate_by_name=True,
        validate_by_alias=True,
    )


def _rising(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("a lower and an upper bound, in this order")
    return bounds


class FieldRule(_Part):
    """What becomes of one field before it leaves.

    Attributes
    ----------
    allow : bool
        Whether it leaves at all.
    round : int | None
        Digits after the point that are kept; -2 rounds to hundreds.
    clip : tuple[float, float] | None
        The range that numbers are brought into, before they are rounded.
    """

    allow: bool = True
    round: int | None = Field(default=None, ge=-12, le=12)
    clip: Annotated[tuple[float, float], AfterValidator(_rising)] | None = None

    @property
    def changes_numbers(self) -> bool:
        """Whether numbers may leave other than they are."""
        return self.round is not None or self.clip is not None


class MetadataRules(_Part):
    """What of the metadata leaves.

    Attributes
    ----------
    default : {"allow", "deny"}
        What becomes of fields without a rule.
    fields : Mapping[str, FieldRule]
        The rules, by field; ``"gpu.watts"`` is the field ``watts`` of the field ``gpu``.
    """

    default: Literal["allow", "deny"] = "allow"
    fields: dict[str, FieldRule] = {}


class WeightsRule(_Part):
    """What is done to a model's change before it leaves.

    Attributes
    ----------
    clip_norm : float
        The longest change, as an L2 norm over all arrays; a longer one is scaled down to it.
    epsilon, delta : float | None
        The privacy budget of one round. Gaussian noise of ``sensitivity * sqrt(2 * ln(1.25 /
        delta)) / epsilon`` is added to each weight (Dwork and Roth 2014, Theorem A.1); None adds
        none.
    sensitivity : float | None
        How far one site's changes can lie apart; None is twice ``clip_norm``.
    """

    clip_norm: float = Field(gt=0)
    epsilon: float | None = Field(default=None, gt=0)
    delta: float | None = Field(default=None, gt=0, lt=1)
    sensitivity: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _both_or_none(self) -> WeightsRule:
        if (self.epsilon is None) != (self.delta is None):
            raise ValueError("epsilon and delta together, or none of them")
        return self


class SitePolicy(_Part):
    """What may leave a site; without a file, everything that the app sends.

    Attributes
    ----------
    min_examples : int
        With fewer examples nothing leaves, and no class with fewer is counted.
    label_counts : bool
        Whether the server learns how many examples of each class there are.
    metadata : MetadataRules
        Rules for the fields of the metadata.
    metrics : Mapping[str, FieldRule]
        Rules for metrics, by name.
    weights : WeightsRule | None
        What is done to the weights.
    """

    min_examples: int = Field(default=0, ge=0)
    label_counts: bool = True
    metadata: MetadataRules = MetadataRules()
    metrics: dict[str, FieldRule] = {}
    weights: WeightsRule | None = None

    @model_validator(mode="after")
    def _sends_a_weight(self) -> SitePolicy:
        if not self.metrics.get(_WEIGHT_METRIC, FieldRule()).allow:
            raise ValueError(
                f"metrics.{_WEIGHT_METRIC} to be allowed: without it no reply can be used; round "
                "it, or set min-examples"
            )
        return self

    @property
    def is_open(self) -> bool:
        """Whether everything leaves as it is."""
        return self == SitePolicy()


def read_site_policy(node_config: Mapping[str, Any]) -> SitePolicy:
    """Read the policy that a node config names.

    Parameters
    ----------
    node_config : Mapping[str, bool | int | float | str]
        ``context.node_config``: ``site-policy``, the path of a file, or ``metadata-allow``, the
        names of the metadata's fields that may leave, separated by commas.

    Raises
    ------
    ConfigError
        With every mistake, if the file cannot be read or is no policy. Nothing leaves then: the
        client raises.

    Examples
    --------
    >>> read_site_policy({}).is_open
    True
    >>> read_site_policy({"metadata-allow": "converged"}).metadata.default
    'deny'
    """
    named, allowed = node_config.get(POLICY_KEY), node_config.get(ALLOW_KEY)
    if named is None and allowed is None:
        return SitePolicy()
    if named is not None and allowed is not None:
        raise ConfigError([f"{ALLOW_KEY}: expected no {POLICY_KEY} beside it; move it there"])
    if named is not None:
        return _read_file(named)
    if not isinstance(allowed, str):
        raise ConfigError(
            [f"{ALLOW_KEY}: expected names with commas, got {type(allowed).__name__} {allowed!r}"]
        )
    names = [name.strip() for name in allowed.split(",") if name.strip()]
    rules = MetadataRules(default="deny", fields={name: FieldRule() for name in names})
    return SitePolicy(metadata=rules)


def _read_file(named: object) -> SitePolicy:
    if not isinstance(named, str) or not named:
        raise ConfigError([f"{POLICY_KEY}: expected the path of a TOML file, got {named!r}"])
    path = Path(named).expanduser()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError([f"{POLICY_KEY} {path}: expected a TOML file, but {reason}"]) from error
    try:
        return SitePolicy.model_validate(table, by_name=False)
    except ValidationError as error:
        raise ConfigError([_mistake(path, detail) for detail in error.errors()]) from None


def _mistake(path: Path, detail: Any) -> str:  # noqa: ANN401  # pydantic_core.ErrorDetails
    key = ".".join(map(str, detail["loc"])) or "the policy"
    where = f"{POLICY_KEY} {path}: {key}"
    if detail["type"] == "extra_forbidden":
        return f"{where}: unknown key; remove it, or see docs/deployment.md for those there are"
    expected = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    came = "" if isinstance(detail["input"], dict) else f", got {detail['input']!r:.80}"
    return f"{where}: expected {expected}{came}"


if __name__ == "__main__":
    try:
        read_site_policy({POLICY_KEY: sys.argv[1] if len(sys.argv) > 1 else ""})
    except ConfigError as mistake:
        sys.exit(str(mistake))
