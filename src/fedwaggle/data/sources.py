"""A data set by its name, from where it lies.

``fashion-mnist-mini`` lies inside this package. ``fashion-mnist`` is looked for in the folder
that the user names, else where Debian's package puts it, else on the Hub. Every other name is
a name on the Hub.
"""

from __future__ import annotations

import os
import reprlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedwaggle.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["FULL", "MINI", "load", "load_images"]

MINI = "fashion-mnist-mini"
FULL = "fashion-mnist"

_FULL_ON_HUB = "zalando-datasets/fashion_mnist"
_DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_WAYS = f"""\
Ways to have a data set:
  - dataset {MINI!r}: a slice of 6,000 + 1,000 images inside this package
  - dataset {FULL!r}: a folder with the four files train-images-idx3-ubyte,
    train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each plain or
    .gz, named by data-dir
  - dataset {FULL!r} on Debian and Ubuntu: apt install dataset-fashion-mnist
  - dataset {FULL!r} with a network: it is fetched from the Hub ({_FULL_ON_HUB})
  - any other set of images on the Hub by its name there, for example 'ylecun/mnist'"""


def load(name: str, split: str, *, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load one split of a data set.

    Parameters
    ----------
    name : str
        ``"fashion-mnist-mini"``, ``"fashion-mnist"``, or a name on the Hub.
    split : str
        ``"train"`` or ``"test"``; for a set of the Hub, any split that it has.
    data_dir : str | PathLike | None (default: None)
        Folder with the IDX files of ``fashion-mnist``. None or empty: look in the known places.

    Returns
    -------
    datasets.Dataset
        The Fashion-MNIST family has the columns ``image`` (28 x 28, grey) and ``label`` (0 to
        9). From the package and from local files it lies in memory, and nothing is written.

    Raises
    ------
    ConfigError
        If ``split`` or ``data_dir`` cannot go with ``name``.
    DatasetError
        If the set cannot be had, or a file of it is damaged.

    Examples
    --------
    >>> train = load("fashion-mnist-mini", "train")
    >>> len(train), train.column_names
    (6000, ['image', 'label'])
    """
    local = _read_local(name, split, data_dir)
    if local is None:
        return _load_from_hub(name, split)
    from fedwaggle.data.fashion_mnist import to_dataset

    return to_dataset(*local)


def load_images(
    name: str, split: str, *, data_dir: str | os.PathLike[str] | None = None
) -> tuple[Tensor, Tensor]:
    """Load the images and labels of one split of a data set.

    From the package and from local files this needs no ``datasets``, whose import takes a
    second, and much of the time between the start of a run and its first step.

    Parameters
    ----------
    name, split, data_dir : str, str, str | PathLike | None
        See :func:`load`.

    Returns
    -------
    tuple[Tensor, Tensor]
        Images (N, C, H, W), uint8 if they are stored as whole numbers; and labels (N,) int64.

    Raises
    ------
    ConfigError, DatasetError
        As :func:`load` does; or if the set has no images or no labels.

    Examples
    --------
    >>> images, labels = load_images("fashion-mnist-mini", "test")
    >>> images.shape, images.dtype, labels.dtype
    (torch.Size([1000, 1, 28, 28]), torch.uint8, torch.int64)
    """
    local = _read_local(name, split, data_dir)
    if local is None:
        from fedwaggle.data.image_columns import decode_images, decode_labels

        dataset = _load_from_hub(name, split)
        return decode_images(dataset), decode_labels(dataset)
    images, labels = local
    # Copies, since what was read from a file may be read-only, and a tensor never is.
    return torch.tensor(images[:, np.newaxis]), torch.tensor(labels.astype(np.int64))


def _check(name: str, split: str, folder: Path | None) -> None:
    """Refuse arguments that do not go together, all of them at once."""
    mistakes = []
    if name in (MINI, FULL) and split not in ("train", "test"):
        mistakes.append(f"split: expected 'train' or 'test', got {reprlib.repr(split)}")
    if name != FULL and folder is not None:
        mistakes.append(
            f"data-dir: only dataset {FULL!r} is read from a folder, got {str(folder)!r} with "
            f"dataset {reprlib.repr(name)}; leave data-dir empty"
        )
    if mistakes:
        raise ConfigError(mistakes)


def _read_local(
    name: str, split: str, data_dir: str | os.PathLike[str] | None
) -> tuple[NDArray[np.uint8], NDArray[np.integer[Any]]] | None:
    """Read a split of Fashion-MNIST from the first place here that has it."""
    # An empty string is what an unset key of the run config holds.
    folder = Path(data_dir).expanduser().absolute() if data_dir else None
    _check(name, split, folder)
    if name not in (MINI, FULL):
        return None
    from fedwaggle.data.fashion_mnist import find_files, read_files, read_mini

    if name == MINI:
        return read_mini(split)
    files = find_files(folder or _DEBIAN_FOLDER, split)
    if files is not None:
        return read_files(*files)
    if folder is not None:
        # A folder that the user named is a wish, not a hint: another source would surprise.
        raise DatasetError(f"dataset {FULL!r}: {_lacks(folder, split)}.\n{_WAYS}")
    return None


def _lacks(folder: Path, split: str) -> str:
    from fedwaggle.data.fashion_mnist import FILES

    return f"{folder} lacks {' or '.join(FILES[split])} (plain or .gz)"


def _load_from_hub(name: str, split: str) -> Dataset:
    """Load a set of the Hub; an error names every other way too."""
    from fedwaggle.data.hub import load_from_hub

    try:
        return load_from_hub(_FULL_ON_HUB if name == FULL else name, split)
    except DatasetError as error:
        missing = f"{_lacks(_DEBIAN_FOLDER, split)}, and " if name == FULL else ""
        raise DatasetError(f"dataset {reprlib.repr(name)}: {missing}{error}.\n{_WAYS}") from error
