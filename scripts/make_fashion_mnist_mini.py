"""Make the slice of Fashion-MNIST that lies inside the package.

From each class of the full set, 600 images to train on and 100 to test on are drawn by a fixed
seed and kept in the order of the full set. The same source gives the same content: the printed
fingerprints are those that ``tests/data/test_embedded_set.py`` expects.

    python scripts/make_fashion_mnist_mini.py [SOURCE_FOLDER] [TARGET_FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedwaggle.data import fingerprint, to_examples
from fedwaggle.data.fashion_mnist import (
    CLASS_NAMES,
    MINI_FOLDER,
    find_files,
    read_files,
    to_dataset,
)

SOURCE_FOLDER = Path("/usr/share/datasets/fashion-mnist")
PER_CLASS = {"train": 600, "test": 100}
SEED = 0


def main(source: Path = SOURCE_FOLDER, target: Path = MINI_FOLDER) -> None:
    """Write ``train.npz`` and ``test.npz`` into the folder ``target``."""
    target.mkdir(parents=True, exist_ok=True)
    for split, per_class in PER_CLASS.items():
        files = find_files(source, split)
        if files is None:
            sys.exit(f"{source} lacks the IDX files of the {split} split")
        images, labels = read_files(*files)
        rows = stratified_rows(labels, per_class)
        chosen = images[rows], labels[rows]
        np.savez_compressed(target / f"{split}.npz", images=chosen[0], labels=chosen[1])
        content = fingerprint(to_examples(to_dataset(*chosen)))
        print(f"{split}: {len(rows)} images, fingerprint {content}")


def stratified_rows(labels: NDArray[np.uint8], per_class: int) -> NDArray[np.int64]:
    """Return ``per_class`` rows of each class, drawn by the seed, in ascending order."""
    rng = np.random.default_rng(SEED)
    chosen = [
        rng.choice(np.flatnonzero(labels == label), per_class, replace=False)
        for label in range(len(CLASS_NAMES))
    ]
    return np.sort(np.concatenate(chosen))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
