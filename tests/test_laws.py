"""The laws of a run: the same seed gives the same model, on every engine, and after every crash.

The quickstart is run as its users run it, in processes of its own, and killed with SIGKILL. What
a run leaves behind is read from the one on Flower's simulation, where the whole way is stock.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

import running
from fedwaggle.data import load_images, to_examples
from fedwaggle.runs.best_model import model_sha256
from my_federated_project import task
from waiting import PATIENCE


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that nothing disturbed, on the local engine with 2 workers."""
    return running.run(tmp_path_factory.mktemp("undisturbed"), "--workers", "2")


def facts(run_folder: Path) -> dict[str, object]:
    """Return what a run came to: everything but times, node ids and measured durations."""
    rounds = running.of_kind(running.story(run_folder), "round-finished")
    started = running.of_kind(running.story(run_folder), "round-started")
    return {
        "sha256": running.final_hash(run_folder),
        "cohorts": [sorted(event.clients) for event in started],
        "rates": [event.learning_rate for event in rounds],
        "metrics": [event.metrics for event in rounds],
        "evaluate": [event.evaluate_metrics for event in rounds],
        "losses": [event.train_metrics.get("train_loss") for event in rounds],
        "best": json.loads((run_folder / "best.json").read_text()),
        "best.pth": hash_of(run_folder / "best.pth"),
        "final.pth": hash_of(run_folder / "final.pth"),
    }


def hash_of(path: Path) -> str:
    state = torch.load(path, weights_only=True)
    return model_sha256({name: tensor.numpy() for name, tensor in state.items()})


@pytest.mark.parametrize("workers", ["0", "1", "3"])
def test_a_repeat_with_other_workers_is_the_same_run(
    undisturbed: Path, tmp_path: Path, workers: str
) -> None:
    """0 is the server's process. With 2, as before, it is repeated where workers are killed."""
    assert facts(running.run(tmp_path, "--workers", workers)) == facts(undisturbed)


def test_another_seed_is_another_run(undisturbed: Path, tmp_path: Path) -> None:
    other = running.run(tmp_path, settings={**running.SMALL, "seed": 1})
    assert running.final_hash(other) != running.final_hash(undisturbed)


