"""The task: the model, how it is trained and tested, and what a client says about it.

This is the file to make your own. The other three carry what is defined here, and read the three
fields of ``TrainProcessMetadata``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from fedwaggle.convergence import has_converged
from fedwaggle.data import Examples, batches


@dataclass(frozen=True)
class TrainProcessMetadata:
    """What a client tells the server about its training, beside the weights.

    Add what you want to know: any type that reads as JSON will do, nested dataclasses too.
    A new field needs a default, so that clients which do not know it yet still can talk.
    Of these three, client_app.py reads the losses, and strategy.py the other two.
    """

    training_time: float  # s
    converged: bool
    training_losses: dict[str, float]  # mean loss of each epoch: {"epoch_1": 0.9, ...}


class Net(nn.Module):
    """A LeNet-5 with ReLU and max pooling: 44,426 parameters for 28 x 28 grey images.

    Parameters
    ----------
    image_shape : tuple[int, int, int]
        Channels, height and width of one image.
    num_classes : int
        How many classes there are to tell apart.

    References
    ----------
    LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998.
    """

    def __init__(
        self, image_shape: tuple[int, int, int] = (1, 28, 28), num_classes: int = 10
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        # Two convolutions with pooling leave nothing of a side below 16: zeros make it 16.
        self.pad = (0, max(0, 16 - width), 0, max(0, 16 - height))
        self.conv1 = nn.Conv2d(channels, 6, kernel_size=5)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        flat = 16 * _pooled_side(max(16, height)) * _pooled_side(max(16, width))
        self.fc1 = nn.Linear(flat, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, num_classes)."""
        maps = F.max_pool2d(F.relu(self.conv1(F.pad(images, self.pad))), 2)
        maps = F.max_pool2d(F.relu(self.conv2(maps)), 2)
        hidden = F.relu(self.fc1(maps.flatten(1)))
        return self.fc3(F.relu(self.fc2(hidden)))


def train(
    model: nn.Module,
    examples: Examples,
    *,
    epochs: int,
    lr: float,
    batch_size: int,
    seed: int,
    convergence_window: int = 2,
    convergence_tolerance: float = 0.01,
    convergence_fall: float = 0.5,
    first_loss: float | None = None,
) -> TrainProcessMetadata:
    """Train ``model`` in place by SGD with momentum 0.9, and say how it went.

    Parameters
    ----------
    model : nn.Module
        The model; it is moved to the best device.
    examples : Examples
        The client's training data.
    epochs, lr, batch_size : int, float, int
        Passes over the data, learning rate, and examples a step.
    seed : int
        Decides the order of the examples.
    convergence_window, convergence_tolerance, convergence_fall : int, float, float
        What counts as a plateau, see ``fedwaggle.convergence``.
    first_loss : float | None
        The first loss of this client in the run; None in its first round.
    """
    began = time.perf_counter()
    device = best_device()
    model.to(device).train()
    images, labels = examples.images.to(device), examples.labels.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    shuffle = torch.Generator().manual_seed(seed)
    losses: dict[str, float] = {}
    for epoch in range(1, epochs + 1):
        total = torch.zeros((), device=device)
        for index in batches(len(examples), batch_size, shuffle):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images[index]), labels[index])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(index)
        losses[f"epoch_{epoch}"] = total.item() / len(examples)
    return TrainProcessMetadata(
        training_time=time.perf_counter() - began,
        converged=has_converged(
            list(losses.values()),
            window=convergence_window,
            tolerance=convergence_tolerance,
            fall=convergence_fall,
            first_loss=first_loss,
        ),
        training_losses=losses,
    )


@torch.inference_mode()
def test(model: nn.Module, examples: Examples, *, batch_size: int = 1000) -> tuple[float, float]:
    """Return the mean loss and the accuracy (0 to 1) of ``model`` over ``examples``."""
    device = best_device()
    model.to(device).eval()
    loss = correct = 0.0
    for images, labels in zip(
        examples.images.split(batch_size), examples.labels.split(batch_size), strict=True
    ):
        logits, truth = model(images.to(device)), labels.to(device)
        loss += F.cross_entropy(logits, truth, reduction="sum").item()
        correct += (logits.argmax(1) == truth).sum().item()
    return loss / len(examples), correct / len(examples)


def best_device() -> torch.device:
    """Return the first GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _pooled_side(pixels: int) -> int:
    """Return what two 5 x 5 convolutions, each with 2 x 2 pooling, leave of an image's side."""
    return ((pixels - 4) // 2 - 4) // 2
