"""Each private thing of Flower that the engine uses, by name: a Flower that changed it fails here.

Nothing else in the engine may use any (the last test), so a new Flower needs a look at
``engine/flwr_private.py`` and at nothing else.
"""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

import numpy as np
import pytest
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
from flwr.serverapp import Grid, ServerApp

import fedwaggle
from fedwaggle.engine import flwr_private, run
from fedwaggle.errors import EngineError

PUBLIC = (
    *("flwr.app", "flwr.clientapp", "flwr.clientapp.mod"),
    *("flwr.serverapp", "flwr.serverapp.strategy"),
    *("flwr.serverapp.strategy.fedopt", "flwr.serverapp.strategy.strategy_utils"),
)


def test_task_identity_is_who_a_new_message_comes_from() -> None:
    with flwr_private.task_identity(77, 5):
        message = Message(RecordDict(), 9, "train")
        assert (message.metadata.run_id, message.metadata.src_node_id) == (77, 5)


def test_task_identity_is_given_back() -> None:
    from flwr.supercore.task_identity import TaskIdentity

    def identity() -> tuple:
        return (TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id)

    before = identity()
    with flwr_private.task_identity(77, 5):
        assert identity() == (1, 77, 5)
    assert identity() == before


def test_metadata_has_these_fields_and_no_others() -> None:
    metadata = Metadata(1, "id", 2, 3, "to", "g", 4.0, 5.0, "train", 6, 7)
    assert set(metadata.__dict__) == set(flwr_private.METADATA_FIELDS)
    message = Message(RecordDict(), metadata=metadata)
    assert set(message.__dict__) == {"_metadata", "_content", "_error"}
    assert set(message.metadata.__dict__) - set(flwr_private.METADATA_FIELDS) == {"_delivered_at"}
    values = flwr_private.metadata_values(message)
    assert dict(zip(flwr_private.METADATA_FIELDS, values, strict=True)) | {"_delivered_at": ""} == (
        message.metadata.__dict__
    )


def test_a_message_that_we_build_is_the_one_that_flower_builds() -> None:
    metadata = Metadata(1, "id", 2, 3, "to", "g", 4.0, 5.0, "train", 6, 7)
    theirs = Message(RecordDict(), metadata=metadata)
    ours = flwr_private.make_message(flwr_private.metadata_values(theirs), content=RecordDict())
    assert (ours.metadata, ours.content) == (theirs.metadata, theirs.content)
    assert Message(RecordDict(), reply_to=ours).metadata.reply_to_message_id == "id"
    flwr_private.set_message_id(ours, "new")
    assert ours.metadata.message_id == "new"
    error = flwr_private.make_message(flwr_private.metadata_values(theirs), error=Error(2, "x"))
    assert error.has_error()
    assert not error.has_content()


def test_the_unavailable_reply_is_from_the_server() -> None:
    reply = flwr_private.unavailable_reply(7, "id", 3, "gone")
    metadata = reply.metadata
    assert (reply.error.code, metadata.reply_to_message_id, metadata.src_node_id) == (3, "id", 1)


def test_records_keep_their_values_in_one_dict() -> None:
    for kind, values in (
        (ConfigRecord, {"a": 1}),
        (MetricRecord, {"a": 1.0}),
        (ArrayRecord, {"a": Array(np.ones(2))}),
    ):
        record = kind(values)
        fields = set(record.__dict__) - {"_is_dirty"}
        assert fields == {"_check_key_fn", "_check_value_fn", "_data"}
        assert dict(flwr_private.record_values(record)) == values
        assert flwr_private.make_record(kind, dict(values)) == record
    assert flwr_private.record_values(RecordDict()) == {}


def test_an_array_is_these_four_fields() -> None:
    array = Array(np.ones((2, 3), np.float32))
    fields = dict(array.__dict__)
    fields.pop("_is_dirty")  # a cache of Flower's, which a new array does not need to have
    assert set(fields) == {"dtype", "shape", "stype", "data"}
    ours = flwr_private.make_array(**fields)
    assert ours == array
    assert ours.is_dirty
    assert ours.object_id == array.object_id


def test_a_server_apps_main_function_can_be_observed() -> None:
    app = ServerApp()
    assert app._main is None
    main = app.main()(lambda grid, context: "value")
    assert app._main is main
    context = Context(1, 1, {}, RecordDict(), {})
    assert flwr_private.call_server_app(app, None, context) == "value"  # type: ignore[arg-type]
    assert app._main is main


