"""The site policy is read as a whole or not at all: every mistake, each with its place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedwaggle.errors import ConfigError
from fedwaggle.site.policy import FieldRule, SitePolicy, WeightsRule, read_site_policy

EXAMPLE = Path(__file__).parents[2] / "deploy" / "site-policy.toml"


def policy_file(folder: Path, text: str) -> dict[str, str]:
    """Return the node config of a site whose policy is ``text``."""
    path = folder / "policy.toml"
    path.write_text(text)
    return {"site-policy": str(path)}


def test_every_key_is_read(tmp_path: Path) -> None:
    policy = read_site_policy(
        policy_file(
            tmp_path,
            """
            min-examples = 50
            label-counts = false
            [metadata]
            default = "deny"
            [metadata.fields]
            converged = {}
            seconds = { round = 0, clip = [0, 600] }
            "gpu.id" = { allow = false }
            [metrics.loss]
            round = 2
            [weights]
            clip-norm = 1.5
            epsilon = 8.0
            delta = 1e-5
            """,
        )
    )
    assert (policy.min_examples, policy.label_counts) == (50, False)
    assert policy.metadata.default == "deny"
    assert policy.metadata.fields == {
        "converged": FieldRule(),
        "seconds": FieldRule(round=0, clip=(0.0, 600.0)),
        "gpu.id": FieldRule(allow=False),
    }
    assert policy.metrics == {"loss": FieldRule(round=2)}
    assert policy.weights == WeightsRule(clip_norm=1.5, epsilon=8.0, delta=1e-5)


def test_without_a_policy_everything_leaves() -> None:
    assert read_site_policy({}) == SitePolicy()


def test_the_example_for_operators_is_a_policy() -> None:
    assert read_site_policy({"site-policy": str(EXAMPLE)}).metadata.default == "deny"


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        ("min-example = 3", ["min-example: unknown key"]),
        ("min-examples = -1", ["min-examples: expected greater than or equal to 0, got -1"]),
        ('[metadata]\ndefault = "no"', ["metadata.default: expected 'allow' or 'deny', got 'no'"]),
        (
            "[metadata.fields]\na = { round = 0.5 }\nb = { clip = [2, 1] }",
            ["metadata.fields.a.round: expected", "metadata.fields.b.clip: expected a lower and"],
        ),
        ("[weights]\nepsilon = 1.0", ["weights.clip-norm"]),
        ("[weights]\nclip-norm = 1\nepsilon = 1.0", ["weights: expected epsilon and delta"]),
        (
            "[metrics.num-examples]\nallow = false",
            ["the policy: expected metrics.num-examples to be allowed"],
        ),
        ("min-examples = ", ["expected a TOML file, but"]),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, mistakes: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read_site_policy(policy_file(tmp_path, text))
    assert len(error.value.mistakes) == len(mistakes)
    for found, expected in zip(error.value.mistakes, mistakes, strict=True):
        assert f"site-policy {tmp_path / 'policy.toml'}: " in found
        assert expected in found


@pytest.mark.parametrize(
    ("node_config", "mistake"),
    [
        ({"site-policy": "/no/such/file"}, "No such file"),
        ({"site-policy": 3}, "expected the path of a TOML file, got 3"),
        ({"site-policy": "a.toml", "metadata-allow": "b"}, "move it there"),
    ],
)
def test_a_node_config_that_names_no_policy(node_config: dict[str, object], mistake: str) -> None:
    with pytest.raises(ConfigError, match=mistake):
        read_site_policy(node_config)


def test_a_policy_is_checked_by_a_command(tmp_path: Path) -> None:
    """As ``deploy/supernode.sh`` does, before the node starts."""
    wrong = policy_file(tmp_path, "min-examples = -1")["site-policy"]
    check = [sys.executable, "-m", "fedwaggle.site.policy"]
    bad = subprocess.run([*check, wrong], capture_output=True, text=True, check=False)
    good = subprocess.run([*check, str(EXAMPLE)], capture_output=True, text=True, check=False)
    assert (bad.returncode, good.returncode) == (1, 0)
    assert "min-examples: expected greater than or equal to 0" in bad.stderr