# -- The whole job on Flower's own simulation, read back


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of a run on Flower's simulation, and what was printed."""
    outputs = tmp_path_factory.mktemp("outputs")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run(
        running.command(outputs, "--engine", "flower"),
        capture_output=True,
        text=True,
        env=running.plain_env(),
        cwd=elsewhere,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert list(elsewhere.iterdir()) == []
    return running.latest(outputs), done.stdout + done.stderr


def test_flowers_own_simulation_gives_the_same_run(
    undisturbed: Path, simulated: tuple[Path, str]
) -> None:
    assert facts(simulated[0]) == facts(undisturbed)


def test_the_record_tells_the_whole_story(simulated: tuple[Path, str]) -> None:
    events = running.story(simulated[0])
    assert events[0].event == "run-started"
    assert events[0].strategy == "CustomFedAdagrad"
    assert events[0].engine == "flower-simulation"
    assert events[0].config["batch-size"] == 50
    assert events[1].event == "labels-counted"
    assert {n: sum(counts.values()) for n, counts in events[1].clients.items()} == {
        str(n): 1500 for n in range(4)
    }
    asked = json.loads((simulated[0] / "run.json").read_text())
    assert (asked["engine"], asked["seed"]) == ("flower-simulation", 0)
    assert events[-1].event == "run-finished"
    rounds = running.of_kind(events, "round-finished")
    assert [event.round for event in rounds] == [0, 1, 2, 3, 4]


def test_every_client_said_more_than_weights(simulated: tuple[Path, str]) -> None:
    events = running.story(simulated[0])
    sampled = [(e.round, c) for e in running.of_kind(events, "round-started") for c in e.clients]
    updates = running.of_kind(events, "client-updated")
    assert sorted((e.round, e.client) for e in updates) == sorted(sampled)
    assert len(updates) == 8  # two of four clients in each of four rounds
    for update in updates:
        assert update.metadata["training_time"] > 0
        assert update.metadata["converged"] in (True, False)
        assert list(update.metadata["training_losses"]) == ["epoch_1"]
        assert update.num_examples == 1500


def test_the_best_model_is_the_one_that_the_record_names(simulated: tuple[Path, str]) -> None:
    """best.pth, loaded as data into Net, has the accuracy that best.json says."""
    run_folder = simulated[0]
    best = json.loads((run_folder / "best.json").read_text())
    state = torch.load(run_folder / "best.pth", weights_only=True)
    assert hash_of(run_folder / "best.pth") == best["sha256"]
    model = task.Net()
    model.load_state_dict(state)
    test_set = to_examples(load_images("fashion-mnist-mini", "test"))
    accuracy = task.test(model, test_set)["accuracy"]
    assert accuracy == pytest.approx(best["value"])
    assert accuracy > 0.3  # guessing is 0.1


def test_what_is_printed_is_one_line_a_round_and_where_things_are(
    simulated: tuple[Path, str],
) -> None:
    run_folder, printed = simulated
    lines = [line for line in printed.splitlines() if "round   " in line]
    assert len(lines) == 5
    assert "clients 2/2" in lines[4]
    assert str(run_folder / "best.pth") in printed
    assert (run_folder / "report.html").stat().st_size > 0


# -- Crashes


def events_written(count: int) -> Callable[[Path], bool]:
    """Return a question: does the run's record have this many lines?"""

    def reached(outputs: Path) -> bool:
        files = list(outputs.glob("*/events.jsonl"))
        return bool(files) and files[0].read_bytes().count(b"\n") >= count

    return reached


def kill_when(outputs: Path, condition: Callable[[Path], bool], *options: str) -> bool:
    """Start a run and kill it with SIGKILL once the condition holds; return whether it did.

    The process is stopped first, so that the condition is known to hold when it is killed.
    """
    with running.running(outputs, *options) as process:
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < deadline:
            if condition(outputs):
                os.kill(process.pid, signal.SIGSTOP)
                if condition(outputs):
                    os.kill(process.pid, signal.SIGKILL)
                    process.wait()
                    return True
                os.kill(process.pid, signal.SIGCONT)
        return False


def resumed(outputs: Path) -> Path:
    """Go on with the latest run, to its end."""
    return running.run(outputs, "--resume", "latest")


def test_killed_in_two_rounds_and_resumed_it_is_the_same_run(
    undisturbed: Path, tmp_path: Path
) -> None:
    """Killed with 5 events on disk, and after 11 more: in rounds 1 and 3."""
    options: tuple[str, ...] = ()
    for more in (5, 11):
        written = sum(file.read_bytes().count(b"\n") for file in tmp_path.glob("*/events.jsonl"))
        assert kill_when(tmp_path, events_written(written + more), *options)
        options = ("--resume", "latest")
    rounds = running.of_kind(running.story(running.latest(tmp_path)), "round-finished")
    assert rounds[-1].round < running.SMALL["num-server-rounds"]
    assert facts(resumed(tmp_path)) == facts(undisturbed)


# Loaded by every Python that finds it: the power goes off with half of a file on disk.
SITECUSTOMIZE = """
import fnmatch, os, signal
sync, left = os.fsync, [int(os.environ["KILL_AT"])]
def fsync(fd):
    left[0] -= fnmatch.fnmatch(os.readlink(f"/proc/self/fd/{fd}"), os.environ["KILL_INSIDE"])
    if left[0] == 0:
        os.ftruncate(fd, os.fstat(fd).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    sync(fd)
os.fsync = fsync
"""


def test_killed_inside_two_writes_and_resumed_it_is_the_same_run(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With half of the third file of a resume point on disk, then of the next best model."""
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    outputs, options = tmp_path / "outputs", tuple[str, ...]()
    for temp_files, number in (("*/snapshots/.*.tmp", 3), ("*/.best.pth.*.tmp", 1)):
        with monkeypatch.context() as around:
            around.setenv("PYTHONPATH", str(tmp_path))
            around.setenv("KILL_INSIDE", temp_files)
            around.setenv("KILL_AT", str(number))
            with running.running(outputs, *options) as process:
                assert process.wait(PATIENCE) == -signal.SIGKILL
        assert any(outputs.glob(temp_files))
        options = ("--resume", "latest")
    assert facts(resumed(outputs)) == facts(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_killed_at_a_random_moment_and_resumed_it_is_the_same_run(
    undisturbed: Path, tmp_path: Path, number: int
) -> None:
    """The moment is drawn from the first seconds of the run, up to three times in one run."""
    chance = random.Random(number)
    options: tuple[str, ...] = ()
    for _ in range(chance.randint(1, 3)):
        moment = time.monotonic() + chance.uniform(3, 9)
        kill_when(tmp_path, lambda _, moment=moment: time.monotonic() > moment, *options)
        if any(tmp_path.glob("*/run.json")):
            options = ("--resume", "latest")
    folder = running.run(tmp_path, *options)
    assert facts(folder) == facts(undisturbed)


@pytest.mark.slow
def test_killed_under_flowers_simulation_and_resumed_on_the_local_engine(
    undisturbed: Path, tmp_path: Path
) -> None:
    """A crash may change the engine too: a run begun on Ray goes on locally."""
    with running.running(tmp_path, "--engine", "flower") as process:
        deadline = time.monotonic() + PATIENCE
        while not events_written(9)(tmp_path) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.01)
        # Flower's processes have sessions of their own, and outlive the one that started them.
        for one in [process, *psutil.Process(process.pid).children(recursive=True)]:
            os.kill(one.pid, signal.SIGKILL)
    wait_until_free(tmp_path)
    assert facts(resumed(tmp_path)) == facts(undisturbed)


def kill_workers(outputs: Path, rounds: int) -> str:
    """Run, and kill a worker with SIGKILL in each round; return what the run logged."""
    settings = {**running.SMALL, "num-server-rounds": rounds}
    log = outputs / "log"
    with (
        log.open("w") as file,
        subprocess.Popen(
            running.command(outputs, "--workers", "2", "--verbose", settings=settings),
            stdout=file,
            stderr=file,
            env=running.plain_env(),
        ) as process,
    ):
        for number in range(1, rounds + 1):
            while rounds_started(outputs) < number:
                assert process.poll() is None, log.read_text()
                time.sleep(0.01)
            time.sleep(0.05 * (number % 4))  # into the round
            (fork_server,) = psutil.Process(process.pid).children()
            workers = sorted(fork_server.children(), key=lambda worker: worker.pid)
            workers[0].kill()  # the one that has lived longest, so each comes to it
    assert process.returncode == 0, log.read_text()
    return log.read_text()


def rounds_started(outputs: Path) -> int:
    files = list(outputs.glob("*/events.jsonl"))
    return files[0].read_text().count('"round-started"') if files else 0


def unused(run_folder: Path) -> int:
    """Return how many replies were quarantined or never came."""
    rounds = running.of_kind(running.story(run_folder), "round-finished")
    return sum(event.quarantined + len(event.missing) for event in rounds)


def test_killed_workers_change_nothing(undisturbed: Path, tmp_path: Path) -> None:
    """One in each of 4 rounds: their messages are sent again, and nobody is quarantined."""
    log = kill_workers(tmp_path, rounds=4)
    assert facts(running.latest(tmp_path)) == facts(undisturbed)
    assert unused(running.latest(tmp_path)) == 0
    assert "is sent again: its process was ended by SIGKILL" in log


@pytest.mark.slow
def test_fifteen_killed_workers_change_nothing(tmp_path: Path) -> None:
    settings = {**running.SMALL, "num-server-rounds": 15}
    plain = running.run(tmp_path / "plain", settings=settings)
    (tmp_path / "killed").mkdir()
    log = kill_workers(tmp_path / "killed", rounds=15)
    killed = running.latest(tmp_path / "killed")
    assert facts(killed) == facts(plain)
    assert unused(killed) == 0
    assert log.count("is sent again") >= 8  # the others had answered in that moment


def wait_until_free(outputs: Path) -> None:
    """Wait until nobody writes the run any more."""
    import fcntl

    (path,) = outputs.glob("*/events.jsonl")
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # returns once the last writer is gone
