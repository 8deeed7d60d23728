"""The run config: ``[tool.flwr.app.config]`` with its overrides, as one frozen value.

Flower hands an app whatever the command line sets: ``lr=1`` arrives as an int, ``rounds='3'``
as text. Here the config is read once, at the edge, and all mistakes in it are reported together,
before any client starts. An app with keys of its own makes a subclass and names it::

    class MyConfig(RunConfig):
        dropout: float = Field(default=0.1, ge=0, lt=1, description="Share of units dropped.")

    config = read_config(context.run_config, MyConfig)

``docs/configuration.md`` lists every key.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Mapping
from importlib.metadata import EntryPoints, entry_points
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args, overload

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

from fedwaggle.errors import ConfigError
from fedwaggle.metadata import DEFAULT_MAX_BYTES

__all__ = [
    "PARTITIONERS",
    "TRACKER_NAMES",
    "RunConfig",
    "added_trackers",
    "default_values",
    "mistakes_in",
    "read_config",
    "shared_config",
    "too_many_nodes",
]

Partitioner: TypeAlias = Literal[
    "iid",
    "dirichlet",
    "shards",
    "classes",
    "pathological",
    "inner-dirichlet",
    "linear",
    "square",
    "exponential",
    "continuous",
    "natural-id",
    "grouped-natural-id",
]
PARTITIONERS: tuple[str, ...] = get_args(Partitioner)

TRACKER_NAMES = ("wandb", "mlflow", "tensorboard", "csv")
_TRACKER_GROUP = "fedwaggle.trackers"  # of entry points

C = TypeVar("C", bound="RunConfig")


def added_trackers() -> EntryPoints:
    """Return the trackers that other packages add."""
    return entry_points(group=_TRACKER_GROUP)


def _known_trackers(value: str) -> str:
    if not set(_names(value)) <= set(TRACKER_NAMES):
        known = [*TRACKER_NAMES, *added_trackers().names]
        if not set(_names(value)) <= set(known):
            raise ValueError(f"a list of {', '.join(known)}, separated by commas")
    return value


def _names(value: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))


def _kebab(name: str) -> str:
    return name.replace("_", "-")


def _zero_or_above_one(value: float) -> float:
    if value != 0 and not value > 1:
        raise ValueError("0, or a factor above 1")
    return value


class RunConfig(BaseModel):
    """Every key of a run config, with its default.

    In Python a key has its field's name (``RunConfig(batch_size=16)``), in a run config it has
    hyphens (``batch-size = 16``). A float takes a whole number too, since Flower reads ``lr=1``
    as an int; apart from that nothing is converted.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        alias_generator=_kebab,
        validate_by_alias=True,
        validate_by_name=True,
    )

    # -- the federation
    num_server_rounds: int = Field(default=20, ge=1, description="Rounds of the run.")
    fraction_train: float = Field(
        default=0.5, gt=0, le=1, description="Share of the nodes that train in a round."
    )
    fraction_evaluate: float = Field(
        default=0.5, ge=0, le=1, description="Share of the nodes that evaluate; 0 skips it."
    )
    min_train_nodes: int = Field(
        default=2, ge=1, description="Fewest nodes, and fewest usable updates, of a round."
    )
    min_evaluate_nodes: int = Field(default=2, ge=0, description="Fewest nodes that evaluate.")
    min_available_nodes: int = Field(
        default=2, ge=1, description="Nodes that must be there before a round begins."
    )
    round_timeout: float = Field(
        default=0.0,
        ge=0,
        description="Seconds that each phase of a round may take. 0 is an hour in a simulation; on "
        "a federation each client has ten minutes, and three times its slowest reply once it has "
        "answered.",
    )
    node_timeout: float = Field(
        default=600.0, gt=0, description="Seconds to wait for enough nodes, and for their names."
    )
    min_replies: int = Field(
        default=0,
        ge=0,
        description="Usable replies after which only `grace` is waited; 0 waits for all.",
    )
    grace: float = Field(
        default=0.0, ge=0, description="Seconds that the others still have after `min-replies`."
    )
    max_skipped_rounds: int = Field(
        default=3, ge=0, description="Skipped rounds in a row that end the run; 0 never does."
    )
    cooldown_after: int = Field(
        default=3,
        ge=0,
        description="Misses in a row after which a client rests; 0 switches this off. A crash is a "
        "miss; another quarantined reply neither is one nor ends the row.",
    )
    cooldown_rounds: int = Field(default=5, ge=1, description="Rounds that a client rests.")
    on_bad_metadata: Literal["keep-weights", "drop-reply"] = Field(
        default="keep-weights", description="What becomes of an update with bad metadata."
    )
    max_num_examples: int = Field(
        default=10_000_000, ge=1, description="The most examples that a client may claim."
    )
    outlier_share: float = Field(
        default=0.1,
        ge=0,
        le=0.4,
        description="Share of a round's replies, one at least, that may be hostile; 0 switches "
        "the bounds below off.",
    )
    outlier_clip_norm: float = Field(
        default=2.0,
        ge=0,
        description="How many times as long as the others' a change may be; a longer one is "
        "shortened to theirs. 0 shortens none.",
    )
    outlier_clip_weight: float = Field(
        default=2.0,
        ge=0,
        description="How many times the others' a number of examples may be; a larger one counts "
        "as theirs. 0 bounds none.",
    )
    outlier_quarantine: float = Field(
        default=100.0,
        ge=0,
        description="How many times as long as the others' a change is that is not used. 0 "
        "uses all.",
    )
    fold_buffer: int = Field(
        default=67_108_864,
        ge=0,
        description="Bytes of early replies that wait in memory; more wait on disk.",
    )
    seed: int = Field(default=0, ge=0, description="Decides every random choice of the run.")
    # -- training on a client
    local_epochs: int = Field(default=5, ge=1, description="Passes over a client's data.")
    batch_size: int = Field(default=16, ge=1, description="Examples a step.")
    lr: float = Field(default=0.01, gt=0, description="Learning rate of the first rounds.")
    convergence_window: int = Field(
        default=2, ge=1, description="Epochs that are compared with the epochs before."
    )
    convergence_tolerance: float = Field(
        default=0.01, ge=0, description="Relative change of the loss that is still a plateau."
    )
    convergence_fall: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of a client's first loss by which its loss must have fallen before a "
        "plateau counts.",
    )
    # -- the learning rate over the rounds
    lr_schedule: Literal["step", "constant", "exponential", "cosine"] = Field(
        default="step", description="How the rate changes over the rounds."
    )
    lr_decay: float = Field(
        default=0.5, gt=0, le=1, description="Factor of a step, or of each round if exponential."
    )
    lr_decay_every: int = Field(default=5, ge=1, description="Rounds from step to step.")
    lr_warmup_rounds: int = Field(
        default=0, ge=0, description="Rounds in which the rate rises from 0."
    )
    lr_min: float = Field(default=0.0, ge=0, description="Where a cosine ends.")
    # -- the server's optimizer
    server_eta: float = Field(default=0.1, gt=0, description="Step size of the server.")
    server_tau: float = Field(
        default=0.1, gt=0, description="Adaptivity of the server's steps; small is bold."
    )
    # -- the data
    dataset: str = Field(
        default="fashion-mnist-mini",
        min_length=1,
        description="`fashion-mnist-mini`, `fashion-mnist`, or a name on the Hub.",
    )
    data_dir: str = Field(default="", description="Folder of local files of `fashion-mnist`.")
    partitioner: Partitioner = Field(
        default="iid", description="How the examples are divided among simulated clients."
    )
    alpha: float = Field(
        default=0.5, gt=0, description="Evenness of the two `dirichlet`; small is uneven."
    )
    classes_per_client: int = Field(
        default=2, ge=1, description="Classes, or shards, that each client holds."
    )
    strictness: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="How much of `continuous` follows the order of the values; 0 is `iid`.",
    )
    partition_by: str = Field(
        default="", description="Column that the examples are divided by; empty: the labels."
    )
    # -- what clients say
    metadata_codec: Literal["json", "pickle"] = Field(
        default="json", description="How metadata is encoded."
    )
    trust_pickle: bool = Field(
        default=False,
        description="Whether clients may run code on the server, as pickle lets them.",
    )
    max_metadata_bytes: int = Field(
        default=DEFAULT_MAX_BYTES, ge=1, description="Largest metadata that is sent or decoded."
    )
    metadata_budget: int = Field(
        default=4_194_304,
        ge=0,
        description="Bytes of metadata that a round keeps decoded; more waits on disk.",
    )
    # -- what is decided by it
    stop_when_converged: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of a round's sampled clients that end the run once they have converged, "
        "twice in a row; 0 never does. A client that did not report it counts as not converged.",
    )
    rest_stragglers: Annotated[float, AfterValidator(_zero_or_above_one)] = Field(
        default=0.0,
        ge=0,
        description="How many times the median training time, above 1, lets a client rest for two "
        "rounds; 0 switches this off. Times differ from run to run, and so will the model.",
    )
    # -- what is kept and shown
    best_metric: str = Field(
        default="",
        description="The metric that picks the best model; empty takes the first that there is.",
    )
    best_mode: Literal["auto", "max", "min"] = Field(
        default="auto",
        description="Whether more or less of it is better; `auto` goes by its name: less is better "
        "of losses, errors and perplexities.",
    )
    tracker: Annotated[str, AfterValidator(_known_trackers)] = Field(
        default="",
        description="Where to show it too: `wandb`, `mlflow`, `tensorboard`, `csv`, or several.",
    )
    wandb_project: str = Field(
        default="fedwaggle",
        min_length=1,
        description="Project in Weights & Biases; experiment in MLflow.",
    )
    outputs: str = Field(default="", description="Absolute folder of all runs.")
    run_name: str = Field(default="", description="A name for people.")
    resume: str = Field(
        default="", description="The run to resume: `latest`, a folder's name, or a path."
    )
    fork: bool = Field(
        default=False, description="Whether to make a new run from `resume`'s last round."
    )

    # Fields are checked in their order, so that these see the one above; and as validators of
    # fields they are reported together with every other mistake.
    @field_validator("min_replies")
    @classmethod
    def _min_replies_make_a_round(cls, value: int, info: ValidationInfo) -> int:
        fewest = info.data.get("min_train_nodes", 0)
        if 0 < value < fewest:
            raise ValueError(f"0, or at least min-train-nodes, which is {fewest}")
        return value

    @field_validator("lr_min")
    @classmethod
    def _lr_min_is_below_lr(cls, value: float, info: ValidationInfo) -> float:
        if value > info.data.get("lr", value):
            raise ValueError(f"at most lr, which is {info.data['lr']}")
        return value

    @field_validator("fork")
    @classmethod
    def _fork_needs_a_run(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("resume") == "":
            raise ValueError("false unless resume names the run to fork")
        return value

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names in ``tracker``."""
        return _names(self.tracker)


@overload
def read_config(run_config: Mapping[str, Any]) -> RunConfig: ...


@overload
def read_config(run_config: Mapping[str, Any], cls: type[C]) -> C: ...


def read_config(run_config: Mapping[str, Any], cls: type[RunConfig] = RunConfig) -> RunConfig:
    """Read a run config.

    Parameters
    ----------
    run_config : Mapping[str, bool | int | float | str]
        ``context.run_config``.
    cls : type[RunConfig] (default: RunConfig)
        ``RunConfig``, or a subclass with keys of an app's own.

    Returns
    -------
    RunConfig
        A frozen value. Keys that are not there have their default.

    Raises
    ------
    ConfigError
        With every mistake: the key, what was expected, what came, and for an unknown key the
        nearest one that is known.

    Examples
    --------
    >>> config = read_config({"num-server-rounds": 3, "lr": 1})
    >>> config.num_server_rounds, config.lr, config.local_epochs
    (3, 1.0, 5)
    """
    try:
        return cls.model_validate(dict(run_config), by_alias=True, by_name=False)
    except ValidationError as error:
        raise ConfigError(_mistakes(error, cls)) from None


def shared_config(run_config: Mapping[str, Any]) -> RunConfig:
    """Read those keys of a run config that are this library's; keys of an app's own are left out.

    Raises
    ------
    ConfigError
        With every mistake in these keys.

    Examples
    --------
    >>> shared_config({"seed": 3, "a-key-of-the-app": 1}).seed
    3
    """
    return read_config({key: run_config[key] for key in default_values() if key in run_config})


def default_values() -> dict[str, Any]:
    """Return every key of this library with its default.

    Examples
    --------
    >>> default_values()["local-epochs"]
    5
    """
    return {str(field.alias): field.default for field in RunConfig.model_fields.values()}


def mistakes_in(run_config: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with those keys of a run config that are this library's.

    Examples
    --------
    >>> mistakes_in({"seed": -1, "a-key-of-the-app": 1})
    ['seed: expected greater than or equal to 0, got int -1; change seed']
    """
    try:
        shared_config(run_config)
    except ConfigError as error:
        return list(error.mistakes)
    return []


def too_many_nodes(run_config: Mapping[str, Any], nodes: int) -> list[str]:
    """Return a mistake for each key that waits for more nodes than there are.

    Examples
    --------
    >>> keys = {"min-train-nodes": 1, "min-available-nodes": 1, "fraction-evaluate": 0.0}
    >>> too_many_nodes({**keys, "min-replies": 3}, nodes=1)
    ['min-replies: expected at most 1, as many as there are nodes, got 3; \
start with --nodes 3 or more, or set min-replies=1']
    """
    config = {**default_values(), **run_config}
    keys = ["min-train-nodes", "min-evaluate-nodes", "min-available-nodes", "min-replies"]
    if not config["fraction-evaluate"]:
        keys.remove("min-evaluate-nodes")  # no client evaluates
    return [
        f"{key}: expected at most {nodes}, as many as there are nodes, got {config[key]}; "
        f"start with --nodes {config[key]} or more, or set {key}={nodes}"
        for key in keys
        if isinstance(config[key], int) and config[key] > nodes
    ]


def _mistakes(error: ValidationError, cls: type[RunConfig]) -> list[str]:
    known = [str(field.alias) for field in cls.model_fields.values()]
    return [_mistake(detail, known) for detail in error.errors()]


def _mistake(detail: ErrorDetails, known: list[str]) -> str:
    """Return one line: the key, what was expected, what came, what to do."""
    kind = detail["type"]
    said = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if not detail["loc"]:
        return said  # a validator of the whole config has words of its own
    key = str(detail["loc"][0])
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(key, known, n=1)
        fix = f"did you mean {near[0]!r}?" if near else _NO_SUCH_KEY
        return f"{key}: unknown key; {fix}"
    expected, fix = _WORDS.get(kind, (said.removeprefix("Input should be "), f"change {key}"))
    if kind == "literal_error":
        fix = _nearest_choice(detail) or fix
    came = f"{type(detail['input']).__name__} {reprlib.repr(detail['input'])}"
    return f"{key}: expected {expected}, got {came}; {fix}"


def _nearest_choice(detail: ErrorDetails) -> str:
    """Return the choice that may be meant, as a question; empty if none comes near."""
    choices = re.findall(r"'([^']*)'", detail["msg"])
    near = difflib.get_close_matches(str(detail["input"])[:100], choices, n=1)
    return f"did you mean {near[0]!r}?" if near else ""


_NO_SUCH_KEY = "remove it, or give it a field in a subclass of RunConfig"
_WORDS = {  # kind of mistake: what was expected, what to do
    "int_type": ("a whole number", "write it without quotes and without a point"),
    "float_type": ("a number", "write it without quotes"),
    "bool_type": ("true or false", "write it in lower case, without quotes"),
    "string_type": ("a text", "put it in quotes"),
    "string_too_short": ("a text that is not empty", "leave the key out for its default"),
    "finite_number": ("a finite number", "leave the key out for its default"),
}
