"""The task: the text, the model, how it is trained and tested, and what a client reports.

This is the file to make your own. The other three carry what is defined here.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import torch
from flwr.app import Context
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fedwaggle import Examples, best_device, read_config

NUM_TOKENS = 128  # characters of ASCII; others become "?"
LENGTH = 64  # characters of an example
SIZE = 64  # of an embedding


@dataclass(frozen=True)
class TrainProcessMetadata:
    """What a client reports about its training, beside the weights."""

    training_time: float  # s
    converged: bool
    tokens_seen: int


def summarize(metadata: Sequence[TrainProcessMetadata]) -> dict[str, float]:
    """Return numbers on a round's metadata, to be logged and recorded with the round."""
    seconds = sum(each.training_time for each in metadata)
    tokens = sum(each.tokens_seen for each in metadata)
    return {"tokens_seen": tokens, "tokens_per_second": tokens / seconds if seconds else 0.0}


def load_data(split: str, context: Context) -> tuple[Tensor, Tensor]:
    """Return the examples of a split: characters (N, LENGTH), and those that follow each of them.

    In a simulation each node gets a share of them. A real node returns its own text, from a path
    such as ``context.node_config["data-path"]``.
    """
    dataset = read_config(context.run_config).dataset
    text = Path(dataset).read_text() if dataset.endswith(".txt") else "\n".join(topics.values())
    tokens = torch.tensor(list(text.encode("ascii", "replace")))
    tokens = tokens[: (len(tokens) - 1) // LENGTH * LENGTH + 1]
    if len(tokens) <= 10 * LENGTH:
        raise ValueError(f"{dataset}: expected a longer text, got {len(tokens)} characters")
    x, y = tokens[:-1].view(-1, LENGTH), tokens[1:].view(-1, LENGTH)
    is_test = torch.arange(len(x)) % 10 == 9
    chosen = is_test if split == "test" else ~is_test
    return x[chosen], y[chosen]


class Transformer(nn.Module):
    """A decoder with two layers (Vaswani et al., arXiv:1706.03762), normalised first."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(NUM_TOKENS, SIZE)
        self.places = nn.Embedding(LENGTH, SIZE)
        layer = nn.TransformerEncoderLayer(
            SIZE, 4, 4 * SIZE, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(SIZE, NUM_TOKENS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (N, T) to logits (N, T, NUM_TOKENS)."""
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device)
        hidden = self.tokens(tokens) + self.places.weight[:length]
        return self.head(self.layers(hidden, mask=mask, is_causal=True))


def make_model() -> nn.Module:
    """Make the model; the seed of the run decides its first weights."""
    return Transformer()


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
    losses, seen = [], 0
    for _ in range(epochs):
        total = 0.0
        for x, y in batches:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += loss.item() * len(y)
            seen += y.numel()
        losses.append(total / len(examples))
    seconds = time.perf_counter() - began
    return losses[-1], TrainProcessMetadata(seconds, has_converged(losses), seen)


@torch.inference_mode()
def test(model: nn.Module, examples: Examples) -> dict[str, float]:
    """Return the mean loss (nat) of a character, and the perplexity."""
    device = best_device()
    model.to(device).eval()
    total = 0.0
    for x, y in examples.to(device).batches(256):
        total += F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum").item()
    loss = total / (len(examples) * LENGTH)
    return {"perplexity": math.exp(min(loss, 50.0)), "loss": loss}
