"""``federate``: a simulation without app objects, from the functions that the apps would call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flwr.app import ArrayRecord, Context, Message, MetricRecord
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Strategy

from fedwaggle.client import answer_identity, load_arrays, read_instructions, reply
from fedwaggle.config import read_config, shared_config
from fedwaggle.convergence import convergence_test
from fedwaggle.data import load_examples
from fedwaggle.errors import ConfigError
from fedwaggle.seeds import seed_everything
from fedwaggle.server import initial_model, open_run
from fedwaggle.simulation.result import SimulationResult
from fedwaggle.simulation.simulate import simulate
from fedwaggle.strategy import Waggle

if TYPE_CHECKING:
    from torch import nn

    from fedwaggle.data.loading import LoadData

__all__ = ["federate"]


def federate(
    make_model: Callable[[], nn.Module],
    load_data: LoadData,
    train: Callable[..., tuple[float, Any]],
    test: Callable[..., dict[str, float]],
    *,
    metadata: type[Any] | None = None,
    strategy: type[Strategy] = FedAvg,
    strategy_options: Mapping[str, Any] | None = None,
    rounds: int = 3,
    num_supernodes: int = 10,
    config: Mapping[str, Any] | None = None,
    **options: Any,  # noqa: ANN401  # those of simulate
) -> SimulationResult:
    """Train a model on simulated clients, and return the run.

    Parameters
    ----------
    make_model : Callable[[], torch.nn.Module]
        Makes the model.
    load_data : Callable[[str, Context], Any]
        Returns the examples of a split, ``"train"`` or ``"test"``; see
        :func:`fedwaggle.load_examples`.
    train : Callable[..., tuple[float, metadata | None]]
        ``train(model, examples, *, epochs, lr, batch_size, seed, has_converged)`` trains the model
        in place, and returns the loss to report and the client's metadata, or None.
    test : Callable[..., dict[str, float]]
        ``test(model, examples)`` returns metrics. The first of them picks the best model, unless
        the config has a ``best-metric``.
    metadata : type | None (default: None)
        The dataclass of the metadata.
    strategy : type[Strategy] (default: FedAvg)
        A strategy of Flower.
    strategy_options : Mapping[str, Any] | None
        What the strategy takes beside the sampling of nodes, such as ``{"eta": 0.1}``.
    rounds : int (default: 3)
        Rounds of the run.
    num_supernodes : int (default: 10)
        Number of simulated nodes.
    config : Mapping[str, Any] | None
        Keys of the run config; docs/configuration.md lists them.
    **options
        See :func:`fedwaggle.simulate`.

    Raises
    ------
    ConfigError, EngineError, Exception
        As :func:`fedwaggle.simulate` does.

    Examples
    --------
    >>> result = federate(make_model, load_data, train, test, rounds=5)  # doctest: +SKIP
    """
    asked = {"num-server-rounds": rounds, **(config or {})}
    read_config(asked)  # a mistake is known before anything starts
    server_app = _server_app(
        make_model, load_data, test, _with_mixin(strategy, metadata), dict(strategy_options or {})
    )
    client_app = _client_app(make_model, load_data, train, test)
    return simulate(server_app, client_app, num_supernodes, config=asked, **options)


def _client_app(
    make_model: Callable[[], nn.Module],
    load_data: LoadData,
    train: Callable[..., tuple[float, Any]],
    test: Callable[..., dict[str, float]],
) -> ClientApp:
    app = answer_identity(ClientApp(), load_data)

    @app.train()
    def train_client(msg: Message, context: Context) -> Message:
        config, sent = shared_config(context.run_config), read_instructions(msg)
        seed_everything(sent.seed)
        examples = load_examples(load_data, "train", context)
        model = load_arrays(make_model(), msg)
        loss, metadata = train(
            model,
            examples,
            epochs=config.local_epochs,
            lr=sent.lr,
            batch_size=config.batch_size,
            seed=sent.seed,
            has_converged=convergence_test(config, context.state),
        )
        return reply(
            msg,
            context,
            arrays=model.state_dict(),
            metrics={"train_loss": loss},
            num_examples=len(examples),
            metadata=metadata,
        )

    @app.evaluate()
    def evaluate_client(msg: Message, context: Context) -> Message:
        seed_everything(read_instructions(msg).seed)
        examples = load_examples(load_data, "test", context)
        model = load_arrays(make_model(), msg)
        return reply(msg, context, metrics=test(model, examples), num_examples=len(examples))

    return app


def _server_app(
    make_model: Callable[[], nn.Module],
    load_data: LoadData,
    test: Callable[..., dict[str, float]],
    strategy_class: type[Waggle[Any]],
    strategy_options: dict[str, Any],
) -> ServerApp:
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        config = read_config(context.run_config)
        test_set = load_examples(load_data, "test", context)
        with open_run(config, context, grid, test_set=test_set, load_data=load_data) as run:
            model = initial_model(make_model, config.seed)
            strategy = strategy_class.of(config, run, model, **strategy_options)

            def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
                model.load_state_dict(arrays.to_torch_state_dict())
                return MetricRecord({**test(model, test_set)})

            strategy.start(
                grid=grid,
                initial_arrays=ArrayRecord(model.state_dict()),
                num_rounds=config.num_server_rounds,
                timeout=config.round_timeout,
                evaluate_fn=evaluate,
            )

    return app


def _with_mixin(strategy: type[Strategy], metadata: type[Any] | None) -> type[Waggle[Any]]:
    """Return the strategy behind the mixin, under its own name; as it is if it has the mixin."""
    if not isinstance(strategy, type) or not issubclass(strategy, Strategy):
        raise ConfigError(
            [f"strategy: expected a class of flwr.serverapp.strategy, got {strategy!r}"]
        )
    bases = (strategy,) if issubclass(strategy, Waggle) else (Waggle, strategy)
    attributes = {} if metadata is None else {"metadata_class": metadata}
    return type(strategy.__name__, bases, attributes)
