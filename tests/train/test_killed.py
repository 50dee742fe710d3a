"""A run that is killed at twenty random moments, also inside a save, is the run that was not."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from voicetextblender.config import dump_recipe
from voicetextblender.train.log import read_log
from voicetextblender.train.tally import CLOCK

KILLER = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
from voicetextblender.config import load_recipe
from voicetextblender.train.loop import train

torch.set_num_threads(1)
recipe, kills = load_recipe(sys.argv[1]), int(sys.argv[2])
chance = random.Random(0)
checkpoints = Path(recipe.run) / "checkpoints"

def start():
    child = os.fork()  # nothing was computed here, so a child begins as a new process does
    if child == 0:
        train(recipe)
        os._exit(0)
    return child

def is_saving(since_s):
    try:
        return (checkpoints / ".draft").stat().st_ctime > since_s
    except FileNotFoundError:
        return False

first_s = 0.0
if kills:  # how long it takes to the first checkpoint, so that moments fall on both sides of it
    child, at = start(), time.monotonic()
    while not list(checkpoints.glob("step-*")):
        time.sleep(0.001)
    first_s = time.monotonic() - at
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

def newest():
    return max((int(p.name[5:]) for p in checkpoints.glob("step-*")), default=0)

moments = []
while len(moments) < kills:
    # So many steps on, that the steps last for all kills, however fast the machine is; then at any
    # time of a step, or of what comes before the first.
    share = (recipe.train.steps - newest()) / (kills - len(moments) + 1)
    goal = newest() + int(chance.uniform(0, 1.5 * share))
    in_save = len(moments) % 4 == 3
    child, began_s = start(), time.time()
    deadline = time.monotonic() + chance.uniform(0, first_s)
    while (
        newest() < goal or time.monotonic() < deadline or (in_save and not is_saving(began_s))
    ):
        if os.waitpid(child, os.WNOHANG)[0]:
            sys.exit(f"the run ended after {len(moments)} kills; give it more steps")
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    moments.append({"step": newest(), "in_save": is_saving(began_s)})
_, status = os.waitpid(start(), 0)
print(json.dumps({"moments": moments, "status": status}))
"""


def weights(folder):
    return {
        f"{path.name}:{name}": tensor
        for path in folder.rglob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


@pytest.mark.slow
def test_a_run_that_is_killed_twenty_times_is_the_run_that_was_not(recipe, corpus):
    paths = {}
    for name in ("broken", "unbroken"):
        settings = recipe(name, steps=300, save_every=1, ema=0.9, ctc_tokens=20, kl_weight=0.5)
        paths[name] = corpus / f"{name}.yaml"
        paths[name].write_text(dump_recipe(settings))
    told = {}
    for name, kills in (("broken", 20), ("unbroken", 0)):
        command = [sys.executable, "-c", KILLER, str(paths[name]), str(kills)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told[name] = json.loads(done.stdout.splitlines()[-1])
        assert told[name]["status"] == 0
    moments = told["broken"]["moments"]
    print(moments)
    assert len({moment["step"] for moment in moments}) > 10
    assert sum(moment["in_save"] for moment in moments) >= 5
    broken, unbroken = corpus / "broken", corpus / "unbroken"
    ours, theirs = weights(broken / "model"), weights(unbroken / "model")
    assert ours.keys() == theirs.keys() and len(ours) > 10
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    logs = [
        [{k: v for k, v in line.items() if k not in CLOCK} for line in read_log(run)]
        for run in (broken, unbroken)
    ]
    assert logs[0] == logs[1] and len(logs[0]) == 300
