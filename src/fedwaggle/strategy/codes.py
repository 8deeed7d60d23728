"""Why a reply is not used: every reason code, with one line for a person.

The codes are written into events and tables, so a code that was once released keeps its name.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType

__all__ = ["EXPLANATIONS", "Code", "Refused"]


class Code(StrEnum):
    """Reason codes of a quarantined reply."""

    # The client answered with an error.
    CLIENT_RAISED = "client-raised"
    CLIENT_CRASHED = "client-crashed"
    CLIENT_UNAVAILABLE = "client-unavailable"
    CLIENT_NOT_STARTED = "client-not-started"
    MESSAGE_LOST = "message-lost"
    CLIENT_ERROR = "client-error"
    # The reply does not hold what a reply holds.
    NO_ARRAYS = "no-arrays"
    TWO_ARRAY_RECORDS = "two-array-records"
    NO_METRICS = "no-metrics"
    TWO_METRIC_RECORDS = "two-metric-records"
    TOO_LARGE = "too-large"
    UNDECODABLE = "undecodable"
    # Its arrays are not the model's.
    MISSING_KEY = "missing-key"
    UNKNOWN_KEY = "unknown-key"
    WRONG_SHAPE = "wrong-shape"
    WRONG_DTYPE = "wrong-dtype"
    NOT_FINITE = "not-finite"
    # An array is not what it states.
    WRONG_FORMAT = "wrong-format"
    PICKLED = "pickled"
    WRONG_SIZE = "wrong-size"
    FALSE_DECLARATION = "false-declaration"
    # Its numbers cannot be used.
    BAD_WEIGHT = "bad-weight"
    EXCESSIVE_WEIGHT = "excessive-weight"
    NO_CHANGE = "no-change"
    OUT_OF_LINE = "out-of-line"
    STEP_NOT_FINITE = "step-not-finite"
    BAD_METRIC = "bad-metric"
    BAD_METADATA = "bad-metadata"
    # Its site keeps it.
    WITHHELD = "withheld"

    @property
    def explanation(self) -> str:
        """One line for a person: what is wrong with the reply."""
        return EXPLANATIONS[self]


EXPLANATIONS = MappingProxyType(
    {
        Code.CLIENT_RAISED: "the client app raised an exception",
        Code.CLIENT_CRASHED: "the process of the client app died",
        Code.CLIENT_UNAVAILABLE: "the node went away before it answered",
        Code.CLIENT_NOT_STARTED: "the node could not load or start the client app",
        Code.MESSAGE_LOST: "the message or its reply was lost on the way",
        Code.CLIENT_ERROR: "the client answered with an error of another kind",
        Code.NO_ARRAYS: "the reply has no ArrayRecord; exactly one is expected",
        Code.TWO_ARRAY_RECORDS: "the reply has more than one ArrayRecord",
        Code.NO_METRICS: "the reply has no MetricRecord; exactly one is expected",
        Code.TWO_METRIC_RECORDS: "the reply has more than one MetricRecord",
        Code.TOO_LARGE: "its ConfigRecords (metadata aside) or its arrays are larger than allowed",
        Code.UNDECODABLE: "reading the reply failed in a way that no other code names",
        Code.MISSING_KEY: "an array of the model is not there",
        Code.UNKNOWN_KEY: "an array is there that the model does not have",
        Code.WRONG_SHAPE: "an array has another shape than the model's",
        Code.WRONG_DTYPE: "an array has another dtype than the model's",
        Code.NOT_FINITE: "an array holds NaN or an infinity",
        Code.WRONG_FORMAT: "an array is not in the .npy format",
        Code.PICKLED: "an array holds pickled Python objects, which are never loaded",
        Code.WRONG_SIZE: "an array has more or fewer bytes than its header states",
        Code.FALSE_DECLARATION: "an array declares another shape or dtype than it has",
        Code.BAD_WEIGHT: "the number of examples is not a finite number above 0",
        Code.EXCESSIVE_WEIGHT: "the number of examples is above max-num-examples",
        Code.NO_CHANGE: "the model came back as it was, and the strategy divides by its change",
        Code.OUT_OF_LINE: "its change to the model is far longer than those of the others",
        Code.STEP_NOT_FINITE: "with this reply the strategy's step left no finite model",
        Code.BAD_METRIC: "a metric that is needed is missing or not finite, or there are too many",
        Code.BAD_METADATA: "the metadata was refused, and on-bad-metadata is drop-reply",
        Code.WITHHELD: "the policy of the client's site lets nothing out, such as of few examples",
    }
)
"""One line for a person, for each code."""


class Refused(Exception):  # noqa: N818  # never an error of ours: it ends up as a Quarantined
    """A reply cannot be used; it never leaves :func:`fedwaggle.strategy.replies.admission.admit`.

    Parameters
    ----------
    code : Code
        The kind of refusal.
    reason : str
        What was expected and what came, for a person.
    """

    def __init__(self, code: Code, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"[{code}] {reason}")
