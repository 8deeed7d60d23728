"""A node's share of what ``load_data`` returns: the right rows, at the price of a look-up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from flwr.app import Context
from torch import Tensor

from fedwaggle.config import PARTITIONERS
from fedwaggle.data import load, load_examples, load_images, to_examples
from fedwaggle.data.loading import count_labels
from fedwaggle.data.partitioning.spec import BY_ID
from fedwaggle.errors import ConfigError, DatasetError


def mini(split: str, context: Context) -> tuple[Tensor, Tensor]:
    return load_images("fashion-mnist-mini", split)


def context(part: Any = None, parts: int = 10, **keys: Any) -> Any:
    node = {} if part is None else {"partition-id": part, "num-partitions": parts}
    config = {key.replace("_", "-"): value for key, value in keys.items()}
    return SimpleNamespace(node_config=node, run_config=config)


def shares(parts: int = 10, **keys: Any) -> list[Any]:
    return [load_examples(mini, "test", context(part, parts, **keys)) for part in range(parts)]


def test_the_short_way_gives_what_the_data_set_gives(small_folder: Path) -> None:
    """Arrays straight from the files are bit for bit the decoded ``datasets.Dataset``."""
    for name, split, data_dir in (
        ("fashion-mnist-mini", "train", None),
        ("fashion-mnist-mini", "test", None),
        ("fashion-mnist", "train", small_folder),
        ("fashion-mnist", "test", small_folder),
    ):
        short = to_examples(load_images(name, split, data_dir=data_dir))
        long = to_examples(load(name, split, data_dir=data_dir))
        assert torch.equal(short.features, long.features)
        assert torch.equal(short.labels, long.labels)
        assert short.labels.dtype == torch.int64


@pytest.mark.parametrize(
    "partitioner",
    sorted(set(PARTITIONERS) - {"linear", "square", "exponential", *BY_ID}),
)
def test_the_shares_together_are_the_split(partitioner: str) -> None:
    """Ten shares of the 1,000 test images: the sum of all pixels and each class's 100."""
    whole = load_examples(mini, "test", context())
    parts = shares(partitioner=partitioner)
    labels = torch.cat([share.labels for share in parts])
    assert labels.bincount().tolist() == [100] * 10
    pixels = torch.cat([share.features for share in parts]).double()
    assert pixels.sum() == pytest.approx(float(whole.features.double().sum()))


def test_features_keep_their_labels() -> None:
    """Every image of a share is found in the split, with the same label."""
    whole = load_examples(mini, "test", context())
    label_of = {
        image.numpy().tobytes(): label
        for image, label in zip(whole.features, whole.labels.tolist(), strict=True)
    }
    for image, label in load_examples(mini, "test", context(3, partitioner="dirichlet")):
        assert label_of[image.numpy().tobytes()] == label


def test_what_comes_back_is_a_copy() -> None:
    """A client that scribbles on its images harms neither the next call nor its neighbours."""
    for asked in (context(0), context()):
        first = load_examples(mini, "test", asked)
        before = first.features.clone()
        first.features.fill_(7)
        first.labels.fill_(7)
        assert torch.equal(load_examples(mini, "test", asked).features, before)
        assert load_examples(mini, "test", asked).labels.unique().numel() == 10


def test_a_split_is_loaded_once_in_a_process() -> None:
    """Ten nodes and two ways to divide: one call; another run config is another one."""
    calls = []

    def load_data(split: str, context: Context) -> tuple[Tensor, Tensor]:
        calls.append((split, context.run_config.get("file")))
        return torch.arange(40.0)[:, None], torch.arange(40) % 2

    for part in range(10):
        load_examples(load_data, "train", context(part, file="a"))
    assert calls == [("train", "a")]
    load_examples(load_data, "train", context(0, file="b"))
    assert calls == [("train", "a"), ("train", "b")]


def test_a_real_node_keeps_all_of_its_own_data() -> None:
    """Without a partition in its node config, it gets what ``load_data`` reads from its path."""

    def load_data(split: str, context: Context) -> tuple[Tensor, Tensor]:
        rows = int(context.node_config["data-path"])
        return torch.zeros(rows, 1), torch.zeros(rows)

    for rows in ("3", "5"):
        node = SimpleNamespace(node_config={"data-path": rows}, run_config={"seed": 0})
        assert len(load_examples(load_data, "train", node)) == int(rows)


