"""App objects, for an engine whose workers import apps from a folder.

Workers are other processes, and what is defined in a notebook or in a script's ``__main__`` cannot
be imported there. So the ClientApp goes into a folder of its own as bytes, with its functions and
classes by value, as Ray and Dask send them, and a module beside it makes the app of them again.

Reference: https://github.com/cloudpipe/cloudpickle
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from fedwaggle.engine.app import App
from fedwaggle.errors import ConfigError

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp

__all__ = ["app_of_objects"]

_MODULE = "waggle_client_app"
_CODE = """\
import pickle
from pathlib import Path

app = pickle.loads(Path(__file__).with_name("client_app.pkl").read_bytes())
"""


@contextmanager
def app_of_objects(client_app: ClientApp, config: Mapping[str, Any]) -> Iterator[App]:
    """Make an app folder that holds a ClientApp, for as long as the block lasts.

    Parameters
    ----------
    client_app : ClientApp
        The app. What its functions refer to is sent with them; modules are imported anew.
    config : Mapping[str, bool | int | float | str]
        The run config.

    Raises
    ------
    ConfigError
        If something that the app refers to cannot be sent to another process.
    """
    try:
        packed = _packed(client_app)
    except Exception as error:  # whatever an object of the user's raises when it is pickled
        raise ConfigError(
            [
                f"client_app: expected an app that can be sent to worker processes, but "
                f"{type(error).__name__}: {error}; make such an object inside the function that "
                "uses it, or run the clients in this process with workers=0"
            ]
        ) from error
    with TemporaryDirectory(prefix="waggle-app-") as folder:
        Path(folder, "client_app.pkl").write_bytes(packed)
        Path(folder, f"{_MODULE}.py").write_text(_CODE, encoding="utf-8")
        yield App(
            path=Path(folder),
            name="simulation",
            version="",
            publisher="",
            serverapp=f"{_MODULE}:server_app",
            clientapp=f"{_MODULE}:app",
            config=dict(config),
        )


def _packed(client_app: ClientApp) -> bytes:
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
        """Keeps the one mark that dataclasses compare by identity: a field without a default."""

        def reducer_override(self, obj: object) -> object:
            return "MISSING" if obj is dataclasses.MISSING else super().reducer_override(obj)

    file = io.BytesIO()
    Pickler(file).dump(client_app)
    return file.getvalue()
