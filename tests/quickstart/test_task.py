"""Laws of the model, its training and what a client says about it."""

from __future__ import annotations

import math

import pytest
import torch

from fedwaggle.data import Examples
from fedwaggle.seeds import seed_everything
from my_federated_project import task


def examples(
    count: int = 40, shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10
) -> Examples:
    """Images whose class shows as their brightness, so that they can be learned."""
    labels = torch.arange(count) % classes
    noise = torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))
    images = 0.1 * noise + 0.9 * (labels / classes)[:, None, None, None]
    return Examples(images, labels, classes)


def train(model: task.Net, seed: int = 1, **options: float) -> task.TrainProcessMetadata:
    settings = {"epochs": 2, "lr": 0.05, "batch_size": 8, **options}
    return task.train(model, examples(), seed=seed, **settings)


def test_the_model_has_44_426_parameters_on_grey_images_of_28_by_28() -> None:
    assert sum(p.numel() for p in task.Net().parameters()) == 44_426


@pytest.mark.parametrize(
    ("shape", "classes"), [((3, 32, 32), 100), ((1, 8, 8), 2), ((3, 17, 40), 5), ((1, 96, 64), 3)]
)
def test_it_takes_any_shape_and_any_number_of_classes(
    shape: tuple[int, int, int], classes: int
) -> None:
    assert task.Net(shape, classes)(torch.rand(2, *shape)).shape == (2, classes)


def test_training_says_how_it_went() -> None:
    metadata = train(task.Net(), epochs=3)
    assert metadata.training_time > 0
    assert list(metadata.training_losses) == ["epoch_1", "epoch_2", "epoch_3"]
    assert all(math.isfinite(loss) for loss in metadata.training_losses.values())
    assert metadata.converged is False or metadata.converged is True


def test_a_loss_that_stands_still_is_convergence() -> None:
    """With a learning rate of 0 nothing moves: a plateau, if it has fallen before.

    Cross-entropy over ten classes is about 2.3 before training. With a good rate the loss falls.
    """
    assert train(task.Net(), epochs=4, lr=0.0, convergence_window=2, first_loss=9.0).converged
    assert not train(task.Net(), epochs=4, lr=0.0, convergence_window=2).converged
    seed_everything(0)
    assert not train(task.Net(), epochs=30, lr=0.1, convergence_window=15).converged


def test_the_same_seed_gives_the_same_bits() -> None:
    """Two trainings from one seed are equal to the bit; another order of examples differs."""

    def trained(seed: int) -> torch.Tensor:
        seed_everything(7)
        model = task.Net()
        train(model, seed=seed)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


def test_the_batch_size_of_the_test_changes_nothing() -> None:
    model = task.Net()
    loss, accuracy = task.test(model, examples(40), batch_size=7)
    whole_loss, whole_accuracy = task.test(model, examples(40), batch_size=1000)
    assert accuracy == whole_accuracy
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    assert 0 <= accuracy <= 1
