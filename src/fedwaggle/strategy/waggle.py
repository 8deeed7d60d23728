"""The mixin that makes any Flower strategy read what its clients say, and a run one can trust.

Put :class:`Waggle` before a strategy class of Flower's::

    class CustomFedAdagrad(Waggle[TrainProcessMetadata], FedAdagrad): ...

It replaces Flower's round loop by its own, with the same signature, and calls Flower's verbs
(``configure_train``, ``aggregate_train``, ``configure_evaluate``, ``aggregate_evaluate``), so
the step is Flower's own, and a user's overrides count.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, get_args, get_origin

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from fedwaggle.config import RunConfig
from fedwaggle.errors import ConfigError
from fedwaggle.grids import RecordedGrid
from fedwaggle.metadata import DEFAULT_MAX_BYTES, Codec, schema_of
from fedwaggle.runs import Run
from fedwaggle.runs.best_model import BestMode, BestRule
from fedwaggle.schedules import Schedule, schedule_of
from fedwaggle.strategy.journal import Journal
from fedwaggle.strategy.loop import RoundLoop
from fedwaggle.strategy.plan import EvaluateFn, Hooks, Plan, Settings
from fedwaggle.strategy.policies import Policy, policies_of
from fedwaggle.strategy.replies.forms import form_of
from fedwaggle.strategy.replies.initial import check_initial
from fedwaggle.strategy.rules import RoundRules
from fedwaggle.strategy.step.trainable import check_trainable, trainable_names
from fedwaggle.strategy.updates import Contract

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Waggle"]

M = TypeVar("M")


class Waggle(Hooks[M]):
    """A mixin that goes before any Flower strategy class.

    The class in brackets, as in ``Waggle[TrainProcessMetadata]``, is the dataclass that clients
    send under ``content["metadata"]``; without one, no metadata is read.

    Parameters
    ----------
    learning_rate : Schedule, optional
        The clients' learning rate as a function of the round. It is sent as ``config["lr"]``.
    run : Run, optional
        Where the run is recorded, and resumed from. Without one nothing is written.
    seed : int (default: 0)
        Decides who is sampled, and the seed that each client is sent as ``config["seed"]``.
    trainable : Collection[str], optional
        Names of the arrays that a server optimizer may step, such as ``trainable_names(model)``;
        the others (buffers, such as BatchNorm's running means) are averaged. None: all but
        BatchNorm's buffers.
    fixed_model : bool, optional
        Whether each reply to training must hold exactly the model's arrays. None: yes, but for
        FedXgbBagging and FedXgbCyclic, whose model grows. Set it to False for a strategy with an
        ``aggregate_train`` of its own that reads other arrays than the model's, or none: it gets
        each reply as it came, if its arrays are finite numbers of at most ``fold-buffer`` bytes.
        All replies of a round then wait in memory.
    rules : RoundRules, optional
        How long a round waits, what it admits, when the run gives up.
    policies : Sequence[Policy] (default: none)
        What may end the run or let clients rest, by what the clients say.
    best_metric : str (default: "")
        The metric of the server's evaluation, or else of the clients', that picks the best model;
        empty takes the first that there is.
    best_mode : {"auto", "max", "min"} (default: "auto")
        Whether more or less of it is better; ``"auto"`` goes by the metric's name.
    codec : {"json", "pickle"} (default: "json")
        How clients encode metadata.
    trust_pickle : bool (default: False)
        Needed for ``codec="pickle"``, with which every client can run code on this server.
    max_metadata_bytes : int (default: 64 KiB)
        Larger metadata is refused before it is decoded, and so is a reply whose other
        ConfigRecords are larger together.
    **strategy : Any
        What the Flower strategy takes.

    Raises
    ------
    ConfigError
        If ``codec="pickle"`` comes without ``trust_pickle=True``, the class in brackets cannot be
        a contract, or ``fixed_model`` does not fit the strategy.

    Notes
    -----
    Some arrays have no mean, and stay as they are in the global model: infinities that the model
    holds and that clients send back at their place (attention masks), NaN in what is not
    ``trainable``, and torch's ``_extra_state``, which is not read from replies at all.
    """

    metadata_class: ClassVar[type[Any] | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401  # whatever a base takes
        super().__init_subclass__(**kwargs)
        for base in cls.__dict__.get("__orig_bases__", ()):
            origin = get_origin(base)
            if isinstance(origin, type) and issubclass(origin, Waggle):
                (named,) = get_args(base)
                cls.metadata_class = _contract_class(named)

    def __init__(
        self,
        *,
        learning_rate: Schedule | None = None,
        run: Run | None = None,
        seed: int = 0,
        trainable: Collection[str] | None = None,
        fixed_model: bool | None = None,
        rules: RoundRules | None = None,
        policies: Sequence[Policy[M]] = (),
        best_metric: str = "",
        best_mode: BestMode = "auto",
        codec: Codec = "json",
        trust_pickle: bool = False,
        max_metadata_bytes: int = DEFAULT_MAX_BYTES,
        **strategy: Any,  # noqa: ANN401  # whatever the strategy behind this mixin takes
    ) -> None:
        super().__init__(**strategy)
        flowers = frozenset(vars(self))
        if codec == "pickle" and not trust_pickle:
            raise ConfigError(
                [
                    "trust-pickle: metadata-codec = pickle lets every client run code on the "
                    "server; set trust-pickle = true (trust_pickle=True), or use json"
                ]
            )
        metadata = self.metadata_class
        if metadata is not None:
            schema_of(metadata)  # a class that cannot be a contract is an error before any round
        self.contract = (
            Contract(metadata, codec, trust_pickle, max_metadata_bytes) if metadata else None
        )
        self.max_metadata_bytes = max_metadata_bytes
        self.learning_rate = learning_rate
        self.run = run
        self.seed = seed
        self.trainable = None if trainable is None else frozenset(trainable)
        self.fixed_model = fixed_model
        form_of(self, fixed_model=fixed_model)  # it refuses what does not fit
        self.rules = rules or RoundRules()
        self.policies = policies
        self.journal = Journal(run, BestRule(best_metric, best_mode))
        # Settings are what this run is given: a resume point neither holds nor replaces them.
        self._settings = frozenset(vars(self)) - flowers

    @classmethod
    def of(
        cls,
        config: RunConfig,
        run: Run | None,
        model: nn.Module | None = None,
        **settings: Any,  # noqa: ANN401  # whatever the class takes
    ) -> Self:
        """Make the strategy that a run config asks for.

        Parameters
        ----------
        config : RunConfig
            The keys of sampling, seed, learning rate, metadata, best model, rules and policies
            are read. Keys of the server's optimizer are not, since each Flower strategy has its
            own: give them as ``settings``.
        run : Run | None
            Where the run is recorded, and resumed from.
        model : torch.nn.Module | None (default: None)
            The model, for the names of what is ``trainable``.
        **settings : Any
            What the class takes, such as ``eta=config.server_eta``; it counts before the config.

        Raises
        ------
        ConfigError
            As the class does; or if the config switches on a policy for which the clients'
            metadata has no field.
        """
        asked: dict[str, Any] = {
            "learning_rate": schedule_of(config),
            "run": run,
            "seed": config.seed,
            "trainable": None if model is None else trainable_names(model),
            "rules": RoundRules.of(config),
            "policies": policies_of(config, cls.metadata_class),
            "best_metric": config.best_metric,
            "best_mode": config.best_mode,
            "codec": config.metadata_codec,
            "trust_pickle": config.trust_pickle,
            "max_metadata_bytes": config.max_metadata_bytes,
        }
        sampling: dict[str, Any] = {
            "fraction_train": config.fraction_train,
            "fraction_evaluate": config.fraction_evaluate,
            "min_train_nodes": config.min_train_nodes,
            "min_evaluate_nodes": config.min_evaluate_nodes,
            "min_available_nodes": config.min_available_nodes,
        }
        return cls(**{**asked, **sampling, **settings})

    # -- Flower's verbs --------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Configure a round of training, with this round's learning rate as ``config["lr"]``.

        Flower's strategies write into the config that they are given, so they get a fresh one.
        """
        fresh = ConfigRecord(dict(config))
        if self.learning_rate is not None:
            fresh["lr"] = self.learning_rate(server_round)
        return super().configure_train(server_round, arrays, fresh, grid)  # type: ignore[safe-super]

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Configure a round of evaluation, with a fresh config."""
        fresh = ConfigRecord(dict(config))
        return super().configure_evaluate(server_round, arrays, fresh, grid)  # type: ignore[safe-super]

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> Result:
        """Run the rounds. Parameters and result are those of Flower's ``Strategy.start``.

        ``timeout`` bounds each phase of a round (s); 0 goes by what the replies take, as the config
        key ``round-timeout`` describes. If the run's folder holds a resume point,
        the rounds go on behind it, and ``initial_arrays`` are not used. A round with too few
        usable updates keeps the model, so the result is never empty.

        Raises
        ------
        ConfigError
            If ``trainable`` names an array that ``initial_arrays`` lacks, or if no round could
            succeed with the initial arrays; no client is sent a message then.
        NodesError
            If there are not enough nodes in time, or too many rounds in a row were skipped.
        RunError
            If a strategy has been started in the same run before: a run holds one start's rounds.
        """
        check_trainable(self, initial_arrays, self.trainable)
        if self.run is not None:
            self.run.claim()
            if isinstance(grid, RecordedGrid):
                grid.recorded_run = self.run
        form = form_of(self, fixed_model=self.fixed_model)
        check_initial(
            initial_arrays, form=form, trainable=self.trainable, is_saved=self.run is not None
        )
        plan = Plan(
            num_rounds,
            timeout,
            train_config or ConfigRecord(),
            evaluate_config or ConfigRecord(),
            evaluate_fn or _no_evaluation,
        )
        settings = Settings(
            contract=self.contract,
            max_metadata_bytes=self.max_metadata_bytes,
            run=self.run,
            seed=self.seed,
            trainable=self.trainable,
            form=form,
            rules=self.rules,
            policies=self.policies,
            attributes=self._settings,
        )
        return RoundLoop(self, settings, self.journal, grid, plan).run(initial_arrays)


def _contract_class(named: object) -> type[Any] | None:
    """Return the class that stands in the brackets of a base, or None for no metadata."""
    if isinstance(named, type):
        return None if named is type(None) else named
    if isinstance(named, TypeVar) or named is Any:
        return None
    raise ConfigError(
        [
            f"Waggle[...]: expected the dataclass that clients send, got {named!r}; define the "
            "class above the strategy, and name it without quotes"
        ]
    )


def _no_evaluation(server_round: int, arrays: ArrayRecord) -> None:
    """Stand in for an ``evaluate_fn`` that was not given."""
