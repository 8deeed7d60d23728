"""Everything of Flower that is not promised to stay: used here, and nowhere else in the engine.

Flower's public interface is enough to write a ServerApp or a ClientApp, not to carry messages
between them. What an engine needs beyond it is gathered in this file, each thing behind a
function whose docstring states what it is for. :func:`changes` looks at each of them when a run
starts, and ``tests/engine/test_flwr_private.py`` tests what they do. Tried with Flower 1.41 and
1.42.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    Metadata,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.clientapp.client_app import LoadClientAppError
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.server_app import LoadServerAppError
from flwr.supercore.object_ref import load_app
from flwr.supercore.run import Run as FlowerRun
from flwr.supercore.task_identity import TaskIdentity

from fedwaggle.errors import EngineError

__all__ = [
    "CLIENT_APP_CRASHED",
    "CLIENT_APP_RAISED",
    "MESSAGE_UNAVAILABLE",
    "METADATA_FIELDS",
    "NODE_UNAVAILABLE",
    "SERVER_NODE_ID",
    "UNKNOWN_ERROR",
    "FlowerRun",
    "NodeInfo",
    "call_server_app",
    "changes",
    "crash_error",
    "describe_run",
    "load_client_app",
    "load_server_app",
    "make_array",
    "make_message",
    "make_record",
    "metadata_values",
    "record_values",
    "set_message_id",
    "set_task_identity",
    "state_from_bytes",
    "state_to_bytes",
    "task_identity",
    "unavailable_reply",
]

SERVER_NODE_ID = 1  # flwr.common.constant.SUPERLINK_NODE_ID

# flwr.common.constant.ErrorCode
UNKNOWN_ERROR = 0
CLIENT_APP_RAISED = 2
MESSAGE_UNAVAILABLE = 3
NODE_UNAVAILABLE = 5
CLIENT_APP_CRASHED = 8

# The attributes of a message's metadata, as Flower keeps them, in the order of our wire.
METADATA_FIELDS = (
    "_run_id",
    "_message_id",
    "_src_node_id",
    "_dst_node_id",
    "_reply_to_message_id",
    "_group_id",
    "_created_at",
    "_ttl",
    "_message_type",
    "_src_task_id",
    "_dst_task_id",
)

_DISTRIBUTIONS = {  # of packages whose name on the index is another one
    "PIL": "pillow",
    "cv2": "opencv-python",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}

_IDENTITY_FIELDS = ("_task_id", "_run_id", "_node_id")
_SYSTEM_MESSAGE_TYPE = "system"

Record = ArrayRecord | MetricRecord | ConfigRecord


def changes() -> list[str]:
    """Return what this Flower has in another form than this file expects; empty if nothing.

    A name that is gone fails when this module is imported. This is the rest: attributes that
    Flower keeps to itself. It takes less than a millisecond.

    Examples
    --------
    >>> changes()
    []
    """
    metadata = Metadata(1, "id", 2, 3, "to", "group", 4.0, 5.0, "train", 6, 7)
    message: Message = Message(RecordDict(), metadata=metadata)  # type: ignore[call-overload]
    array = Array(dtype="float32", shape=(0,), stype="numpy.ndarray", data=b"")
    run = FlowerRun.create_empty(1)
    holds = {
        "Metadata": {*METADATA_FIELDS} == metadata.__dict__.keys() - {"_delivered_at"},
        "Message": message.__dict__.keys() == {"_metadata", "_content", "_error"},
        "ConfigRecord": "_data" in ConfigRecord().__dict__,
        "Array": array.__dict__.keys() >= {"dtype", "shape", "stype", "data"},
        "Array.from_numpy_ndarray": isinstance(
            Array.__dict__.get("from_numpy_ndarray"), classmethod
        ),
        "ServerApp": "_main" in ServerApp().__dict__,
        "TaskIdentity": all(hasattr(TaskIdentity, field) for field in _IDENTITY_FIELDS),
        "Run": hasattr(run, "fab_id") and hasattr(run, "fab_version"),
    }
    return [name for name, is_so in holds.items() if not is_so]


def set_task_identity(run_id: int, node_id: int) -> None:
    """Say who this process speaks for: Flower writes it into each message that an app makes."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run_id, node_id


@contextmanager
def task_identity(run_id: int, node_id: int) -> Iterator[None]:
    """Speak for a node while this is open, then for whomever this process spoke before."""
    before = {field: getattr(TaskIdentity, field) for field in _IDENTITY_FIELDS}
    set_task_identity(run_id, node_id)
    try:
        yield
    finally:
        for field, value in before.items():
            setattr(TaskIdentity, field, value)


