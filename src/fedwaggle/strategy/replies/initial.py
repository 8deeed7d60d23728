"""What must be right with the initial model, before any client is sent a message."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from flwr.app import ArrayRecord

from fedwaggle.errors import ConfigError
from fedwaggle.strategy.averaging.arrays import Template, decode, real_dtype
from fedwaggle.strategy.replies.forms import Form
from fedwaggle.strategy.replies.trees import ONLY_KEY

__all__ = ["check_initial"]


def check_initial(
    arrays: ArrayRecord, *, form: Form, trainable: Collection[str] | None, is_saved: bool
) -> None:
    """Refuse an initial model with which no round could succeed.

    Parameters
    ----------
    arrays : ArrayRecord
        The initial model.
    form : Form
        Which arrays the strategy reads.
    trainable : Collection[str] | None
        Keys of the arrays that are trained; None is all that the template states.
    is_saved : bool
        Whether the model is written to disk, as PyTorch and safetensors write it.

    Raises
    ------
    ConfigError
        With every mistake, by the key of its array.

    Examples
    --------
    >>> from flwr.app import Array
    >>> model = ArrayRecord({"w": Array(np.array([1.0, np.nan]))})
    >>> check_initial(model, form=Form.MODEL, trainable=None, is_saved=True)
    Traceback (most recent call last):
        ...
    fedwaggle.errors.ConfigError: initial arrays, 'w': expected numbers, got NaN, from which nothing can be trained; initialise it, or leave it out of trainable=
    """  # noqa: E501  # a line is a line
    template = Template.of(arrays)
    if form is Form.TREES and list(arrays) != [ONLY_KEY]:
        raise ConfigError(
            [
                f"initial arrays: expected one array, under {ONLY_KEY!r}, got {len(arrays)}; pass "
                'ArrayRecord([np.frombuffer(model, np.uint8)]), with b"" for no trees yet'
            ]
        )
    if not arrays and form.is_fixed:
        raise ConfigError(
            [
                "initial arrays: expected the model's, got none, so that no reply would fit it; "
                "pass ArrayRecord(model.state_dict())"
            ]
        )
    trained = template.trainable if form.is_fixed else frozenset()
    trained = trained if trainable is None else trained & set(trainable)
    mistakes = []
    for key, spec in template.specs.items():
        if is_saved and real_dtype(spec.dtype).itemsize > np.dtype(np.float64).itemsize:
            mistakes.append(
                f"initial arrays, {key!r}: {spec.dtype} cannot be written to the run's folder; "
                "use a dtype that PyTorch has, such as float64"
            )
        elif key in trained and np.isnan(decode(arrays[key], key, spec)).any():
            mistakes.append(
                f"initial arrays, {key!r}: expected numbers, got NaN, from which nothing can be "
                "trained; initialise it, or leave it out of trainable="
            )
    if mistakes:
        raise ConfigError(mistakes)
