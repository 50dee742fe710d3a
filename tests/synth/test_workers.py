"""The same tasks done by processes and by a real local Ray; workers and runs that are killed."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import voicetextblender
from voicetextblender.synth.shards import make_shards
from voicetextblender.synth.workers import work

ENV = {
    **os.environ,
    "PYTHONPATH": str(Path(voicetextblender.__file__).parents[1]),
    "RAY_worker_niceness": "0",  # by itself Ray steps back behind all else that a machine does
}
RUN = """
import sys, time
from pathlib import Path
from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.seeding import seeded
from voicetextblender.synth.shards import Made, Speech, make_shards

def make(items):
    for item in items:
        time.sleep(0.02)
        samples = seeded(item).uniform(-0.5, 0.5, 800).astype("float32")
        clip = Audio(f"shard-{item // 4:05d}.tar#{item}.flac", duration=0.05, text="hiss")
        talk = Conversation(f"hiss-{item}", (user(clip), assistant("hiss")), meta={"voice": "hiss"})
        yield Made(talk, (Speech(f"{item}.flac", samples, 16_000),))

if __name__ == "__main__":
    for done, total in make_shards(Path(sys.argv[1]), 80, 4, make, 2, on=sys.argv[2]):
        print(done, flush=True)
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(RUN)
    return path


def finish(program, out, on):
    command = [sys.executable, str(program), str(out), on]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=ENV)


def kill_after(program, out, on, least):
    """Run until `least` items are done, and kill the process that runs it."""
    command = [sys.executable, str(program), str(out), on]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENV) as process:
        assert process.stdout
        for line in process.stdout:
            if int(line) >= least:
                break
        process.kill()


def digests(out):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.iterdir())}


def is_running(marker):
    """Tell whether any process has a word of a command line."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in entry.read_bytes():
                return True
        except OSError:
            continue
    return False


@pytest.mark.parametrize("on", ["processes", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_run_killed_three_times_ends_byte_for_byte_as_one_that_never_was(tmp_path, program, on):
    if on == "ray":
        pytest.importorskip("ray")
    finish(program, tmp_path / "whole", "processes")
    for least in (4, 20, 40):
        kill_after(program, tmp_path / "killed", on, least)
        done = len(list((tmp_path / "killed").glob("shard-*.json")))
        assert 0 < done < 20
    deadline = time.monotonic() + 10
    while is_running(str(tmp_path / "killed")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_running(str(tmp_path / "killed")), "workers outlived the run"
    finish(program, tmp_path / "killed", on)
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")
    assert len(digests(tmp_path / "whole")) == 20 * 3 + 1


def square(number):
    return number * number


def dies_once(number):
    """Kill the worker at the first try of a number, as the system does for want of memory."""
    tried = Path(os.environ["VTB_TEST_TRIED"], str(number))
    if number == 2 and not tried.exists():
        tried.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return square(number)


def always_dies(number):
    os.kill(os.getpid(), signal.SIGKILL)


def refuses(number):
    raise ValueError(f"number {number} is refused")


def test_a_task_whose_worker_was_killed_is_done_by_another(tmp_path, monkeypatch):
    monkeypatch.setenv("VTB_TEST_TRIED", str(tmp_path))
    assert dict(work(dies_once, range(6), 2)) == {n: n * n for n in range(6)}
    with pytest.raises(ValueError, match="worker processes were killed 3 times, most likely for"):
        dict(work(always_dies, range(2), 2))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_ray_does_the_same_tasks_and_raises_the_same_errors():
    pytest.importorskip("ray")
    assert dict(work(square, range(7), 2, "ray")) == dict(work(square, range(7), 2))
    for on in ("processes", "ray"):
        with pytest.raises(ValueError, match="^number 0 is refused$"):
            dict(work(refuses, [0], 1, on))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"Ray is not installed; run: pip install 'voicetextbl"):
        dict(work(square, [1], 1, "ray"))


def _fills_the_disk(items):
    raise OSError(28, "No space left on device")


def test_a_full_disk_ends_the_run_with_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="the disk is full; whole shards are kept, so make room"):
        list(make_shards(tmp_path, 3, 2, _fills_the_disk, workers=1))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".shard")]


def test_two_runs_do_not_write_into_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("voicetextblender.synth.shards._PATIENCE_S", 0.0)
    first = make_shards(tmp_path, 1, 1, _fills_the_disk, workers=1)
    next(first)
    with pytest.raises(ValueError, match="another run is writing here; wait for it, or stop it"):
        next(make_shards(tmp_path, 1, 1, _fills_the_disk, workers=1))
    first.close()
    next(make_shards(tmp_path, 1, 1, _fills_the_disk, workers=1))
