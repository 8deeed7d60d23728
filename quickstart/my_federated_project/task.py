"""The task: the data, the model, how it is trained and tested, and what a client reports.

This is the file to make your own. The other three carry what is defined here.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from flwr.app import Context
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from fedwaggle import Examples, best_device, load_images, read_config


@dataclass(frozen=True)
class TrainProcessMetadata:
    """What a client reports about its training, beside the weights.

    Add what you want to know: any type that reads as JSON will do, nested dataclasses too.
    A new field needs a default, so that clients which do not know it yet still can talk.
    """

    training_time: float  # s
    converged: bool
    training_losses: dict[str, float]  # mean loss of each epoch: {"epoch_1": 0.9, ...}


def summarize(metadata: Sequence[TrainProcessMetadata]) -> dict[str, float]:
    """Return numbers on a round's metadata, to be logged and recorded with the round."""
    return {
        "clients_converged": sum(each.converged for each in metadata),
        "slowest_training_time": max((each.training_time for each in metadata), default=0.0),  # s
    }


def load_data(split: str, context: Context) -> tuple[Tensor, Tensor]:
    """Return the features and labels of a split, ``"train"`` or ``"test"``.

    In a simulation each node gets a share of them. A real node returns its own data, from a path
    such as ``context.node_config["data-path"]``. Data frames and data sets can be returned, too.
    """
    config = read_config(context.run_config)
    return load_images(config.dataset, split, data_dir=config.data_dir)


class Net(nn.Module):
    """A LeNet-5 (LeCun et al., 1998) with ReLU and max pooling: 44,426 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, kernel_size=5)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.fc1 = nn.Linear(16 * 4 * 4, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 1, 28, 28) to logits (N, 10)."""
        maps = F.max_pool2d(F.relu(self.conv1(images)), 2)
        maps = F.max_pool2d(F.relu(self.conv2(maps)), 2)
        hidden = F.relu(self.fc1(maps.flatten(1)))
        return self.fc3(F.relu(self.fc2(hidden)))


def make_model() -> Net:
    """Make the model; the seed of the run decides its first weights."""
    return Net()


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
    """Train ``model`` in place by SGD with momentum 0.9; return the last loss and the metadata.

    ``seed`` decides the order of the examples. ``has_converged`` returns whether the mean losses of
    the epochs have fallen to a plateau.
    """
    began = time.perf_counter()
    device = best_device()
    model.to(device).train()
    batches = examples.to(device).batches(batch_size, seed=seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    losses: dict[str, float] = {}
    for epoch in range(1, epochs + 1):
        total = torch.zeros((), device=device)
        for x, y in batches:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(y)
        losses[f"epoch_{epoch}"] = total.item() / len(examples)
    history = list(losses.values())
    metadata = TrainProcessMetadata(time.perf_counter() - began, has_converged(history), losses)
    return history[-1], metadata


@torch.inference_mode()
def test(model: nn.Module, examples: Examples) -> dict[str, float]:
    """Return the accuracy (0 to 1), by which the best model is picked, and the mean loss."""
    device = best_device()
    model.to(device).eval()
    loss = correct = 0.0
    for x, y in examples.to(device).batches(1000):
        logits = model(x)
        loss += F.cross_entropy(logits, y, reduction="sum").item()
        correct += (logits.argmax(1) == y).sum().item()
    return {"accuracy": correct / len(examples), "loss": loss / len(examples)}