def _load(reference: str, error_type: type[Exception], folder: str) -> object:
    """Import an object as Flower does; a package that is not there is named, with the remedy.

    Raises
    ------
    EngineError
        If the app imports a package that is not installed.
    """
    try:
        return load_app(reference, error_type, folder)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or find_spec(package) is not None:
            raise  # a module of the app, or of a package that is there
        install = _DISTRIBUTIONS.get(package, package)
        raise EngineError(
            f"{reference}: the app imports {package!r}, which is not installed; "
            f"pip install {install}"
        ) from error


def load_client_app(reference: str, folder: str) -> ClientApp:
    """Import a ClientApp as Flower does: the folder goes first on ``sys.path``."""
    app = _load(reference, LoadClientAppError, folder)
    if not isinstance(app, ClientApp):
        raise LoadClientAppError(f"{reference}: expected a ClientApp, got {type(app).__name__}")
    return app


def load_server_app(reference: str, folder: str) -> ServerApp:
    """Import a ServerApp as Flower does: the folder goes first on ``sys.path``."""
    app = _load(reference, LoadServerAppError, folder)
    if not isinstance(app, ServerApp):
        raise LoadServerAppError(f"{reference}: expected a ServerApp, got {type(app).__name__}")
    return app


def call_server_app(app: ServerApp, grid: Grid, context: Context) -> object:
    """Call a ServerApp, with its lifespan, and return what its main function returned.

    Flower drops that value. A ServerApp of the older kind (``server_fn``) has none.
    """
    main = app._main
    if main is None:
        app(grid=grid, context=context)
        return None
    returned: list[object] = []

    def observed(grid: Grid, context: Context) -> None:
        returned.append(main(grid, context))

    app._main = observed
    try:
        app(grid=grid, context=context)
    finally:
        app._main = main
    return returned[0] if returned else None


def describe_run(run_id: int, fab_id: str, fab_version: str) -> FlowerRun:
    """Return what Flower reports of a run, as far as it is known here."""
    run = FlowerRun.create_empty(run_id)
    run.fab_id, run.fab_version = fab_id, fab_version
    return run


def crash_error(reason: str) -> tuple[int, str]:
    """Return code and reason of the error that a node answers whose ClientApp's process ended."""
    return CLIENT_APP_CRASHED, f"ClientApp stopped responding: {reason}."


def set_message_id(message: Message, message_id: str) -> None:
    """Give a message its id, in the object that the sender holds: replies are matched by it."""
    message.metadata.__dict__["_message_id"] = message_id


def metadata_values(message: Message) -> tuple[Any, ...]:
    """Return the values of a message's metadata, in the order of ``METADATA_FIELDS``."""
    fields = message.metadata.__dict__
    return tuple([fields[name] for name in METADATA_FIELDS])


def make_message(
    metadata: tuple[Any, ...], *, content: RecordDict | None = None, error: Error | None = None
) -> Message:
    """Build a message from the values of its metadata and what it holds."""
    fields = Metadata.__new__(Metadata)
    fields.__dict__.update(zip(METADATA_FIELDS, metadata, strict=True), _delivered_at="")
    message = Message.__new__(Message)
    message.__dict__.update(_metadata=fields, _content=content, _error=error)
    return message


def unavailable_reply(run_id: int, message_id: str, code: int, reason: str) -> Message:
    """Return the error that the server's side gives for a message that no node answers."""
    metadata = Metadata(
        run_id=run_id,
        message_id="",
        src_node_id=SERVER_NODE_ID,
        dst_node_id=SERVER_NODE_ID,
        reply_to_message_id=message_id,
        group_id="",
        created_at=0.0,
        ttl=0,
        message_type=_SYSTEM_MESSAGE_TYPE,
    )
    values = tuple(metadata.__dict__[name] for name in METADATA_FIELDS)
    return make_message(values, error=Error(code, reason))


def record_values(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dict inside a record: its own, not a copy."""
    values: dict[str, Any] = record.__dict__["_data"]
    return values


def make_record(kind: type[Record], values: dict[str, Any]) -> Record:
    """Build a record around values that were in one before, so need no second check."""
    record = kind()
    record.__dict__["_data"] = values
    return record


def make_array(dtype: str, shape: tuple[int, ...], stype: str, data: bytes) -> Array:
    """Build an array from its serialised form; the checks were made when it was first built."""
    array = Array.__new__(Array)
    array.__dict__.update(dtype=dtype, shape=shape, stype=stype, data=data)
    return array


def state_to_bytes(state: RecordDict) -> bytes:
    """Return a node's state in Flower's own form, as a SuperNode keeps it; b"" if it is empty."""
    if not state:
        return b""
    return bytes(recorddict_to_proto(state).SerializeToString(deterministic=True))


def state_from_bytes(state: bytes) -> RecordDict:
    """Return the state that :func:`state_to_bytes` wrote."""
    return recorddict_from_proto(ProtoRecordDict.FromString(state)) if state else RecordDict()
