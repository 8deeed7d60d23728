"""Updates with other records than the rest of their round, which a user's own step may trip on."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from flwr.app import ArrayRecord

from fedwaggle.strategy.replies.admission import Admitted
from fedwaggle.strategy.replies.messages import records_of

__all__ = ["without_odd"]

logger = logging.getLogger("flwr.fedwaggle.strategy")

_MOST_NAMED = 5  # clients in one warning


def without_odd(admitted: Sequence[Admitted[Any]], server_round: int) -> list[Admitted[Any]]:
    """Return the updates whose ArrayRecords have the names that most updates have there.

    A step reads the records beside the model by their names, and would raise where one is
    missing. The name of an only record is free: it is the model.

    Parameters
    ----------
    admitted : Sequence[Admitted]
        The updates of a round; of two forms that are as common, the one that comes first is usual.
    server_round : int
        The round, for the log.
    """
    forms = [_form_of(one) for one in admitted]
    usual = Counter(forms).most_common(1)[0][0] if forms else ()
    odd = [one.update.client for one, form in zip(admitted, forms, strict=True) if form != usual]
    if odd:
        more = len(odd) - _MOST_NAMED
        logger.warning(
            "round %d: updates with other ArrayRecords than most have are left out of the step "
            "(clients: %s)",
            server_round,
            ", ".join(odd[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else ""),
        )
    return [one for one, form in zip(admitted, forms, strict=True) if form == usual]


def _form_of(admitted: Admitted[Any]) -> tuple[str, ...]:
    names = sorted(records_of(admitted.message.content, ArrayRecord))
    return tuple(names) if len(names) > 1 else ()
