"""``waggle run --engine flower``: stock ``flwr run``, told truly and tidied up after.

These run Flower's real simulation, with Ray. The tests adopt orphans, so whatever a run leaves
behind becomes a child of the test process and cannot hide.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from fedwaggle.engine.flower.home import prepare_home
from fedwaggle.engine.processes import ProcessFamily
from fedwaggle.errors import EngineError
from running import plain_env
from waiting import PATIENCE, wait_until

TINY = Path(__file__).parents[2] / "cli" / "apps" / "tiny"
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted with prctl")


@pytest.fixture
def survivors() -> Iterator[Callable[[], list[str]]]:
    """Return a function that lists what still lives of what this test started."""
    libc = ctypes.CDLL(None)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1) == 0
    before = set(psutil.Process().children(recursive=True))

    def living() -> list[psutil.Process]:
        mine = set(psutil.Process().children(recursive=True)) - before
        return [p for p in mine if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    try:
        yield lambda: sorted(process.name() for process in living())
    finally:
        for process in living():  # only a failed test has any
            process.kill()
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Return an empty folder with a short name, for a run's temporary files."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as name:
        yield Path(name)


class Driven:
    """A ``waggle run --engine flower`` of the tiny app that goes on in its own session."""

    def __init__(
        self, tmp_path: Path, *options: str, app: Path = TINY, temporary: Path | None = None
    ) -> None:
        self.log = tmp_path / "log"
        waggle = str(Path(sys.executable).with_name("waggle"))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [waggle, "run", str(app), "--engine", "flower", "--nodes", "3", *options],
                cwd=tmp_path,
                env=plain_env() | ({"TMPDIR": str(temporary)} if temporary else {}),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, words: str) -> None:
        def are_there() -> bool:
            ended = self.process.poll() is not None
            assert words in self.text() or not ended, self.text()
            return words in self.text()

        wait_until(are_there, self.text)

    def interrupt(self, number: signal.Signals) -> None:
        """Send a signal to the whole process group, as a terminal does."""
        os.killpg(self.process.pid, number)


def test_a_run_that_ends_well(
    tmp_path: Path, temporary: Path, survivors: Callable[[], list[str]]
) -> None:
    """Ids 0, 1, 2 times step 2 have the mean 2; outputs are absolute; files of the app stay."""
    run = Driven(tmp_path, "--set", "step=2", "--set", "mode=write", temporary=temporary)
    assert run.process.wait(PATIENCE) == 0, run.text()
    assert "mean [2.0, 2.0, 2.0]\nstep 2.0 resume '' fork False\n" in run.text()
    outputs = tmp_path / "outputs"
    assert f"outputs {outputs}\n" in run.text()
    (kept,) = outputs.iterdir()
    assert (kept / "notes.txt").read_text() == "left here\n"
    assert f"they are kept in {kept}" in run.text()
    wait_until(lambda: survivors() == [], survivors)
    assert list(temporary.iterdir()) == []


def test_a_run_that_fails_says_so(tmp_path: Path, survivors: Callable[[], list[str]]) -> None:
    """``flwr run`` would end with 0 here; the last line has the app's own words."""
    long_folder = tmp_path / ("long" * 20)  # too long for the sockets that Ray puts there
    long_folder.mkdir()
    run = Driven(tmp_path, "--set", "mode=raise", "-q", temporary=long_folder)
    assert run.process.wait(PATIENCE) == 1, run.text()
    last = run.text().splitlines()[-1]
    assert "finished:failed" in last
    assert "the bees are out of honey" in last
    assert "server_app.py" in run.text()  # the traceback, also with -q
    wait_until(lambda: survivors() == [], survivors)


def test_ctrl_c_stops_in_order_and_leaves_nothing(
    tmp_path: Path, temporary: Path, survivors: Callable[[], list[str]]
) -> None:
    """A client hangs for an hour; one Ctrl-C ends it, its actors and Ray."""
    run = Driven(tmp_path, "--set", "mode=hang", temporary=temporary)
    run.wait_for("configure_train: Sampled 3")
    run.interrupt(signal.SIGINT)
    assert run.process.wait(PATIENCE) == 130, run.text()
    assert "Stopping the run" in run.text()
    wait_until(lambda: survivors() == [], survivors)
    assert list(temporary.iterdir()) == []