def test_keys_of_an_app_of_its_own_are_no_mistake_and_bad_shared_keys_are() -> None:
    assert len(load_examples(mini, "test", context(0, dropout=0.1))) == 100
    with pytest.raises(ConfigError, match="alpha: expected greater than 0"):
        load_examples(mini, "test", context(0, alpha=-1.0))


def test_what_each_client_has_is_counted_as_it_is_given() -> None:
    """Uneven classes; the counts are those of the shares, and of all 1,000 examples."""
    keys = {"partitioner": "dirichlet", "alpha": 0.3}
    counts = count_labels(mini, "test", context(**keys), 10)
    given = [share.labels.bincount(minlength=10) for share in shares(**keys)]
    assert counts == [
        {str(label): int(count) for label, count in enumerate(each) if count} for each in given
    ]
    assert sum(sum(each.values()) for each in counts) == 1000


def test_values_are_counted_without_classes() -> None:
    assert count_labels(by_site, "train", context(partition_by="site"), 4) == [
        {"examples": count} for count in (2, 2, 1, 1)
    ]


def by_site(split: str, context: Context) -> pd.DataFrame:
    return pd.DataFrame(
        {"size": np.arange(6.0), "target": np.linspace(0, 1, 6), "site": list("cabcab")}
    )


def test_each_site_of_a_column_is_a_client() -> None:
    """Sites a, b and c are clients 0, 1 and 2; the column is no feature."""
    keys = {"partitioner": "natural-id", "partition_by": "site"}
    parts = [load_examples(by_site, "train", context(part, 3, **keys)) for part in range(3)]
    assert [sorted(part.features.flatten().tolist()) for part in parts] == [[1, 4], [2, 5], [0, 3]]
    with pytest.raises(DatasetError, match="column 'site' holds 3 ids, and each is a client"):
        load_examples(by_site, "train", context(0, 4, **keys))


def test_values_can_be_divided_by_their_order() -> None:
    """The targets of a regression, 0 to 1: with strictness 1, client 0 has the least two."""
    keys = {"partitioner": "continuous", "strictness": 1.0, "partition_by": ""}

    def values(split: str, context: Context) -> pd.DataFrame:
        return by_site(split, context).drop(columns="site")

    share = load_examples(values, "train", context(0, 3, **keys))
    assert sorted(share.labels.tolist()) == pytest.approx([0.0, 0.2])


def test_values_cannot_be_divided_by_class() -> None:
    """Regression: by size it can; by class the error names what would work."""
    keys = {"partition_by": ""}
    assert len(load_examples(mini, "test", context(0, 10, **keys))) == 100

    def values(split: str, context: Context) -> pd.DataFrame:
        return by_site(split, context).drop(columns="site")

    assert len(load_examples(values, "train", context(1, 3, partitioner="linear"))) == 2
    with pytest.raises(DatasetError, match="'shards' divides by class, but the labels are contin"):
        load_examples(values, "train", context(0, 3, partitioner="shards"))
    with pytest.raises(DatasetError, match="partition-by: expected a column of the data, got 'no'"):
        load_examples(values, "train", context(0, 3, partitioner="shards", partition_by="no"))


def test_a_client_that_does_not_exist_is_refused() -> None:
    """Partition 10 of 10, and a partition id that is no number."""
    for bad in (10, -1, True, "0"):
        with pytest.raises(ConfigError, match="partition-id: expected a whole number from 0 to 9"):
            load_examples(mini, "test", context(bad))


def test_the_default_path_imports_nothing_heavy() -> None:
    """Between start and first step there is no time for ``datasets``, pandas or matplotlib."""
    code = (
        "from types import SimpleNamespace as Box;"
        "from fedwaggle.data import load_examples, load_images, fingerprint;"
        "load_data = lambda split, context: load_images('fashion-mnist-mini', split);"
        "node = Box(node_config={'partition-id': 0, 'num-partitions': 10}, run_config={});"
        "fingerprint(load_examples(load_data, 'test', node));"
        "import sys; print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"datasets", "flwr_datasets", "pandas", "matplotlib", "seaborn", "scipy", "flwr"}
    assert heavy.isdisjoint(loaded)
