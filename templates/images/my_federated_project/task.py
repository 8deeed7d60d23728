"""The task: the images, the model, how it is trained and tested, and what a client reports.

This is the file to make your own. The other three carry what is defined here.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from flwr.app import Context
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import Dataset

from fedwaggle import DatasetError, Examples, best_device, read_config

NUM_CLASSES = 10
SIDE = 32  # pixels of an image that the model sees


@dataclass(frozen=True)
class TrainProcessMetadata:
    """What a client reports about its training, beside the weights."""

    training_time: float  # s
    converged: bool
    accuracy_per_class: dict[str, float]  # after training, on its own data


def summarize(metadata: Sequence[TrainProcessMetadata]) -> dict[str, float]:
    """Return numbers on a round's metadata, to be logged and recorded with the round."""
    worst = [min(each.accuracy_per_class.values(), default=0.0) for each in metadata]
    return {
        "clients_converged": sum(each.converged for each in metadata),
        "worst_class_accuracy": min(worst, default=0.0),
    }


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """A folder of images for each class, in the order of the folders' names."""

    def __init__(self, folder: Path) -> None:
        classes = sorted(path for path in folder.glob("*") if path.is_dir())
        self.files = [file for path in classes for file in sorted(path.glob("*.*"))]
        self.targets = [classes.index(file.parent) for file in self.files]
        if len(classes) != NUM_CLASSES:
            raise DatasetError(
                f"{folder}: expected {NUM_CLASSES} folders of images, got {len(classes)}; set "
                "data-dir to the folder above train and test, and NUM_CLASSES in task.py"
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a grey image (1, SIDE, SIDE) from 0 to 1, and its class."""
        image = Image.open(self.files[index]).convert("L").resize((SIDE, SIDE))
        return torch.tensor(np.asarray(image))[None] / 255, self.targets[index]


def load_data(split: str, context: Context) -> ImageFolder:
    """Return the images of a split, ``"train"`` or ``"test"``.

    In a simulation each node gets a share of them. A real node returns its own, from a path such
    as ``context.node_config["data-path"]``.
    """
    folder = read_config(context.run_config).data_dir or digits_as_files()
    return ImageFolder(Path(folder, split))


def digits_as_files() -> Path:
    """Write scikit-learn's digits as images, unless they are there; return their folder."""
    done = Path(tempfile.gettempdir(), "waggle-digits")
    if not done.exists():
        draft = Path(tempfile.mkdtemp(prefix="waggle-digits-"))
        digits = load_digits()
        for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            folder = draft / ("test" if number % 5 == 4 else "train") / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels * 15.9).astype(np.uint8)).save(folder / f"{number:04}.png")
        with suppress(OSError):  # another process may have been faster
            draft.rename(done)
    return done


def make_model() -> nn.Module:
    """Make the model; the seed of the run decides its first weights."""
    side = SIDE // 4
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(16 * side * side, NUM_CLASSES)),
    )


def train(
    model: nn.Module,
    examples: Examples,
    *,
    epochs: int,
    lr: float,
    batch_size: int,
    seed: int,
    has_converged: Callable[[Sequence[float]], bool],
) -> tuple[float, TrainProcessMetadata]:
    """Train ``model`` in place by SGD with momentum 0.9; return the last loss and the metadata."""
    began = time.perf_counter()
    device = best_device()
    model.to(device).train()
    batches = examples.to(device).batches(batch_size, seed=seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    losses = []
    for _ in range(epochs):
        total = 0.0
        for x, y in batches:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
        losses.append(total / len(examples))
    per_class = accuracy_per_class(model, examples)
    seconds = time.perf_counter() - began
    return losses[-1], TrainProcessMetadata(seconds, has_converged(losses), per_class)


@torch.inference_mode()
def test(model: nn.Module, examples: Examples) -> dict[str, float]:
    """Return the mean loss and the accuracy (0 to 1) of ``model`` over ``examples``."""
    device = best_device()
    model.to(device).eval()
    loss = correct = 0.0
    for x, y in examples.to(device).batches(256):
        logits = model(x)
        loss += F.cross_entropy(logits, y, reduction="sum").item()
        correct += (logits.argmax(1) == y).sum().item()
    return {"accuracy": correct / len(examples), "loss": loss / len(examples)}


@torch.inference_mode()
def accuracy_per_class(model: nn.Module, examples: Examples) -> dict[str, float]:
    """Return the accuracy (0 to 1) of each class that these examples show."""
    device = best_device()
    model.to(device).eval()
    right, seen = torch.zeros(NUM_CLASSES), torch.zeros(NUM_CLASSES)
    for x, y in examples.to(device).batches(256):
        seen += y.bincount(minlength=NUM_CLASSES).cpu()
        right += y[model(x).argmax(1) == y].bincount(minlength=NUM_CLASSES).cpu()
    return {str(c): (right[c] / seen[c]).item() for c in range(NUM_CLASSES) if seen[c]}
