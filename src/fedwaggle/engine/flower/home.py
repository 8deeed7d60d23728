"""A private home for one run of Flower: its environment, its configuration, its port.

Flower keeps its SuperLink, its apps and its connections below ``FLWR_HOME``, and shares one
SuperLink among all runs of a user. A home of its own keeps a run apart from all of that: no
other run's working folder, no other environment's packages, no port in common.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedwaggle.errors import EngineError

__all__ = ["CONNECTION", "Home", "find_command", "make_folder", "prepare_home", "quiet_environment"]

CONNECTION = "waggle"  # the name under which `flwr` knows the private SuperLink

# Ray puts sockets below its folder, with a name of its own of 68 characters; the path of a
# socket has at most 107 (`man 7 unix`).
_LONGEST_HOME = 107 - 68


@dataclass(frozen=True)
class Home:
    """Where one run of Flower lives.

    Attributes
    ----------
    path : Path
        The ``FLWR_HOME``.
    work : Path
        The folder in which apps run; what they write under a relative name lands here.
    port : int
        The port of the SuperLink, on 127.0.0.1 only.
    environment : dict[str, str]
        The environment of every process of the run.
    """

    path: Path
    work: Path
    port: int
    environment: dict[str, str]


def prepare_home(path: Path, outputs: Path) -> Home:
    """Fill an empty folder so that Flower can live in it.

    Parameters
    ----------
    path : Path
        An empty folder.
    outputs : Path
        Absolute folder for the folders of runs.
    """
    work = path / "work"
    work.mkdir()
    port = _free_port()
    (path / "config.toml").write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n\n'
        f'[superlink.{CONNECTION}]\naddress = "127.0.0.1:{port}"\ninsecure = true\n',
        encoding="utf-8",
    )
    return Home(path, work, port, _environment(os.environ, path, outputs))


def make_folder() -> Path:
    """Make an empty folder that is short enough to be a home, below ``TMPDIR`` if that is."""
    place = tempfile.gettempdir()
    name_length = len("/waggle-12345678")
    if len(place) + name_length > _LONGEST_HOME:
        place = "/tmp"  # noqa: S108  # the folder in it is this user's alone
    return Path(tempfile.mkdtemp(prefix="waggle-", dir=place))


def find_command(name: str, *, simulates: bool = True) -> str:
    """Return the path of a command of Flower, from the environment that this Python is of.

    Parameters
    ----------
    name : str
        The command.
    simulates : bool (default: True)
        Whether Ray must be there, too.

    Raises
    ------
    EngineError
        If it is not there, or if Flower was installed without what it simulates with.
    """
    command = shutil.which(name, path=_programs())
    if command is None or (simulates and importlib.util.find_spec("ray") is None):
        missing = "ray" if command else name
        raise EngineError(
            f"engine flower: expected {missing} in the environment of {sys.executable}, but it is "
            "not there; install it with: pip install 'flwr[simulation]'"
        )
    return command


def quiet_environment(user: Mapping[str, str]) -> dict[str, str]:
    """Return the user's environment, without telemetry and update checks unless it asks for them.

    The commands that were installed beside this Python are found first.
    """
    defaults = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    path = os.pathsep.join([_programs(), user.get("PATH", os.defpath)])
    return {**defaults, **user, "PATH": path}


def _environment(user: Mapping[str, str], home: Path, outputs: Path) -> dict[str, str]:
    """Return the user's environment with what a private run needs; the user's own choices win."""
    defaults = {
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "WAGGLE_OUTPUTS": str(outputs),
    }
    hosts = [user.get("NO_PROXY") or user.get("no_proxy", ""), "127.0.0.1", "localhost"]
    no_proxy = ",".join(filter(None, hosts))  # a proxy cannot reach this machine's own ports
    private = {
        "FLWR_HOME": str(home),
        "RAY_TMPDIR": str(home),
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
    }
    return {**defaults, **quiet_environment(user), **private}


def _programs() -> str:
    """Return the folder of the commands that were installed beside this Python."""
    return str(Path(sys.executable).parent)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
