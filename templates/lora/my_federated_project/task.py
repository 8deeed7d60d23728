"""The task: the base model, its adapters, how they are trained, and what a client reports.

This is the file to make your own. The other three carry what is defined here.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
from flwr.app import Context
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fedwaggle import Examples

RANK = 4
WIDTHS = (64, 128, 64, 10)  # of the base model: pixels, two hidden layers, classes


@dataclass(frozen=True)
class TrainProcessMetadata:
    """What a client reports about its training, beside the weights."""

    training_time: float  # s
    converged: bool
    adapter_norms: list[float]  # Frobenius norm of each layer's change


def summarize(metadata: Sequence[TrainProcessMetadata]) -> dict[str, float]:
    """Return numbers on a round's metadata, to be logged and recorded with the round."""
    return {
        "clients_converged": sum(each.converged for each in metadata),
        "largest_adapter": max((max(each.adapter_norms) for each in metadata), default=0.0),
    }


def load_data(split: str, context: Context) -> tuple[Tensor, Tensor]:
    """Return mirrored digits of a split: four of five to train on, one to test on.

    In a simulation each node gets a share of them. A real node returns its own data, from a path
    such as ``context.node_config["data-path"]``.
    """
    x, y = digits()
    is_test = torch.arange(len(x)) % 5 == 4
    chosen = is_test if split == "test" else ~is_test
    return x[chosen].view(-1, 8, 8).transpose(1, 2).flatten(1), y[chosen]


def digits() -> tuple[Tensor, Tensor]:
    """Return scikit-learn's digits: pixels (1797, 64) from 0 to 1, and classes."""
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x).float() / 16, torch.tensor(y)


@cache
def base_weights() -> tuple[tuple[Tensor, Tensor], ...]:
    """Return the weights and biases of the base model, the same on every node."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Linear(*sizes) for sizes in pairwise(WIDTHS)]
        parameters = [parameter for layer in layers for parameter in layer.parameters()]
        optimizer, (x, y) = torch.optim.Adam(parameters, lr=0.01), digits()
        for _ in range(40):
            hidden = x
            for layer in layers[:-1]:
                hidden = F.relu(layer(hidden))
            optimizer.zero_grad()
            F.cross_entropy(layers[-1](hidden), y, label_smoothing=0.2).backward()
            optimizer.step()
    return tuple((layer.weight.detach(), layer.bias.detach()) for layer in layers)


class LoraLinear(nn.Module):
    """A frozen linear layer with a low-rank change of its weights, which begins at zero.

    The frozen weights are buffers that ``state_dict`` leaves out, so that they do not travel.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.down = nn.Parameter(torch.randn(RANK, weight.shape[1]) / weight.shape[1] ** 0.5)
        self.up = nn.Parameter(torch.zeros(weight.shape[0], RANK))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in) to (N, out)."""
        return F.linear(x, self.weight, self.bias) + x @ self.down.T @ self.up.T


def make_model() -> nn.Sequential:
    """Make the base model with new adapters; the seed of the run decides their first weights."""
    first, *others = [LoraLinear(weight, bias) for weight, bias in base_weights()]
    return nn.Sequential(first, *(part for layer in others for part in (nn.ReLU(), layer)))


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
    """Train the adapters in place by SGD; return the last loss and the metadata."""
    began = time.perf_counter()
    batches = examples.batches(batch_size, seed=seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
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
    adapters = [part for part in model.modules() if isinstance(part, LoraLinear)]
    norms = [(part.up @ part.down).norm().item() for part in adapters]
    seconds = time.perf_counter() - began
    return losses[-1], TrainProcessMetadata(seconds, has_converged(losses), norms)


@torch.inference_mode()
def test(model: nn.Module, examples: Examples) -> dict[str, float]:
    """Return the mean loss and the accuracy (0 to 1) of ``model`` over ``examples``."""
    ((x, y),) = examples.batches(len(examples))
    logits = model(x)
    accuracy = (logits.argmax(1) == y).float().mean().item()
    return {"accuracy": accuracy, "loss": F.cross_entropy(logits, y).item()}
