"""The same run on a real federation: a SuperLink with TLS, and SuperNodes with keys and names."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

import running
from fedwaggle.runs import load

BIN = Path(sys.executable).parent
SETTINGS = {"num-server-rounds": 2, "local-epochs": 1}
FLOWER = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",  # Flower starts its parts by name
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def certificates(folder: Path) -> None:
    """Make an authority and a certificate of a server on this machine."""
    extensions = "basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"
    (folder / "server.cnf").write_text(
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n"
    )
    commands = (
        "ecparam -name prime256v1 -genkey -noout -out ca.key",
        "req -x509 -new -key ca.key -sha256 -days 2 -subj /CN=tests -out ca.crt "
        + " ".join(f"-addext {extension}" for extension in extensions),
        "ecparam -name prime256v1 -genkey -noout -out server.key",
        "req -new -key server.key -subj /CN=localhost -out server.csr",
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -sha256 "
        "-extfile server.cnf -out server.crt",
    )
    for command in commands:
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)


@contextmanager
def process(command: Sequence[str], folder: Path, **environment: str) -> Iterator[None]:
    """Run a command in a folder of its own; end it, and all that it started, at the end."""
    folder.mkdir(exist_ok=True)
    with (folder / "log.txt").open("w") as log:
        started = subprocess.Popen(
            command,
            cwd=folder,
            env={**running.plain_env(), **FLOWER, **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            started.wait(15)
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def wait_until_ready(address: str, authority: Path) -> None:
    context = ssl.create_default_context(cafile=str(authority))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError):
            urllib.request.urlopen(f"https://{address}/health", context=context, timeout=2)
            return
        time.sleep(0.2)
    pytest.fail("the SuperLink did not start")


@pytest.mark.slow
def test_a_federation_over_tls_gives_the_model_of_the_local_engine(tmp_path: Path) -> None:
    """Two SuperNodes, registered by key under the names 0 and 1, and the local engine's 0 and 1."""
    certificates(tmp_path)
    tls = [
        *("--ssl-certfile", str(tmp_path / "server.crt")),
        *("--ssl-keyfile", str(tmp_path / "server.key")),
        *("--ssl-ca-certfile", str(tmp_path / "ca.crt")),
    ]
    address = f"127.0.0.1:{free_port()}"
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        '[superlink]\ndefault = "tests"\n[superlink.tests]\n'
        f'address = "{address}"\nroot-certificates = "{tmp_path / "ca.crt"}"\n'
    )
    env = {**running.plain_env(), **FLOWER, "FLWR_HOME": str(home)}
    link = [
        *(str(BIN / "flower-superlink"), *tls, "--enable-supernode-auth"),
        *("--host", "127.0.0.1", "--port", address.partition(":")[2]),
        *("--database", str(tmp_path / "state.db"), "--disable-runtime-dependency-installation"),
    ]
    with ExitStack() as stack:
        stack.enter_context(
            process(
                link,
                tmp_path / "link",
                FLWR_HOME=str(home),
                WAGGLE_OUTPUTS=str(tmp_path / "federation"),
            )
        )
        wait_until_ready(address, tmp_path / "ca.crt")
        for name in ("0", "1"):
            key = tmp_path / f"key{name}"
            make_key = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-C", ""]
            subprocess.run([*make_key, "-f", str(key)], check=True)
            register = ["supernode", "register", f"{key}.pub", "tests", "--name", name]
            subprocess.run([str(BIN / "flwr"), *register], check=True, env=env, capture_output=True)
            node = [
                *(str(BIN / "flower-supernode"), "--superlink", address, *tls),
                *("--root-certificates", str(tmp_path / "ca.crt")),
                *("--auth-supernode-private-key", str(key)),
                *("--host", "127.0.0.1", "--port", str(free_port())),
                *("--node-config", f"partition-id={name} num-partitions=2"),
            ]
            stack.enter_context(
                process(node, tmp_path / f"node{name}", FLWR_HOME=str(tmp_path / f"home{name}"))
            )
        config = " ".join(f"{key}={value}" for key, value in SETTINGS.items())
        run = [str(BIN / "flwr"), "run", str(running.QUICKSTART), "tests", "--stream", "-c", config]
        done = subprocess.run(run, env=env, capture_output=True, text=True, timeout=300)
    federation = running.latest(tmp_path / "federation")
    (start,) = running.of_kind(running.story(federation), "run-started")
    assert start.engine == "flower-superlink", done.stdout[-2000:]
    local = running.run(tmp_path / "local", settings=SETTINGS, nodes=2)
    assert running.final_hash(federation) == running.final_hash(local)
    counts = load(federation).label_counts
    assert counts == load(local).label_counts
    assert [sum(counts[name].values()) for name in ("0", "1")] == [3000, 3000]
