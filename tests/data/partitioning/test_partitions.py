"""Partitions: every row has one owner, every node finds the same, and flwr-datasets decides."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from datasets import Dataset
from flwr_datasets.partitioner import (
    ContinuousPartitioner,
    DirichletPartitioner,
    GroupedNaturalIdPartitioner,
    IidPartitioner,
    InnerDirichletPartitioner,
    LinearPartitioner,
    Partitioner,
    PathologicalPartitioner,
    ShardPartitioner,
    SquarePartitioner,
)
from numpy.typing import NDArray

from fedwaggle.data import make_partitioner
from fedwaggle.data.partitioning.rows import partition_rows
from fedwaggle.data.partitioning.spec import BY_ID, PARTITIONERS, PartitionSpec
from fedwaggle.errors import ConfigError, DatasetError

LABELS = np.repeat(np.arange(10), 60)  # (600,) 60 of each of ten classes
Rows = tuple[NDArray[np.int64], ...]
BY_LABEL = (
    "iid",
    "dirichlet",
    "inner-dirichlet",
    "shards",
    "classes",
    "pathological",
    "continuous",
)
NAMES = sorted(set(PARTITIONERS) - {"exponential", *BY_ID})  # 10 clients can be served


def divide(
    name: str,
    num_partitions: int,
    labels: NDArray[np.int64] = LABELS,
    *,
    alpha: float = 0.5,
    classes: int = 2,
    seed: int = 0,
    strictness: float = 0.5,
) -> Rows:
    spec = PartitionSpec(
        partitioner=name,
        num_partitions=num_partitions,
        alpha=alpha,
        classes_per_client=classes,
        seed=seed,
        strictness=strictness,
        partition_by="owner" if name in BY_ID else "",
    )
    return partition_rows(labels, spec)


@pytest.mark.parametrize("name", BY_LABEL)
@pytest.mark.parametrize("num_partitions", [1, 7, 10, 50])
def test_every_row_has_exactly_one_owner(name: str, num_partitions: int) -> None:
    """No partition is empty, and together they are all 600 rows once."""
    parts = divide(name, num_partitions, classes=2 if num_partitions >= 10 else 10)
    assert len(parts) == num_partitions
    assert all(len(part) > 0 for part in parts)
    assert sorted(np.concatenate(parts)) == list(range(600))


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_and_nothing_else(name: str) -> None:
    """Seed 1 twice gives the same rows in the same order, seed 2 others; NumPy's own seed: none."""
    np.random.seed(3)
    first = divide(name, 10, seed=1)
    np.random.seed(4)
    again = divide(name, 10, seed=1)
    other = divide(name, 10, seed=2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_every_node_finds_the_same() -> None:
    """A process of its own, with another hash seed, comes to the same rows."""
    code = (
        "import sys; import numpy as np; from fedwaggle.data.partitioning.rows import *\n"
        "from fedwaggle.data.partitioning.spec import *\n"
        "for name in sys.argv[1:]:\n"
        "  spec = PartitionSpec(partitioner=name, num_partitions=10, alpha=0.5,"
        " classes_per_client=2, seed=0)\n"
        "  parts = partition_rows(np.repeat(np.arange(10), 60), spec)\n"
        "  print([part.tolist() for part in parts])"
    )
    env = os.environ | {"PYTHONHASHSEED": "7"}
    run = subprocess.run(
        [sys.executable, "-c", code, *NAMES], env=env, capture_output=True, text=True, check=True
    )
    here = [str([part.tolist() for part in divide(name, 10)]) for name in NAMES]
    assert run.stdout.splitlines() == here


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("iid", IidPartitioner(7)),
        ("linear", LinearPartitioner(7)),
        ("square", SquarePartitioner(7)),
        ("continuous", ContinuousPartitioner(7, "label", 0.5, seed=3)),
        ("inner-dirichlet", InnerDirichletPartitioner([86] * 5 + [85] * 2, "label", 0.5, seed=3)),
        ("dirichlet", DirichletPartitioner(7, "label", alpha=0.5, min_partition_size=1, seed=3)),
        (
            "shards",  # 600 rows in 34 shards of 18, the last of which has 6
            ShardPartitioner(7, "label", shard_size=18, keep_incomplete_shard=True, seed=3),
        ),
        (
            "classes",
            PathologicalPartitioner(
                7, "label", 5, class_assignment_mode="first-deterministic", seed=3
            ),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Specifying null_placement:FutureWarning")  # in datasets
def test_the_rows_are_those_of_flwr_datasets(name: str, theirs: Partitioner) -> None:
    """Its partitioner, given the shuffled rows, deals them to 7 clients in the same way.

    For ``iid`` that is the law by which ours does without it.
    """
    order = np.random.default_rng(3).permutation(600)
    theirs.dataset = Dataset.from_dict({"row": order, "label": LABELS[order]})
    for part, rows in enumerate(divide(name, 7, classes=5, seed=3)):
        assert theirs.load_partition(part)["row"][:] == rows.tolist()


def test_each_natural_id_is_a_client_in_the_order_of_the_ids() -> None:
    """Ten ids with 60 rows each; client 3 has the rows of the fourth id."""
    parts = divide("natural-id", 10)
    assert [set(LABELS[part]) for part in parts] == [{owner} for owner in range(10)]


def test_ids_are_grouped_as_flwr_datasets_groups_them() -> None:
    """Ten ids for five clients: two each, the lowest first. For three: four, three and three."""
    parts = divide("grouped-natural-id", 5)
    theirs = GroupedNaturalIdPartitioner("label", group_size=2, sort_unique_ids=True)
    theirs.dataset = Dataset.from_dict({"row": np.arange(600), "label": LABELS})
    for part, rows in enumerate(parts):
        assert sorted(theirs.load_partition(part)["row"][:]) == sorted(rows)
    counts = [len(np.unique(LABELS[part])) for part in divide("grouped-natural-id", 3)]
    assert counts == [4, 3, 3]


def test_strictness_decides_how_far_values_are_kept_apart() -> None:
    """600 targets of a regression: at 1, client 0 has the 60 lowest; at 0, values from all over."""
    targets = np.random.default_rng(0).normal(size=600)
    strict = divide("continuous", 10, targets, strictness=1.0)
    assert set(strict[0]) == set(np.argsort(targets)[:60])
    mixed = divide("continuous", 10, targets, strictness=0.0)
    assert np.std([targets[part].mean() for part in mixed]) < 0.3
    assert np.std([targets[part].mean() for part in strict]) > 0.8


def test_linear_gives_each_client_more_than_the_one_before() -> None:
    """600 rows for 5 clients: 1 to 5 fifteenths."""
    assert [len(part) for part in divide("linear", 5)] == [40, 80, 120, 160, 200]


def test_natural_id_needs_the_column_of_the_ids() -> None:
    with pytest.raises(ConfigError, match="partition-by: expected the column that identifies"):
        PartitionSpec(
            partitioner="natural-id", num_partitions=2, alpha=1, classes_per_client=1, seed=0
        )


def test_iid_parts_differ_by_one_row_at_most() -> None:
    """600 rows for 7 clients: five have 86 and two have 85."""
    assert [len(part) for part in divide("iid", 7)] == [86] * 5 + [85] * 2


def test_a_small_alpha_gives_a_client_few_classes() -> None:
    """With alpha 0.01 most of a client's examples are of one class, with 100 a tenth are."""

    def largest_share(alpha: float) -> float:
        parts = divide("dirichlet", 10, alpha=alpha)
        tops = [np.bincount(LABELS[part]).max() / len(part) for part in parts]
        return float(np.mean(tops))

    assert largest_share(100.0) < 0.2
    assert largest_share(0.01) > 0.7


def test_classes_gives_each_client_its_number_of_classes() -> None:
    """Exactly 2 of 10."""
    assert [len(np.unique(LABELS[part])) for part in divide("classes", 10)] == [2] * 10


def test_shards_gives_each_client_its_number_of_shards() -> None:
    """10 clients with 2 shards of 30 rows, each of one class: at most 2 classes."""
    parts = divide("shards", 10)
    assert [len(part) for part in parts] == [60] * 10
    assert max(len(np.unique(LABELS[part])) for part in parts) <= 2


@pytest.mark.parametrize(
    ("name", "num_partitions", "classes", "said"),
    [
        *((name, 601, 2, "there are only 600 examples") for name in BY_LABEL),
        ("exponential", 10, 2, "flwr-datasets found no way .*; use fewer clients"),
        ("natural-id", 9, 2, "column 'owner' holds 10 ids, and each is a client"),
        ("grouped-natural-id", 11, 2, "column 'owner' holds only 10 ids"),
        ("classes", 10, 11, "there are only 10 classes"),
        ("classes", 4, 2, "together they hold at most 8 of the 10 classes"),
    ],
)
def test_what_would_leave_rows_out_is_refused(
    name: str, num_partitions: int, classes: int, said: str
) -> None:
    """The message says the partitioner, the reason and what would help."""
    with pytest.raises(DatasetError, match=said) as caught:
        divide(name, num_partitions, classes=classes)
    assert f"partitioner {name!r} cannot make {num_partitions} partitions" in str(caught.value)


@pytest.mark.parametrize("name", ["iid", "shards", "classes"])
def test_as_many_clients_as_rows_have_one_each(name: str) -> None:
    """The edge that still works: 600 clients."""
    assert [len(part) for part in divide(name, 600, classes=1)] == [1] * 600


def test_draws_that_leave_someone_empty_end_in_words() -> None:
    """600 rows for 300 clients, nearly all of a class to one of them: somebody has none."""
    with pytest.raises(
        DatasetError, match=r"alpha 0.01: flwr-datasets found no way .* larger alpha"
    ):
        divide("dirichlet", 300, alpha=0.01)


def test_classes_that_nobody_drew_are_refused() -> None:
    """9 clients with 2 of 10 classes: where no draw takes class 9, its rows would be lost."""
    for seed in range(200):
        try:
            parts = divide("classes", 9, seed=seed)
        except DatasetError as error:
            assert "no client drew the classes 9, and 60 examples" in str(error)  # noqa: PT017
            return
        assert sum(len(part) for part in parts) == 600
    pytest.fail("expected that one seed of 200 leaves class 9 out")


def test_every_bad_value_of_a_spec_is_told_at_once() -> None:
    """Five mistakes, each by its config key."""
    with pytest.raises(ConfigError) as caught:
        PartitionSpec(
            partitioner="fair",
            num_partitions=0,
            alpha=float("nan"),
            classes_per_client=True,
            seed=-1,
        )
    assert [mistake.partition(":")[0] for mistake in caught.value.mistakes] == [
        "partitioner",
        "num-partitions",
        "alpha",
        "classes-per-client",
        "seed",
    ]


def test_ours_is_a_partitioner_of_flwr_datasets() -> None:
    """It takes a data set and gives partitions of it; other columns and ids are refused."""
    ours = make_partitioner("iid", 7, seed=3)
    assert isinstance(ours, Partitioner)
    ours.dataset = Dataset.from_dict({"row": np.arange(600), "label": LABELS})
    assert ours.num_partitions == 7
    for part, rows in enumerate(divide("iid", 7, seed=3)):
        assert ours.load_partition(part)["row"][:] == rows.tolist()
    with pytest.raises(ConfigError, match="partition-id: expected a whole number from 0 to 6"):
        ours.load_partition(7)
    wrong = make_partitioner("iid", 7, partition_by="y")
    wrong.dataset = Dataset.from_dict({"row": [0], "label": [0]})
    with pytest.raises(DatasetError, match="expected one of the columns row, label, got 'y'"):
        wrong.load_partition(0)
