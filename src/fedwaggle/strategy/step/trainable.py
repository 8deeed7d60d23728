"""Which arrays of a model a server optimizer may step: their names, from the model itself.

::

    strategy = CustomFedAdagrad(trainable=trainable_names(model), ...)

Two names of one storage (an embedding and its output layer) are two arrays in a state dict. Both
must be stepped alike: the last one that a client loads is the one that counts.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy

from fedwaggle.errors import ConfigError
from fedwaggle.strategy.averaging.arrays import Template, decode
from fedwaggle.strategy.step.aggregation import stepped_keys

if TYPE_CHECKING:
    from torch import nn

__all__ = ["check_trainable", "trainable_names"]

logger = logging.getLogger("flwr.fedwaggle.strategy")

_MOST_SHOWN = 5


def trainable_names(model: nn.Module) -> list[str]:
    """Return the names of a model's parameters as its state dict has them: tied ones too.

    Parameters
    ----------
    model : torch.nn.Module
        The model. ``named_parameters()`` has one name for each parameter; this has all.

    Examples
    --------
    >>> from torch import nn
    >>> model = nn.ModuleDict({"embed": nn.Embedding(5, 2), "head": nn.Linear(2, 5, bias=False)})
    >>> model["head"].weight = model["embed"].weight
    >>> [name for name, _ in model.named_parameters()], trainable_names(model)
    (['embed.weight'], ['embed.weight', 'head.weight'])
    """
    return [name for name, _ in model.named_parameters(remove_duplicate=False)]


def check_trainable(
    strategy: Strategy, arrays: ArrayRecord, trainable: frozenset[str] | None
) -> None:
    """Check the names of trainable arrays against a model, before any client trains it.

    Parameters
    ----------
    strategy : Strategy
        The strategy that may step them.
    arrays : ArrayRecord
        The model.
    trainable : frozenset[str] | None
        The names; None is right for every model.

    Raises
    ------
    ConfigError
        If the model lacks one of them: it would be averaged where it was to be stepped.
    """
    if trainable is None:
        return
    if unknown := sorted(trainable - set(arrays)):
        raise ConfigError([*_mistakes(unknown[:_MOST_SHOWN], list(arrays)), *_more(unknown)])
    template = Template.of(arrays)
    stepped = stepped_keys(strategy, template, trainable)
    for key, twin in _twins(arrays, template, stepped):
        logger.warning(
            "trainable: %r has the values of %r, which is trainable, and is not trainable itself; "
            "if the two are one tied weight, name both (trainable_names(model) does)",
            key,
            twin,
        )


def _mistakes(unknown: Sequence[str], known: Sequence[str]) -> list[str]:
    mistakes = []
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        nearest = f"the nearest is {near[0]!r}; " if near else ""
        mistakes.append(
            f"trainable: expected a key of the initial arrays, got {name!r}; {nearest}take the "
            "names from the model whose state dict is sent (trainable_names(model))"
        )
    return mistakes


def _more(unknown: Sequence[str]) -> list[str]:
    more = len(unknown) - _MOST_SHOWN
    return [f"trainable: {more} more names are no keys of the initial arrays"] if more > 0 else []


def _twins(
    arrays: ArrayRecord, template: Template, stepped: frozenset[str]
) -> list[tuple[str, str]]:
    """Return arrays at rest that hold the very bytes of a stepped one, each with that one.

    The storage is not seen here. Arrays of one value (zeros, ones) are alike by their
    initialisation, so they say nothing.
    """
    at_rest = [key for key in arrays if key in template.trainable and key not in stepped]
    if not at_rest:
        return []
    by_bytes = {arrays[key].data: key for key in arrays if key in stepped}
    twins = [(key, by_bytes[arrays[key].data]) for key in at_rest if arrays[key].data in by_bytes]
    return [(key, twin) for key, twin in twins if _varies(arrays, template, key)]


def _varies(arrays: ArrayRecord, template: Template, key: str) -> bool:
    values = decode(arrays[key], key, template.specs[key])
    return values.size > 0 and bool((values != values.flat[0]).any())
