"""Laws of the model, its training and what a client reports about it."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from fedwaggle.convergence import has_converged
from fedwaggle.data import TensorExamples
from fedwaggle.seeds import seed_everything
from my_federated_project import task


def examples(count: int = 40) -> TensorExamples:
    """Images whose class shows as their brightness, so that they can be learned."""
    labels = torch.arange(count) % 10
    noise = torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    images = 0.1 * noise + 0.9 * (labels / 10)[:, None, None, None]
    return TensorExamples(images, labels)


def train(
    model: task.Net, seed: int = 1, *, window: int = 2, first_loss: float | None = None, **options
) -> task.TrainProcessMetadata:
    test = partial(has_converged, window=window, tolerance=0.01, fall=0.5, first_loss=first_loss)
    settings = {"epochs": 2, "lr": 0.05, "batch_size": 8, **options}
    loss, metadata = task.train(model, examples(), seed=seed, has_converged=test, **settings)
    assert loss == list(metadata.training_losses.values())[-1]
    return metadata


def test_the_model_has_44_426_parameters_on_grey_images_of_28_by_28() -> None:
    model = task.make_model()
    assert sum(p.numel() for p in model.parameters()) == 44_426
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_training_reports_how_it_went() -> None:
    metadata = train(task.Net(), epochs=3)
    assert metadata.training_time > 0
    assert list(metadata.training_losses) == ["epoch_1", "epoch_2", "epoch_3"]
    assert all(math.isfinite(loss) for loss in metadata.training_losses.values())
    assert metadata.converged is False or metadata.converged is True


def test_a_loss_that_stands_still_is_convergence() -> None:
    """With a learning rate of 0 nothing moves: a plateau, if it has fallen before.

    Cross-entropy over ten classes is about 2.3 before training. With a good rate the loss falls.
    """
    assert train(task.Net(), epochs=4, lr=0.0, first_loss=9.0).converged
    assert not train(task.Net(), epochs=4, lr=0.0).converged
    seed_everything(0)
    assert not train(task.Net(), epochs=30, lr=0.1, window=15).converged


def test_the_same_seed_gives_the_same_bits() -> None:
    """Two trainings from one seed are equal to the bit; another order of examples differs."""

    def trained(seed: int) -> torch.Tensor:
        seed_everything(7)
        model = task.Net()
        train(model, seed=seed)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


def test_a_test_returns_the_mean_loss_and_the_share_of_right_answers() -> None:
    """2,030 examples in three batches: what the whole set gives at once."""
    model, data = task.Net(), examples(2030)
    found = task.test(model, data)
    with torch.inference_mode():
        logits = model(data.features)
    loss = torch.nn.functional.cross_entropy(logits, data.labels)
    assert found["accuracy"] == (logits.argmax(1) == data.labels).sum() / 2030
    assert found["loss"] == pytest.approx(float(loss), rel=1e-5)
