"""The run config: ``[tool.flwr.app.config]`` with its overrides, as one frozen value.

Flower hands an app whatever the command line says: ``lr=1`` arrives as an int, ``rounds='3'``
as text. Here the config is read once, at the edge, and every mistake in it is told together,
before any client starts. An app with keys of its own makes a subclass and names it::

    class MyConfig(RunConfig):
        dropout: float = Field(default=0.1, ge=0, lt=1, description="Share of units dropped.")

    config = read_config(context.run_config, MyConfig)

``docs/configuration.md`` lists every key.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from fedwaggle.errors import ConfigError

__all__ = ["TRACKER_NAMES", "RunConfig", "read_config"]

TRACKER_NAMES = ("wandb", "tensorboard")

C = TypeVar("C", bound="RunConfig")


def _as_float(value: object) -> object:
    """Take a whole number where a float is expected: Flower reads ``lr=1`` as an int."""
    return float(value) if type(value) is int else value


def _known_trackers(value: str) -> str:
    for name in _names(value):
        if name not in TRACKER_NAMES:
            raise ValueError(f"a list of {', '.join(TRACKER_NAMES)}, separated by commas")
    return value


def _names(value: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))


Number = Annotated[float, BeforeValidator(_as_float)]


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class RunConfig(BaseModel):
    """Every key of a run config, with its default."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        alias_generator=_kebab,
        validate_by_name=False,
    )

    # -- the federation
    num_server_rounds: int = Field(default=20, ge=1, description="Rounds of the run.")
    fraction_train: Number = Field(
        default=0.5, gt=0, le=1, description="Share of the nodes that train in a round."
    )
    fraction_evaluate: Number = Field(
        default=0.5, ge=0, le=1, description="Share of the nodes that evaluate; 0 skips it."
    )
    min_train_nodes: int = Field(
        default=2, ge=1, description="Fewest nodes, and fewest usable updates, of a round."
    )
    min_evaluate_nodes: int = Field(default=2, ge=0, description="Fewest nodes that evaluate.")
    min_available_nodes: int = Field(
        default=2, ge=1, description="Nodes that must be there before a round begins."
    )
    round_timeout: Number = Field(
        default=3600.0, gt=0, description="Seconds that each phase of a round may take."
    )
    node_timeout: Number = Field(
        default=600.0, gt=0, description="Seconds to wait for enough nodes."
    )
    min_replies: int = Field(
        default=0, ge=0, description="Replies after which only `grace` is waited; 0 waits for all."
    )
    grace: Number = Field(
        default=0.0, ge=0, description="Seconds that the others still have after `min-replies`."
    )
    max_skipped_rounds: int = Field(
        default=3, ge=0, description="Skipped rounds in a row that end the run; 0 never does."
    )
    cooldown_after: int = Field(
        default=3, ge=0, description="Misses in a row after which a client rests; 0 rests nobody."
    )
    cooldown_rounds: int = Field(default=5, ge=1, description="Rounds that a client rests.")
    on_bad_metadata: Literal["keep-weights", "drop-reply"] = Field(
        default="keep-weights", description="What becomes of an update with bad metadata."
    )
    max_num_examples: int = Field(
        default=10_000_000, ge=1, description="The most examples that a client may claim."
    )
    fold_buffer: int = Field(
        default=1_073_741_824,
        ge=0,
        description="Bytes of early replies that wait in memory; more wait on disk.",
    )
    seed: int = Field(default=0, ge=0, description="Decides every random choice of the run.")
    # -- training on a client
    local_epochs: int = Field(default=5, ge=1, description="Passes over a client's data.")
    batch_size: int = Field(default=32, ge=1, description="Examples a step.")
    lr: Number = Field(default=0.01, gt=0, description="Learning rate of the first rounds.")
    convergence_window: int = Field(
        default=2, ge=1, description="Epochs that are compared with the epochs before."
    )
    convergence_tolerance: Number = Field(
        default=0.01, ge=0, description="Relative fall of the loss that is still a plateau."
    )
    # -- the learning rate over the rounds
    lr_schedule: Literal["step", "constant", "exponential", "cosine"] = Field(
        default="step", description="How the rate changes over the rounds."
    )
    lr_decay: Number = Field(
        default=0.5, gt=0, le=1, description="Factor of a step, or of each round if exponential."
    )
    lr_decay_every: int = Field(default=5, ge=1, description="Rounds from step to step.")
    lr_warmup_rounds: int = Field(
        default=0, ge=0, description="Rounds in which the rate rises from 0."
    )
    lr_min: Number = Field(default=0.0, ge=0, description="Where a cosine ends.")
    # -- the server's optimizer
    server_eta: Number = Field(default=0.1, gt=0, description="Step size of the server.")
    server_tau: Number = Field(
        default=0.1, gt=0, description="Adaptivity of the server's steps; small is bold."
    )
    # -- the data
    dataset: str = Field(
        default="fashion-mnist-mini",
        min_length=1,
        description="`fashion-mnist-mini`, `fashion-mnist`, or a name on the Hub.",
    )
    data_dir: str = Field(default="", description="Folder of local files of `fashion-mnist`.")
    partitioner: Literal["iid", "dirichlet", "shards", "classes"] = Field(
        default="iid", description="How the examples are divided among the clients."
    )
    alpha: Number = Field(
        default=0.5, gt=0, description="Evenness of `dirichlet`; small is uneven."
    )
    classes_per_client: int = Field(
        default=2, ge=1, description="Classes, or shards, that each client holds."
    )
    # -- what clients say
    metadata_codec: Literal["json", "pickle"] = Field(
        default="json", description="How metadata is encoded."
    )
    trust_pickle: bool = Field(
        default=False, description="Whether clients may run code on the server, as pickle lets them."
    )
    max_metadata_bytes: int = Field(
        default=1_048_576, ge=1, description="Largest metadata that is sent or decoded."
    )
    # -- what is kept and shown
    best_metric: str = Field(
        default="accuracy", min_length=1, description="The metric that picks the best model."
    )
    best_mode: Literal["max", "min"] = Field(
        default="max", description="Whether more or less of it is better."
    )
    tracker: Annotated[str, AfterValidator(_known_trackers)] = Field(
        default="", description="Where to show the run too: `wandb`, `tensorboard`, or both."
    )
    wandb_project: str = Field(
        default="fedwaggle", min_length=1, description="Project in Weights & Biases."
    )
    outputs: str = Field(default="", description="Absolute folder of all runs.")
    run_name: str = Field(default="", description="A name for people.")
    resume: str = Field(
        default="", description="A run to go on with: `latest`, a folder's name, or a path."
    )
    fork: bool = Field(
        default=False, description="Whether to make a new run from `resume`'s last round."
    )

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names in ``tracker``."""
        return _names(self.tracker)


def read_config(run_config: Mapping[str, Any], cls: type[C] = RunConfig) -> C:  # type: ignore[assignment]
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
        return cls.model_validate(dict(run_config))
    except ValidationError as error:
        known = [str(field.alias) for field in cls.model_fields.values()]
        raise ConfigError([_mistake(detail, known) for detail in error.errors()]) from None


def _mistake(detail: Mapping[str, Any], known: list[str]) -> str:
    """Return one line: the key, what was expected, what came, what to do."""
    key, value = str(detail["loc"][0]), detail["input"]
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, known, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(known)}"
        return f"{key}: unknown key; {advice}"
    expected = _EXPECTED.get(detail["type"]) or str(detail["msg"]).partition("should be ")[2]
    expected = expected.removeprefix("a valid ").removeprefix("Value error, ")
    expected = expected or str(detail["msg"]).removeprefix("Value error, ")
    return f"{key}: expected {expected}, got {type(value).__name__} {reprlib.repr(value)}"


_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text, in quotes",
    "string_too_short": "a text that is not empty",
    "finite_number": "a finite number",
}
