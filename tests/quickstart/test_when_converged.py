"""When the clients of the quickstart have converged, in its own run with its own defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from running import of_kind, run, story

GUESSING = 0.1  # the accuracy of guessing one of ten classes
ASKED = {"stop-when-converged": 0.8}


def accuracies(run_folder: Path) -> dict[int, float]:
    """Return the accuracy on the server's test data after each round."""
    rounds = of_kind(story(run_folder), "round-finished")
    return {event.round: event.metrics["accuracy"] for event in rounds}


def converged_clients(run_folder: Path) -> dict[int, set[str]]:
    """Return who reported in which round that its training has converged."""
    updates = of_kind(story(run_folder), "client-updated")
    said = {event.round: set[str]() for event in updates}
    for event in updates:
        if event.metadata["converged"]:
            said[event.round].add(event.client)
    return said


def test_a_flat_loss_before_learning_starts_is_no_plateau(tmp_path: Path) -> None:
    """Rounds 1 to 4 in batches of 32: the loss stays at 2.3, stays, falls, and has halved.

    With a tolerance of 1 any change counts as none, so that the fall alone decides. No round of
    its own is a fall by half; the first loss, of an earlier round, is kept on the node.
    """
    settings = {
        **ASKED,
        "num-server-rounds": 4,
        "batch-size": 32,
        "convergence-tolerance": 1,
        "fraction-evaluate": 0,
    }
    folder = run(tmp_path, settings=settings, nodes=10)
    assert list(accuracies(folder)) == [0, 1, 2, 3, 4]
    converged = converged_clients(folder)
    assert [len(converged[number]) for number in (1, 2, 3, 4)] == [0, 0, 0, 5]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_that_ends_when_converged_is_as_good_as_the_whole_run(tmp_path: Path) -> None:
    """20 rounds of the quickstart, and as many as 80 % converged clients leave of them.

    No client has converged while the model still guesses.
    """
    whole = run(tmp_path / "whole", settings={}, nodes=10)
    ended = run(tmp_path / "ended", settings=ASKED, nodes=10)
    last = [accuracies(folder)[max(accuracies(folder))] for folder in (whole, ended)]
    assert last[1] >= last[0] - 0.005
    for number, clients in converged_clients(whole).items():
        assert not clients or accuracies(whole)[number - 1] > 2 * GUESSING
