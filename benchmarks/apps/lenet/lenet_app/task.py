"""LeNet on an even slice of Fashion-MNIST: what each contestant trains, whoever carries it."""

from __future__ import annotations

import gzip
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

IMAGE_HEADER_BYTES, LABEL_HEADER_BYTES = 16, 8  # of an IDX file


class Net(nn.Module):
    """A LeNet-5 with ReLU and max pooling: 44,426 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 4 * 4, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 1, 28, 28) to logits (N, 10)."""
        maps = F.max_pool2d(F.relu(self.conv1(images)), 2)
        maps = F.max_pool2d(F.relu(self.conv2(maps)), 2)
        hidden = F.relu(self.fc1(maps.flatten(1)))
        return self.fc3(F.relu(self.fc2(hidden)))


@lru_cache(maxsize=1)  # once in a process, as Flower apps do
def load_images(data_dir: str) -> tuple[Tensor, Tensor]:
    """Return all images (60000, 1, 28, 28) as uint8, and their labels (60000,) as int64."""
    folder = Path(data_dir)
    images = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes())
    pixels = np.frombuffer(images, np.uint8, offset=IMAGE_HEADER_BYTES).copy()
    classes = np.frombuffer(labels, np.uint8, offset=LABEL_HEADER_BYTES).astype(np.int64)
    return torch.from_numpy(pixels).view(-1, 1, 28, 28), torch.from_numpy(classes)


def load_partition(data_dir: str, partition: int, size: int) -> tuple[Tensor, Tensor]:
    """Return slice number ``partition`` of ``size`` examples: images in [0, 1], and labels."""
    images, labels = load_images(data_dir)
    part = slice(partition * size, (partition + 1) * size)
    return images[part].float() / 255, labels[part]


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    seed: int,
) -> float:
    """Train in place by SGD with momentum, and return the mean loss of the last epoch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    shuffle = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        total = torch.zeros(())
        for index in torch.randperm(len(labels), generator=shuffle).split(batch_size):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images[index]), labels[index])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(index)
    return total.item() / len(labels)
