"""Data sets of the Hugging Face Hub, with an answer within seconds when it is out of reach.

``datasets`` asks the Hub again and again for half a minute and more before it gives up. So
one short question goes first; only when the Hub answers does the download begin. With
``HF_HUB_OFFLINE=1`` nothing is asked, and a copy in the Hub's cache on this machine is used.

The set is loaded by the very call that flwr-datasets' ``FederatedDataset`` makes, without the
usage report that goes out beside it.
"""

from __future__ import annotations

import datasets
import httpx
from datasets import Dataset
from huggingface_hub import HfApi

from fedwaggle.errors import DatasetError

__all__ = ["load_from_hub"]

_ANSWER_SECONDS = 5.0


def load_from_hub(name: str, split: str) -> Dataset:
    """Load one split of a set of the Hub.

    Parameters
    ----------
    name : str
        Its name there, for example ``"ylecun/mnist"``.
    split : str
        A split that the set has there.

    Raises
    ------
    DatasetError
        If the Hub cannot be reached, has no such set or split, or does not let this user read
        it. The message states which.
    """
    try:
        # The module attribute, not a copy of it: HF_DATASETS_OFFLINE counts as well.
        if not datasets.config.HF_HUB_OFFLINE:
            HfApi().dataset_info(name, timeout=_ANSWER_SECONDS)
        return datasets.load_dataset(name, split=split)
    except httpx.TransportError as error:
        raise DatasetError(
            f"the Hub gave no answer for {name!r} ({error}); set HF_HUB_OFFLINE=1 if a copy lies "
            "in its cache on this machine"
        ) from error
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        what = f"{name!r} for split {split!r} ({error})"
        if datasets.config.HF_HUB_OFFLINE:
            reason = f"HF_HUB_OFFLINE is set, and the Hub's cache on this machine has no {what}"
            raise DatasetError(reason) from error
        raise DatasetError(f"the Hub has no {what}") from error