def test_after_kill_9_everything_ends_and_its_folder_is_gone(
    tmp_path: Path, temporary: Path, survivors: Callable[[], list[str]]
) -> None:
    """Nobody can catch SIGKILL, so a process of its own watches over what was started."""
    run = Driven(tmp_path, "--set", "mode=hang", temporary=temporary)
    run.wait_for("configure_train: Sampled 3")
    run.process.kill()
    run.process.wait()
    wait_until(
        lambda: not survivors() and not list(temporary.iterdir()),
        lambda: (survivors(), list(temporary.iterdir())),
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_stop_as_ctrl_c_does(
    tmp_path: Path, survivors: Callable[[], list[str]], number: signal.Signals
) -> None:
    """SIGTERM is what supervisors send, SIGHUP what a terminal sends that is closed."""
    run = Driven(tmp_path, "--set", "mode=hang")
    run.wait_for("configure_train: Sampled 3")
    run.process.send_signal(number)
    assert run.process.wait(PATIENCE) == 128 + number, run.text()
    wait_until(lambda: survivors() == [], survivors)


@pytest.mark.slow
def test_a_second_ctrl_c_kills_at_once(tmp_path: Path, survivors: Callable[[], list[str]]) -> None:
    run = Driven(tmp_path, "--set", "mode=hang")
    run.wait_for("configure_train: Sampled 3")
    run.interrupt(signal.SIGINT)
    run.wait_for("Stopping the run")
    run.interrupt(signal.SIGINT)
    assert run.process.wait(PATIENCE) == 130, run.text()
    wait_until(lambda: survivors() == [], survivors)


@pytest.mark.slow
def test_a_superlink_that_dies_is_told(tmp_path: Path, survivors: Callable[[], list[str]]) -> None:
    run = Driven(tmp_path, "--set", "mode=hang")
    run.wait_for("configure_train: Sampled 3")
    for process in psutil.Process(run.process.pid).children():
        if "flower-superlink" in " ".join(process.cmdline()):
            process.kill()
    assert run.process.wait(PATIENCE) == 1, run.text()
    assert "SuperLink ended unexpectedly (exit status -9)" in run.text()
    wait_until(lambda: survivors() == [], survivors)


def test_what_flower_refuses_is_told_in_its_words(
    tmp_path: Path, survivors: Callable[[], list[str]]
) -> None:
    """An app without a publisher is one that Flower does not take."""
    app = tmp_path / "app"
    shutil.copytree(TINY, app)
    pyproject = app / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('publisher = "waggle"', ""))
    run = Driven(tmp_path, app=app)
    assert run.process.wait(PATIENCE) == 1, run.text()
    assert "error: flwr run refused: " in run.text()
    assert "publisher" in run.text()
    wait_until(lambda: survivors() == [], survivors)


def test_a_pyproject_that_flower_would_rewrite_runs_from_a_copy(tmp_path: Path) -> None:
    """The user's file stays as it is, byte for byte."""
    app = tmp_path / "app"
    shutil.copytree(TINY, app)
    with (app / "pyproject.toml").open("a") as file:
        file.write('\n[tool.flwr.federations]\ndefault = "local"\n')
    before = (app / "pyproject.toml").read_bytes()
    run = Driven(tmp_path, app=app)
    assert run.process.wait(PATIENCE) == 0, run.text()
    assert (app / "pyproject.toml").read_bytes() == before


def test_a_home_is_private_and_the_user_s_own_choices_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLWR_HOME", "/home/somebody/.flwr")
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    monkeypatch.setenv("no_proxy", "intranet")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("WAGGLE_OUTPUTS", raising=False)
    environment = prepare_home(tmp_path, Path("/data/runs")).environment
    assert environment["FLWR_HOME"] == str(tmp_path)
    assert environment["FLWR_TELEMETRY_ENABLED"] == "1"
    assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert environment["NO_PROXY"] == "intranet,127.0.0.1,localhost"
    assert environment["WAGGLE_OUTPUTS"] == "/data/runs"


def test_a_family_includes_orphans_and_sessions_of_their_own() -> None:
    """A grandchild in a new session whose parent has died is still found, and ended."""
    leader = subprocess.Popen(["sh", "-c", "setsid sleep 300 & wait"], start_new_session=True)
    family = ProcessFamily(leader.pid)
    wait_until(lambda: "sleep" in [process.name() for process in family.members()])
    leader.kill()
    leader.wait()
    (orphan,) = family.members()
    assert os.getsid(orphan.pid) == orphan.pid
    family.kill()
    assert family.members() == []


def test_a_missing_command_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from fedwaggle.engine.flower import home

    monkeypatch.setattr(home.shutil, "which", lambda name, path: None)
    with pytest.raises(EngineError, match=r"expected flwr in .* pip install 'flwr\[simulation\]'"):
        home.find_command("flwr")
