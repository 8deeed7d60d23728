"""The operator's files: units, proxy, containers and scripts are what their programs read."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from federations import ROOT, has_nginx, load_script, loopback

DEPLOY = ROOT / "deploy"
watchdog = load_script("watchdog")
NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize("script", sorted(DEPLOY.glob("*.sh")), ids=lambda path: path.name)
def test_a_script_is_shell(script: Path) -> None:
    subprocess.run(["sh", "-n", script], check=True)
    assert script.name == "settings.sh" or script.stat().st_mode & 0o100


@pytest.mark.parametrize("script", ["certificates.sh", "site-key.sh"])
def test_a_script_without_arguments_shows_how_it_is_called(script: str) -> None:
    done = subprocess.run([DEPLOY / script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{script} F" in done.stdout


def test_a_certificate_names_every_host_and_is_renewed_without_its_sites(tmp_path: Path) -> None:
    command = [DEPLOY / "certificates.sh", tmp_path, "fl.example.org", "10.0.0.7"]
    subprocess.run(command, check=True, capture_output=True)
    authority, first = (tmp_path / "ca.crt").read_text(), (tmp_path / "server.crt").read_text()
    shown = ["openssl", "x509", "-in", tmp_path / "server.crt", "-noout", "-ext", "subjectAltName"]
    names = subprocess.run(shown, check=True, capture_output=True, text=True).stdout
    for name in ("DNS:fl.example.org", "IP Address:10.0.0.7", "DNS:localhost"):
        assert name in names
    assert (tmp_path / "ca.key").stat().st_mode & 0o077 == 0
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "ca.crt").read_text() == authority
    assert (tmp_path / "server.crt").read_text() != first
    verify = ["openssl", "verify", "-CAfile", tmp_path / "ca.crt", tmp_path / "server.crt"]
    subprocess.run(verify, check=True, capture_output=True)


@pytest.mark.parametrize("unit", sorted((DEPLOY / "systemd").iterdir()), ids=lambda path: path.name)
def test_a_unit_starts_a_script_that_is_there(unit: Path) -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys have case
    parser.read(unit)
    assert parser["Unit"]["Description"]
    if "Service" in parser:
        named = re.findall(r"/opt/waggle/(deploy/\S+)", parser["Service"]["ExecStart"])
        assert named
        assert all((ROOT / path).is_file() for path in named)
    if analyze := shutil.which("systemd-analyze"):
        done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True)
        unknown = [line for line in done.stderr.splitlines() if "Unknown" in line]
        assert unknown == []


def test_a_node_starts_again_after_two_missed_heartbeats() -> None:
    unit = (DEPLOY / "systemd" / "waggle-supernode.service").read_text()
    assert int(re.findall(r"RestartSec=(\d+)", unit)[0]) > 2 * 30


def test_containers_name_volumes_networks_and_files_that_are_there() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert set(compose["services"]) == {"superlink", "superexec", "proxy", "supernode"}
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source.startswith(("./", "${")) or source in compose["volumes"], volume
        assert set(service.get("networks", [])) <= set(compose["networks"])
        for word in service.get("command", []):
            assert (ROOT / word.removeprefix("/app/")).is_file()
        if "build" in service:
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


@pytest.mark.skipif(not has_nginx(), reason="nginx is not installed")
def test_nginx_reads_the_proxys_configuration(tmp_path: Path) -> None:
    federation = loopback.Loopback(tmp_path, [])
    federation.certify()
    federation.start = lambda *_, **__: None
    federation.start_proxy()
    done = subprocess.run(
        ["nginx", "-t", "-c", tmp_path / "proxy" / "nginx.conf", "-p", tmp_path / "proxy"],
        env=federation.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("status", "pending_at", "stuck"),
    [
        ("pending", "2026-01-02 11:50:00+00:00", ["7"]),
        ("starting", "2026-01-02 11:50:00+00:00", ["7"]),
        ("pending", "2026-01-02 11:58:00+00:00", []),
        ("running", "2026-01-02 09:00:00+00:00", []),
        ("finished:failed", "2026-01-02 09:00:00+00:00", []),
    ],
)
def test_the_watchdog_sees_runs_that_do_not_start(
    status: str, pending_at: str, stuck: list[str]
) -> None:
    runs = [{"run-id": 7, "status": status, "pending-at": pending_at}]
    assert watchdog.stuck_runs(runs, NOW, 300) == stuck


def test_secure_aggregation_of_flower_has_a_loop_of_its_own() -> None:
    """As docs/security.md states: it takes no strategy of the API on which this library stands."""
    from flwr.server.workflow import SecAggPlusWorkflow
    from flwr.serverapp import strategy

    with pytest.raises(TypeError, match="Expect a LegacyContext"):
        SecAggPlusWorkflow(num_shares=3, reconstruction_threshold=2)(None, None)
    assert not [name for name in vars(strategy) if "SecAgg" in name]
