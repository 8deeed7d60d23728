"""Without a seed of the run, the random numbers are the app's own, as on Flower."""

from __future__ import annotations

import random

import numpy as np
import torch

from fedwaggle.engine import run

DRAW = """
import random
import numpy as np
{at_import}
@app.train()
def train(message, context):
    time.sleep({seconds})
    return answer(message, [random.random(), float(np.random.rand())])
"""
IN_TURN = "return list(values(ask(grid)).values())"


def drawn_after_seed_5(count: int) -> list[list[float]]:
    """Return what a plain process draws, message by message."""
    python, numpy = random.Random(5), np.random.RandomState(5)
    return [[python.random(), float(numpy.rand())] for _ in range(count)]


def test_what_a_client_app_seeds_at_import_stays_seeded(make_app) -> None:
    """One worker draws number 1, 2, 3 of the seed; of two workers, each begins with number 1."""
    seeds = "random.seed(5); np.random.seed(5)"
    one = make_app(DRAW.format(at_import=seeds, seconds=0), IN_TURN)
    assert run(one, nodes=3, workers=1).value == drawn_after_seed_5(3)
    two = make_app(DRAW.format(at_import=seeds, seconds=0.5), IN_TURN)
    assert run(two, nodes=2, workers=2).value == drawn_after_seed_5(1) * 2
    fresh = make_app(DRAW.format(at_import=seeds, seconds=0), IN_TURN)
    assert run(fresh, nodes=2, workers=1, isolate=True).value == drawn_after_seed_5(1) * 2


def test_torch_stays_seeded_too(make_app) -> None:
    client = """
    import torch
    torch.manual_seed(5)
    @app.train()
    def train(message, context):
        return answer(message, torch.rand(()).item())
    """
    generator = torch.Generator().manual_seed(5)
    expected = [torch.rand((), generator=generator).item() for _ in range(2)]
    assert run(make_app(client, IN_TURN), nodes=2, workers=1).value == expected


def test_clients_of_an_app_that_seeds_nothing_draw_different_numbers(make_app) -> None:
    """Two workers, copies of one process, in which numbers were drawn already; two runs."""
    unseeded = "random.seed(); np.random.seed(); random.random(); np.random.rand(1000)"
    app = make_app(DRAW.format(at_import=unseeded, seconds=0.5), IN_TURN)
    drawn = [run(app, nodes=2, workers=2).value for _ in range(2)]
    assert len({number for values in drawn for pair in values for number in pair}) == 8


def test_torch_draws_different_numbers_too(make_app) -> None:
    client = """
    import torch
    torch.rand(10)
    @app.train()
    def train(message, context):
        time.sleep(0.5)
        return answer(message, torch.rand(()).item())
    """
    assert len(set(run(make_app(client, IN_TURN), nodes=2, workers=2).value)) == 2


def test_one_generator_may_be_seeded_and_the_other_not(make_app) -> None:
    app = make_app(DRAW.format(at_import="np.random.seed(5)", seconds=0.5), IN_TURN)
    (python, numpy), (other_python, other_numpy) = run(app, nodes=2, workers=2).value
    assert numpy == other_numpy == drawn_after_seed_5(1)[0][1]
    assert python != other_python


def test_what_a_server_app_seeds_at_import_stays_seeded(make_app) -> None:
    """Its module is imported after the engine has begun, and before its main function runs."""
    client = "@app.train()\ndef train(message, context):\n    return answer(message, 1)"
    tail = """
    import random
    import numpy as np
    random.seed(5); np.random.seed(5)
    """
    main = "ask(grid); return [random.random(), float(np.random.rand())]"
    for seed in (None, 3):
        app = make_app(client, main, server_tail=tail)
        assert [run(app, nodes=1, seed=seed).value] == drawn_after_seed_5(1)


def test_a_seed_of_the_run_counts_in_each_message(make_app) -> None:
    """Whatever a ClientApp seeds at import: numbers must not depend on who is free first."""
    app = make_app(DRAW.format(at_import="random.seed(5); np.random.seed(5)", seconds=0), IN_TURN)
    one, two = (run(app, nodes=3, workers=workers, seed=1).value for workers in (1, 2))
    assert one == two
    assert len({number for pair in one for number in pair}) == 6
