"""What Flower's strategies for XGBoost do with a reply, so that none can trip them.

The model is bytes in an array of uint8, and grows: FedXgbBagging parses it as the JSON in which
XGBoost saves a model, and appends each reply's trees. FedXgbCyclic hands it from client to client.

Reference: ``aggregate_bagging`` in ``flwr.serverapp.strategy.strategy_utils``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from flwr.serverapp.strategy import FedXgbBagging, FedXgbCyclic, Strategy
from numpy.typing import NDArray

from fedwaggle.strategy.codes import Code, Refused
from fedwaggle.text import printable

__all__ = ["ONLY_KEY", "TREE_STRATEGIES", "check_trees", "number_by_name"]

TREE_STRATEGIES = (FedXgbBagging, FedXgbCyclic)

ONLY_KEY = "0"
"""Key of the one array: that of the first in ``ArrayRecord([array])``."""


def check_trees(array: NDArray[Any]) -> None:
    """Refuse what FedXgbBagging cannot append to a model, or others to it.

    Parameters
    ----------
    array : ndarray
        The bytes of a model, as ``Booster.save_raw("json")`` returns them.

    Raises
    ------
    Refused
        If they are anything else.
    """
    try:
        model = json.loads(array.tobytes())["learner"]["gradient_booster"]["model"]
        sizes = model["gbtree_model_param"]
        total, parallel = int(sizes["num_trees"]), int(sizes["num_parallel_tree"])
        trees, ends, groups = model["trees"], model["iteration_indptr"], model["tree_info"]
        is_whole = (
            0 < parallel <= len(trees)
            and total >= 0
            and all(isinstance(tree, dict) for tree in trees)
            and isinstance(trees, list)
            and isinstance(groups, list)
            and isinstance(ends[-1], int)
        )
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        reason = printable(f"{type(error).__name__}: {error}", 120)
        raise Refused(Code.WRONG_FORMAT, f"expected an XGBoost model as JSON: {reason}") from None
    if not is_whole:
        reason = "expected an XGBoost model as JSON, with its trees and their numbers"
        raise Refused(Code.WRONG_FORMAT, reason)


def number_by_name(strategy: Strategy, node_ids: Iterable[int]) -> None:
    """Let FedXgbCyclic take the nodes in the order of their names.

    It numbers each node when it first draws it, and ids that are new in every process would give
    another order to a run that is resumed.

    Parameters
    ----------
    strategy : Strategy
        The strategy; nothing is done to any other.
    node_ids : Iterable[int]
        The nodes that are there, by name.
    """
    if isinstance(strategy, FedXgbCyclic):
        strategy.registered_nodes = {node: i for i, node in enumerate(node_ids, start=1)}
