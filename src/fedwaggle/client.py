"""What a client app reads from the server's messages, and what it replies.

``load_examples`` is the other call of a client app; see
``quickstart/my_federated_project/client_app.py`` for all of them in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from fedwaggle.config import shared_config
from fedwaggle.data.loading import LoadData, count_own_labels
from fedwaggle.errors import ConfigError
from fedwaggle.identity import IDENTITY_ACTION, IDENTITY_KEY, LABELS_ACTION, LABELS_KEY
from fedwaggle.metadata import pack
from fedwaggle.site.outgoing import counts_that_leave, under_policy
from fedwaggle.site.policy import read_site_policy

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, Context, Message
    from flwr.clientapp import ClientApp
    from torch import Tensor, nn

    N = TypeVar("N", bound=nn.Module)

__all__ = ["Instructions", "answer_identity", "load_arrays", "read_instructions", "reply"]


@dataclass(frozen=True)
class Instructions:
    """What the server asks of a client in one round.

    Attributes
    ----------
    server_round : int
        The round, from 1.
    seed : int
        Decides every random choice of this client in this round.
    lr : float
        The learning rate of this round; 0 in a message that is not about training.
    """

    server_round: int
    seed: int
    lr: float = 0.0


def answer_identity(app: ClientApp, load_data: LoadData | None = None) -> ClientApp:
    """Let an app answer what the server asks before training; return the app.

    Parameters
    ----------
    app : ClientApp
        The app; it gets a handler for the query ``identity``, the client's name.
    load_data : Callable[[str, Context], Any] | None (default: None)
        What :func:`fedwaggle.load_examples` calls. With it, the app also gets a handler for the
        query ``labels``: how many training examples of each class this node has. Leave it out
        where a site must not report it.

    Examples
    --------
    >>> from flwr.clientapp import ClientApp
    >>> app = answer_identity(ClientApp())
    """
    app.query(IDENTITY_ACTION)(_say_partition)
    if load_data is not None:
        app.query(LABELS_ACTION)(_label_counter(load_data))
    return app


def read_instructions(msg: Message, key: str = "config") -> Instructions:
    """Read the instructions in a message of a Waggle strategy.

    Parameters
    ----------
    msg : Message
        A message to train or to evaluate.
    key : str (default: "config")
        Where its ConfigRecord lies.

    Raises
    ------
    ConfigError
        If there is no such record, or a value in it is missing or of a wrong type.

    Examples
    --------
    >>> from types import SimpleNamespace as Box
    >>> sent = {"server-round": 3, "seed": 7, "lr": 0.01}
    >>> read_instructions(Box(content=Box(config_records={"config": sent})))
    Instructions(server_round=3, seed=7, lr=0.01)
    """
    sent = dict(msg.content.config_records.get(key, {}))
    server_round, seed, lr = sent.get("server-round"), sent.get("seed"), sent.get("lr", 0.0)
    if isinstance(server_round, int) and isinstance(seed, int) and isinstance(lr, int | float):
        return Instructions(server_round, seed, float(lr))
    raise ConfigError(
        [
            f"{key}: expected server-round, seed and lr as numbers, got {sent!r:.200}; "
            "the strategy must be one with the Waggle mixin"
        ]
    )


def load_arrays(model: N, msg: Message) -> N:
    """Load the weights that the server sent into a model, and return the model.

    Parameters
    ----------
    model : torch.nn.Module
        A model whose ``state_dict`` has the names and shapes of the global model; it is changed.
    msg : Message
        A message to train or to evaluate.
    """
    model.load_state_dict(msg.content.array_records["arrays"].to_torch_state_dict())
    return model


def reply(
    msg: Message,
    context: Context,
    *,
    metrics: Mapping[str, float],
    num_examples: int,
    arrays: Mapping[str, Tensor] | ArrayRecord | None = None,
    metadata: object = None,
) -> Message:
    """Make the reply to a message of a Waggle strategy.

    Parameters
    ----------
    msg, context : Message, Context
        What the client app was called with.
    metrics : Mapping[str, float]
        Numbers that the server averages, weighted by ``num_examples``.
    num_examples : int
        On how many examples this client trained or evaluated.
    arrays : Mapping[str, Tensor] | ArrayRecord | None (default: None)
        The weights after training, such as ``model.state_dict()``; None after an evaluation.
    metadata : object (default: None)
        An instance of the contract's dataclass, sent as
        :func:`fedwaggle.metadata.pack` encodes it, with the codec and the largest size of the run
        config; None sends none.

    Raises
    ------
    MetadataError, ConfigError
        If the metadata cannot be sent, as :func:`fedwaggle.metadata.pack` raises them, or if the
        site's policy cannot be read.

    Notes
    -----
    Where the node config names a ``site-policy``, only what that allows is in the reply.
    """
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

    content = RecordDict()
    if arrays is not None:
        content["arrays"] = (
            arrays
            if isinstance(arrays, ArrayRecord)
            else ArrayRecord({name: tensor.cpu() for name, tensor in arrays.items()})
        )
    numbers = {name: _as_number(value) for name, value in metrics.items()}
    content["metrics"] = MetricRecord({**numbers, "num-examples": num_examples})
    if metadata is not None:
        config = shared_config(context.run_config)
        content["metadata"] = pack(
            metadata,
            context,
            codec=config.metadata_codec,
            max_bytes=config.max_metadata_bytes,
        )
    policy = read_site_policy(context.node_config)
    if not policy.is_open:
        content = under_policy(msg, context, content, policy)
    return Message(content=content, reply_to=msg)


def _say_partition(msg: Message, context: Context) -> Message:
    identity = {
        "client": str(context.node_config.get("partition-id", "")),
        "num-partitions": context.node_config.get("num-partitions", 0),
    }
    return _answer(msg, IDENTITY_KEY, identity)


def _label_counter(load_data: LoadData) -> Callable[[Message, Context], Message]:
    def answer_labels(msg: Message, context: Context) -> Message:
        policy = read_site_policy(context.node_config)
        counts = counts_that_leave(count_own_labels(load_data, "train", context), policy)
        answer = {"labels": list(counts), "counts": list(counts.values())} if counts else {}
        return _answer(msg, LABELS_KEY, answer)

    return answer_labels


def _answer(msg: Message, key: str, values: Mapping[str, Any]) -> Message:
    from flwr.app import ConfigRecord, Message, RecordDict

    return Message(RecordDict({key: ConfigRecord(dict(values))}), reply_to=msg)


def _as_number(value: Any) -> int | float:  # noqa: ANN401  # a scalar of Python, NumPy or torch
    """Return a number as MetricRecord takes it: it refuses scalars of NumPy and torch, and bool."""
    number = value.item() if hasattr(value, "item") else value
    return int(number) if isinstance(number, bool) else number
