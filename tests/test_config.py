"""The run config: every key in one place, and every mistake told at once."""

from __future__ import annotations

import doctest
import json
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from fedwaggle.cli.config import allowed_values
from fedwaggle.config import RunConfig, default_values, read_config
from fedwaggle.errors import ConfigError

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "configuration.md"


def mistakes_of(run_config: Mapping[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_config(run_config)
    return list(caught.value.mistakes)


def test_keys_that_are_not_there_have_their_default() -> None:
    """An empty config is complete: 20 rounds, half of the nodes, 5 epochs at 0.01."""
    config = read_config({})
    assert config == RunConfig()
    assert (config.num_server_rounds, config.fraction_train) == (20, 0.5)
    assert (config.local_epochs, config.lr, config.trackers) == (5, 0.01, ())


def test_a_whole_number_is_taken_for_a_float() -> None:
    """Flower reads ``--run-config "lr=1"`` as an int."""
    lr = read_config({"lr": 1}).lr
    assert (lr, type(lr)) == (1.0, float)


def test_every_mistake_is_told_at_once() -> None:
    """A wrong type, a bad range, a bad choice, an unknown key and a misfit: five lines."""
    assert mistakes_of(
        {
            "num-server-rounds": "3",
            "fraction-train": 0,
            "lr-schedule": "stpe",
            "lr-min": 0.5,
            "bach-size": 32,
        }
    ) == [
        "num-server-rounds: expected a whole number, got str '3'; "
        "write it without quotes and without a point",
        "fraction-train: expected greater than 0, got int 0; change fraction-train",
        "lr-schedule: expected 'step', 'constant', 'exponential' or 'cosine', got str 'stpe'; "
        "did you mean 'step'?",
        "lr-min: expected at most lr, which is 0.01, got float 0.5; change lr-min",
        "bach-size: unknown key; did you mean 'batch-size'?",
    ]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("seed", True, "a whole number"),  # a bool never passes as a number
        ("lr", True, "a number"),
        ("seed", 1.0, "a whole number"),
        ("seed", -1, "greater than or equal to 0"),
        ("lr", math.nan, "a finite number"),
        ("lr", math.inf, "a finite number"),
        ("lr", 10**400, "a number"),  # no float is so large
        ("lr", "0.1", "a number"),
        ("round-timeout", -1, "greater than or equal to 0"),
        ("trust-pickle", "false", "true or false"),
        ("trust-pickle", 0, "true or false"),
        ("dataset", "", "a text that is not empty"),
        ("dataset", 1, "a text"),
        (
            "tracker",
            "wandb,comet",
            "a list of wandb, mlflow, tensorboard, csv, separated by commas",
        ),
        ("fork", True, "false unless resume names the run to fork"),
        ("min-replies", 1, "0, or at least min-train-nodes, which is 2"),
        ("fraction-evaluate", 1.01, "less than or equal to 1"),
        ("rest-stragglers", 0.5, "0, or a factor above 1"),
        ("rest-stragglers", 1, "0, or a factor above 1"),
        ("rest-stragglers", -2.0, "greater than or equal to 0"),
    ],
)
def test_a_bad_value_is_refused_in_words(key: str, value: object, expected: str) -> None:
    """The line says the key, what was expected, and what came."""
    (mistake,) = mistakes_of({key: value})
    assert mistake.startswith(f"{key}: expected {expected}, got {type(value).__name__} ")


def test_a_key_has_one_spelling() -> None:
    """Underscores, capitals and a key that is like no other are refused."""
    assert mistakes_of({"batch_size": 1, "zzz": 2}) == [
        "batch_size: unknown key; did you mean 'batch-size'?",
        "zzz: unknown key; remove it, or give it a field in a subclass of RunConfig",
    ]


def test_a_huge_value_makes_a_short_error() -> None:
    """A text of a million characters is cut."""
    (mistake,) = mistakes_of({"seed": "9" * 1_000_000})
    assert len(mistake) < 200


