"""Which arrays a strategy reads from a reply to training, found out from its classes."""

from __future__ import annotations

from enum import Enum, auto

from flwr.app import ArrayRecord, RecordDict
from flwr.serverapp.strategy import FedXgbBagging, Strategy

from fedwaggle.errors import ConfigError
from fedwaggle.strategy.averaging.arrays import Template, decode
from fedwaggle.strategy.averaging.finite import first_non_finite
from fedwaggle.strategy.codes import Code, Refused
from fedwaggle.strategy.layers import layers_of
from fedwaggle.strategy.replies.messages import records_of
from fedwaggle.strategy.replies.trees import ONLY_KEY, TREE_STRATEGIES, check_trees
from fedwaggle.text import printable

__all__ = ["Form", "check_arrays", "check_free", "form_of", "is_overridden", "model_record"]


class Form(Enum):
    """Which arrays each reply to training holds.

    Attributes
    ----------
    MODEL
        The model's, in the only ArrayRecord.
    MODEL_AND_MORE
        The model's, and others in ArrayRecords of their own, which a user's own step reads.
    TREES
        One array, under ``"0"``, with a tree model as JSON.
    ONE_RECORD
        Any, in the only ArrayRecord.
    ANY
        Any or none, in any number of records: a user's own step reads them.
    """

    MODEL = auto()
    MODEL_AND_MORE = auto()
    TREES = auto()
    ONE_RECORD = auto()
    ANY = auto()

    @property
    def is_fixed(self) -> bool:
        """Whether the model is a fixed set of arrays, which each reply must hold."""
        return self in (Form.MODEL, Form.MODEL_AND_MORE)


def form_of(strategy: Strategy, *, fixed_model: bool | None = None) -> Form:
    """Return the form of a strategy's replies.

    Parameters
    ----------
    strategy : Strategy
        The strategy.
    fixed_model : bool | None (default: None)
        Whether each reply must hold the model's arrays; None is yes for all but XGBoost's.

    Raises
    ------
    ConfigError
        If the strategy needs something else.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> form_of(FedAvg()), form_of(FedXgbBagging())
    (<Form.MODEL: 1>, <Form.TREES: 3>)
    """
    layers = list(layers_of(strategy))
    has_trees = any(isinstance(layer, TREE_STRATEGIES) for layer in layers)
    has_own = len(layers) == 1 and is_overridden(strategy, "aggregate_train")
    if has_trees and (fixed_model or len(layers) > 1):
        raise ConfigError(
            [
                f"{type(layers[-1]).__name__}: its model grows, so that it has no fixed arrays to "
                "check, clip or add noise to; leave fixed_model out, and do not wrap it"
            ]
        )
    if fixed_model is False and not has_trees and not has_own:
        raise ConfigError(
            [
                f"fixed_model: expected True or None for {type(strategy).__name__}, whose step "
                "takes the model's arrays, got False; give it an aggregate_train of its own, or "
                "leave fixed_model out"
            ]
        )
    if has_trees and not (has_own and fixed_model is False):
        return Form.TREES if isinstance(strategy, FedXgbBagging) else Form.ONE_RECORD
    if fixed_model is False:
        return Form.ANY
    return Form.MODEL_AND_MORE if has_own else Form.MODEL


def is_overridden(strategy: Strategy, verb: str) -> bool:
    """Return whether code that is not Flower's takes part in a verb of a strategy.

    Parameters
    ----------
    strategy : Strategy
        The strategy; the ones that it wraps count, too.
    verb : str
        Name of the method, such as ``"aggregate_train"``.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> class Mine(FedAvg):
    ...     def aggregate_evaluate(self, server_round, replies):
    ...         return None
    >>> is_overridden(Mine(), "aggregate_evaluate"), is_overridden(Mine(), "aggregate_train")
    (True, False)
    """
    return any(
        verb in vars(owner) and not _is_flowers(owner)
        for layer in layers_of(strategy)
        for owner in (layer, *type(layer).__mro__)
    )


def _is_flowers(owner: object) -> bool:
    return isinstance(owner, type) and owner.__module__.partition(".")[0] == "flwr"


def model_record(content: RecordDict, template: Template, arrays_key: str) -> str | None:
    """Return the name of the record that must be the model, or None if there is none such.

    Parameters
    ----------
    content : RecordDict
        What a client sent.
    template : Template
        The model.
    arrays_key : str
        Name of the record in which the clients were sent the model.
    """
    records = records_of(content, ArrayRecord)
    if len(records) == 1 or arrays_key in records:
        return arrays_key if arrays_key in records else next(iter(records))
    return next((n for n, record in records.items() if set(record) == set(template.specs)), None)


def check_arrays(records: dict[str, ArrayRecord], max_bytes: int) -> None:
    """Refuse records of arrays that cannot be decoded, are not finite numbers, or are too large.

    Parameters
    ----------
    records : dict[str, ArrayRecord]
        By name; there is no model that they could be compared with.
    max_bytes : int
        The largest size of all of them together.

    Raises
    ------
    Refused
        The code states why.
    """
    arrays = {f"{n}/{key}": array for n, record in records.items() for key, array in record.items()}
    size = sum(len(array.data) for array in arrays.values())
    if size > max_bytes:
        reason = f"arrays: expected at most fold-buffer = {max_bytes} bytes, got {size}"
        raise Refused(Code.TOO_LARGE, reason)
    bad = first_non_finite({key: decode(array, key) for key, array in arrays.items()})
    if bad is not None:
        name = printable(bad, 80)
        reason = f"{name!r}: expected finite numbers, got NaN or an infinity"
        raise Refused(Code.NOT_FINITE, reason)


def check_free(content: RecordDict, form: Form, max_bytes: int) -> None:
    """Refuse a reply that a strategy without a fixed model cannot use.

    Parameters
    ----------
    content : RecordDict
        What a client sent.
    form : Form
        One that is not fixed.
    max_bytes : int
        The largest size of all arrays together.

    Raises
    ------
    Refused
        The code states why.
    """
    records = records_of(content, ArrayRecord)
    if form is not Form.ANY and len(records) != 1:
        code = Code.TWO_ARRAY_RECORDS if records else Code.NO_ARRAYS
        raise Refused(code, f"expected exactly one ArrayRecord, got {len(records)}")
    check_arrays(records, max_bytes)
    if form is Form.ANY:
        return
    (record,) = records.values()
    if not record:
        raise Refused(Code.MISSING_KEY, "expected a model, got an ArrayRecord without arrays")
    if form is Form.TREES:
        if list(record) != [ONLY_KEY]:
            reason = f"expected one array, under {ONLY_KEY!r}, got {len(record)}"
            raise Refused(Code.UNKNOWN_KEY, reason)
        check_trees(decode(record[ONLY_KEY], ONLY_KEY))