def test_apps_are_loaded_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", ["a", "b"])
    (tmp_path / "loaded_app_module.py").write_text(
        "from flwr.clientapp import ClientApp\nfrom flwr.serverapp import ServerApp\n"
        "class both: client, server = ClientApp(), ServerApp()\n"
    )
    folder = str(tmp_path)
    client = flwr_private.load_client_app("loaded_app_module:both.client", folder)
    assert isinstance(client, ClientApp)
    server = flwr_private.load_server_app("loaded_app_module:both.server", folder)
    assert isinstance(server, ServerApp)
    with pytest.raises(Exception, match="expected a ClientApp, got ServerApp"):
        flwr_private.load_client_app("loaded_app_module:both.server", folder)
    import sys

    assert sys.path == [folder, "a", "b"]
    del sys.modules["loaded_app_module"]


def test_constants_are_flowers() -> None:
    from flwr.common import constant

    code = constant.ErrorCode
    assert flwr_private.SERVER_NODE_ID == constant.SUPERLINK_NODE_ID
    assert flwr_private.CLIENT_APP_RAISED == code.CLIENT_APP_RAISED_EXCEPTION
    assert flwr_private.MESSAGE_UNAVAILABLE == code.MESSAGE_UNAVAILABLE
    assert flwr_private.NODE_UNAVAILABLE == code.NODE_UNAVAILABLE
    assert flwr_private.CLIENT_APP_CRASHED == code.CLIENT_APP_CRASHED
    assert (constant.PARTITION_ID_KEY, constant.NUM_PARTITIONS_KEY) == (
        "partition-id",
        "num-partitions",
    )


def test_the_run_and_the_node_info_are_what_a_grid_gives() -> None:
    assert flwr_private.FlowerRun.create_empty(5).run_id == 5
    node = flwr_private.NodeInfo(node_id=5, name="n")
    assert (node.node_id, node.name) == (5, "n")


def test_a_grid_is_these_methods() -> None:
    assert Grid.__abstractmethods__ == {
        "create_message",
        "get_node_ids",
        "pull_messages",
        "push_messages",
        "run",
        "send_and_receive",
        "set_run",
    }
    assert "get_nodes" in vars(Grid)


def test_conversions_of_arrays_are_where_we_replace_them() -> None:
    """``fast_arrays`` replaces two methods that everything else in Flower goes through."""
    from flwr.app.message import array, arrayrecord

    assert isinstance(Array.__dict__["from_numpy_ndarray"], classmethod)
    assert list(inspect.signature(Array.numpy).parameters) == ["self"]
    assert "from_numpy_ndarray" in inspect.getsource(array.Array.from_torch_tensor)
    assert ".numpy()" in inspect.getsource(arrayrecord.ArrayRecord.to_torch_state_dict)
    assert array.SType.NUMPY == "numpy.ndarray"


def test_this_flower_is_as_the_engine_expects_it() -> None:
    assert flwr_private.changes() == []


@pytest.mark.parametrize("change", ["attribute", "name"])
def test_another_flower_is_refused_in_words_before_anything_runs(
    make_app, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """One whose arrays keep their bytes elsewhere, and one that lacks a module."""
    if change == "attribute":
        monkeypatch.setattr(flwr_private, "METADATA_FIELDS", ("_run_id", "_topic"))
    else:
        monkeypatch.delattr("fedwaggle.engine.flwr_private")
        monkeypatch.setitem(sys.modules, "fedwaggle.engine.flwr_private", None)
    with pytest.raises(EngineError, match=r"flwr 1\.\d+.*does not fit .*--engine flower") as caught:
        run(make_app(""), nodes=1)
    assert ("Metadata" if change == "attribute" else "flwr_private") in str(caught.value)


def test_nothing_else_imports_what_is_private() -> None:
    """But for two modules of Flower's strategies, and names that only annotations use."""
    folder = Path(fedwaggle.__file__).parent
    for file in folder.rglob("*.py"):
        tree = ast.parse(file.read_text())
        for_types = {
            node
            for block in ast.walk(tree)
            if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
            for node in block.body
        }
        imported = {
            node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node not in for_types
            if (node.module or "").split(".")[0] == "flwr"
        }
        if file.name != "flwr_private.py":
            assert imported <= set(PUBLIC), f"{file} imports {imported - set(PUBLIC)}"
