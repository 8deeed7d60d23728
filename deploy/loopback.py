"""A whole federation on this machine: TLS, registered sites, a proxy, a run, its report, the end.

    python deploy/loopback.py                     three sites, the quickstart, four rounds
    python deploy/loopback.py --sites a,b --set num-server-rounds=20 path/of/an/app

The parts are those of a real federation, started by the same scripts: superlink.sh, superexec.sh,
nginx.conf and supernode.sh, each with a folder and ports of its own. nginx must be installed, or
--no-proxy given. Everything lies below a new folder and is ended and, but for the outputs, removed
at the end.
"""

from __future__ import annotations

import argparse
import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
CONNECTION = "loopback"

START_SECONDS = 120.0
STOP_SECONDS = 20.0


class Loopback:
    """A federation on this machine; leaving the context ends it.

    Parameters
    ----------
    folder : Path
        An empty folder for all that it writes.
    sites : Sequence[str]
        Names of the sites. Each gets its share of the app's data, by its place in this list.
    node_configs : Mapping[str, str]
        What a site's node config holds besides, as ``flower-supernode --node-config`` takes it.
    has_proxy : bool
        Whether sites come through nginx; otherwise they reach the SuperLink itself.
    listen : str
        The address of this machine on which nginx takes sites.

    Attributes
    ----------
    environment : dict[str, str]
        In which ``flwr`` and ``waggle`` know the federation as the connection ``loopback``.
    outputs : Path
        Where the runs' folders are.
    """

    def __init__(
        self,
        folder: Path,
        sites: Sequence[str],
        *,
        node_configs: Mapping[str, str] | None = None,
        has_proxy: bool = True,
        listen: str = "127.0.0.1",
    ) -> None:
        self.folder, self.sites, self.has_proxy = folder, list(sites), has_proxy
        self.listen = listen
        self.outputs = folder / "outputs"
        self.authority = folder / "etc" / "certificates" / "ca.crt"
        self._node_configs = dict(node_configs or {})
        self._port, self._proxy_port = free_port(), free_port()
        self._node_ports = {name: free_port() for name in self.sites}
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._family: dict[int, psutil.Process] = {}
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("FLWR_")},
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}:/usr/sbin",
            "PYTHON": sys.executable,
            "FLWR_HOME": str(folder / "operator"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "WAGGLE_ETC": str(folder / "etc"),
            "WAGGLE_STATE": str(folder / "server"),
            "WAGGLE_OUTPUTS": str(self.outputs),
            "SUPERLINK_PORT": str(self._port),
            "FEDERATION": self.address,
            "NO_PROXY": f"127.0.0.1,localhost,{listen}",
            "no_proxy": f"127.0.0.1,localhost,{listen}",
        }

    @property
    def address(self) -> str:
        """What sites connect to."""
        return f"{self.listen}:{self._proxy_port}" if self.has_proxy else self.inner_address

    @property
    def inner_address(self) -> str:
        """What operators connect to, on the server itself."""
        return f"127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        try:
            self.certify()
            self.start_server()
            for name in self.sites:
                self.add(name)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    # -- the parts

    def certify(self) -> None:
        """Make the certificates, and tell ``flwr`` where the federation is."""
        (self.folder / "etc").mkdir(parents=True)
        (self.folder / "operator").mkdir()
        self._call([HERE / "certificates.sh", self.authority.parent, self.listen])
        (self.folder / "operator" / "config.toml").write_text(
            f'[superlink]\ndefault = "{CONNECTION}"\n[superlink.{CONNECTION}]\n'
            f'address = "{self.inner_address}"\nroot-certificates = "{self.authority}"\n'
        )

    def start_server(self) -> None:
        """Start the SuperLink, the executor and the proxy, and wait until they answer."""
        self.start("superlink", [HERE / "superlink.sh"])
        self.wait_until_healthy(self.inner_address)
        self.start("superexec", [HERE / "superexec.sh"])
        if self.has_proxy:
            self.start_proxy()
            self.wait_until_healthy(self.address)

    def start_proxy(self) -> None:
        """Start nginx with the server block of nginx.conf, on ports and paths of this folder."""
        folder = self.folder / "proxy"
        folder.mkdir(exist_ok=True)
        block = (HERE / "nginx.conf").read_text()
        block = block.replace("/etc/waggle", str(self.folder / "etc"))
        block = block.replace("127.0.0.1:8000", self.inner_address)
        block = block.replace("listen 8443", f"listen {self.listen}:{self._proxy_port}")
        paths = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"{name}_temp_path {folder}/{name};\n" for name in paths)
        user = "user root;\n" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(
            f"{user}daemon off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
            f"http {{\naccess_log {folder}/access.log;\n{temporary}{block}}}\n"
        )
        self.start("proxy", ["nginx", "-c", folder / "nginx.conf", "-p", folder])

    def add(self, name: str, wrapper: Sequence[str] = (), **environment: str) -> None:
        """Register a site, one of ``sites`` or a new one, and start it."""
        if name not in self.sites:
            self.sites.append(name)
        self._node_ports.setdefault(name, free_port())
        self.register(name)
        self.start_site(name, wrapper, **environment)

    def register(self, name: str) -> None:
        """Make a site's key, and register it under the site's name."""
        key = self.folder / "sites" / name / "site.key"
        self._call([HERE / "site-key.sh", key])
        self._call(["flwr", "supernode", "register", f"{key}.pub", CONNECTION, "--name", name])

    def start_site(self, name: str, wrapper: Sequence[str] = (), **environment: str) -> None:
        """Start the SuperNode of a site; a wrapper, such as ``ip netns exec``, comes before it."""
        folder = self.folder / "sites" / name
        place = f"partition-id={self.sites.index(name)} num-partitions={len(self.sites)}"
        self.start(
            f"site-{name}",
            [*wrapper, HERE / "supernode.sh"],
            WAGGLE_STATE=str(folder),
            NODE_KEY=str(folder / "site.key"),
            NODE_PORT=str(self._node_ports[name]),
            NODE_CONFIG=f"{place} {self._node_configs.get(name, '')}".strip(),
            **environment,
        )

    # -- processes

    def start(self, part: str, command: Sequence[str | Path], **environment: str) -> None:
        """Start a part; what it prints goes to ``logs/PART.txt``."""
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        with (logs / f"{part}.txt").open("ab") as log:
            self._started[part] = subprocess.Popen(
                [str(word) for word in command],
                cwd=self.folder,
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def log(self, part: str) -> str:
        """Return what a part has printed."""
        return (self.folder / "logs" / f"{part}.txt").read_text(errors="replace")

    def process(self, part: str) -> psutil.Process:
        """Return the process of a part; raise ``psutil.NoSuchProcess`` if it has ended."""
        return psutil.Process(self._started[part].pid)

    def is_running(self, part: str) -> bool:
        """Whether a part runs."""
        return self._started[part].poll() is None

    def send(self, part: str, number: signal.Signals) -> None:
        """Send a signal to a part's own process, and wait until it has ended."""
        self._members()  # what it started is ended with the federation all the same
        self._started[part].send_signal(number)
        self._started[part].wait(STOP_SECONDS)

    def end(self) -> None:
        """End all parts in order: sites, executor, proxy, SuperLink; then what is left, at once."""
        self._members()
        for part in reversed(list(self._started)):
            self._started[part].terminate()
        for process in self._started.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
        for member in self._members():
            with suppress(psutil.NoSuchProcess):
                member.kill()
        for process in self._started.values():
            process.wait()

    def wait_until_healthy(self, address: str) -> None:
        """Wait until a SuperLink, or the proxy before it, answers."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with suppress(OSError, http.client.HTTPException):
                if self.get(address, "/health") == http.client.OK:
                    return
            time.sleep(0.2)
        raise TimeoutError(f"{address} does not answer; see {self.folder / 'logs'}")

    def get(self, address: str, path: str, method: str = "GET") -> int:
        """Return the HTTP status of a request without credentials, as an outsider sends it."""
        context = ssl.create_default_context(cafile=str(self.authority))
        connection = http.client.HTTPSConnection(address, context=context, timeout=5)
        try:
            kind = {"Content-Type": "application/protobuf"} if method == "POST" else {}
            connection.request(method, path, body=b"" if kind else None, headers=kind)
            return connection.getresponse().status
        finally:
            connection.close()

    def _members(self) -> list[psutil.Process]:
        """Return every process that was ever seen below a part, as far as it still runs."""
        for process in self._started.values():
            with suppress(psutil.NoSuchProcess):
                leader = psutil.Process(process.pid)
                for member in [leader, *leader.children(recursive=True)]:
                    self._family[member.pid] = member
        for member in list(self._family.values()):
            with suppress(psutil.NoSuchProcess):
                for child in member.children(recursive=True):
                    self._family[child.pid] = child
        return [member for member in self._family.values() if member.is_running()]

    def _call(self, command: Sequence[str | Path], **options: Any) -> None:  # noqa: ANN401
        done = subprocess.run(
            [str(word) for word in command],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            **options,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]}: {done.stdout}{done.stderr}")


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    """Bring a federation up, run an app on it, draw the report, and take all down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("app", nargs="?", type=Path, default=HERE.parent / "quickstart")
    parser.add_argument("--sites", default="north,south,west", help="names, with commas")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--no-proxy", action="store_true", help="without nginx in front")
    asked = parser.parse_args()
    sites = asked.sites.split(",")
    folder = Path(tempfile.mkdtemp(prefix="federation-"))
    outputs = Path("outputs").resolve()
    settings = ["num-server-rounds=4", f"min-available-nodes={len(sites)}", *asked.set]
    try:
        print(f"starting {len(sites)} sites and their server, in {folder} ...")
        with Loopback(folder, sites, has_proxy=not asked.no_proxy) as federation:
            environment = {**federation.environment, "WAGGLE_OUTPUTS": str(federation.outputs)}
            run = ["waggle", "run", str(asked.app), "--engine", "superlink", CONNECTION]
            run += [word for setting in settings for word in ("--set", setting)]
            status = subprocess.run(run, env=environment, check=False).returncode
        for finished in sorted(federation.outputs.glob("*")):
            shutil.move(finished, outputs / finished.name)
            print(f"outputs: {outputs / finished.name}")
            subprocess.run([BIN / "waggle", "report", outputs / finished.name], check=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