def test_what_goes_together_is_accepted() -> None:
    """``lr-min`` up to ``lr``, a fork of a run, and trackers with spaces, each once."""
    config = read_config(
        {
            "lr": 0.5,
            "lr-min": 0.5,
            "resume": "latest",
            "fork": True,
            "tracker": " wandb, tensorboard,wandb",
        }
    )
    assert config.trackers == ("wandb", "tensorboard")


def test_an_app_adds_keys_in_a_subclass() -> None:
    """The new key is read, checked and suggested like the others."""

    class MyConfig(RunConfig):
        drop_out: float = Field(default=0.1, ge=0, lt=1, description="Share of units dropped.")

    config = read_config({"drop-out": 0.3, "lr": 1}, MyConfig)
    assert (config.drop_out, config.lr) == (0.3, 1.0)
    with pytest.raises(ConfigError) as caught:
        read_config({"dropout": 0.3, "drop-out": 1.0}, MyConfig)
    assert caught.value.mistakes == (
        "drop-out: expected less than 1, got float 1.0; change drop-out",
        "dropout: unknown key; did you mean 'drop-out'?",
    )


def test_a_misspelt_choice_is_told_the_nearest_one() -> None:
    assert mistakes_of({"partitioner": "dirichelt", "best-mode": "most", "lr-schedule": "zzz"}) == [
        "lr-schedule: expected 'step', 'constant', 'exponential' or 'cosine', got str 'zzz'; "
        "change lr-schedule",
        "partitioner: expected 'iid', 'dirichlet', 'shards', 'classes', 'pathological', "
        "'inner-dirichlet', 'linear', 'square', 'exponential', 'continuous', 'natural-id' or "
        "'grouped-natural-id', "
        "got str 'dirichelt'; did you mean 'dirichlet'?",
        "best-mode: expected 'auto', 'max' or 'min', got str 'most'; change best-mode",
    ]


def test_a_validator_of_the_whole_config_has_the_last_word() -> None:
    """Its text is the mistake, beside none of pydantic's."""

    class MyConfig(RunConfig):
        @model_validator(mode="after")
        def _few_epochs_for_small_batches(self) -> MyConfig:
            if self.local_epochs * 10 > self.batch_size:
                raise ValueError("local-epochs: at most a tenth of batch-size; lower it")
            return self

    with pytest.raises(ConfigError) as caught:
        read_config({"local-epochs": 5}, MyConfig)
    assert caught.value.mistakes == ("local-epochs: at most a tenth of batch-size; lower it",)


def test_a_config_cannot_be_changed() -> None:
    """It is a value: the caller's mapping stays as it was, and no field can be set."""
    given = {"lr": 1}
    config = read_config(given)
    assert given == {"lr": 1}
    with pytest.raises(ValidationError, match="frozen"):
        config.lr = 0.5  # type: ignore[misc]


def test_the_quickstart_lists_what_is_changed_most_with_its_default() -> None:
    """At most 20 keys, the four of the task first; the other keys have their defaults."""
    with (ROOT / "quickstart" / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["flwr"]["app"]["config"]
    assert len(listed) <= 20
    assert list(listed)[:4] == ["num-server-rounds", "fraction-train", "local-epochs", "lr"]
    defaults = default_values()
    for key, value in listed.items():
        assert (type(value), value) == (type(defaults[key]), defaults[key])
    assert read_config(listed) == RunConfig()


def test_the_document_lists_every_key() -> None:
    """The tables of ``docs/configuration.md`` hold one row for each field, in order."""
    rows = re.findall(r"^\| `.*$", DOCUMENT.read_text().partition("## A node")[0], re.MULTILINE)
    assert rows == [table_row(field) for field in RunConfig.model_fields.values()]


def table_row(field: FieldInfo) -> str:
    default = json.dumps(field.default)  # as TOML writes these types too
    return f"| `{field.alias}` | `{default}` | {allowed_values(field)} | {field.description} |"


def test_the_examples_of_the_document_run() -> None:
    """What the page shows is what comes out."""
    failures, examples = doctest.testfile(str(DOCUMENT), module_relative=False)
    assert examples > 0
    assert failures == 0
