"""Runs on two ranks, each a process that exchanges with the other through gloo."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest
import torch
from safetensors.torch import load_file

from voicetextblender.config import dump_recipe
from voicetextblender.train.dist import ALONE, Ranks, share_gradients
from voicetextblender.train.log import read_log
from voicetextblender.train.loop import train
from voicetextblender.train.state import checkpoints

RANK = """
import os
import sys
import torch
from voicetextblender.config import load_recipe
from voicetextblender.train import loop

torch.set_num_threads(1)
Feed = loop.Feed

def text_alone_on_the_second_rank(recipe, processor, position, ranks):
    if "text" in recipe.run and ranks.rank == 1:
        recipe = recipe.model_copy(update={"blend": recipe.blend[1:]})
    return Feed(recipe, processor, position, ranks)

loop.Feed = text_alone_on_the_second_rank
for path, port in zip(sys.argv[1:], os.environ["PORTS"].split(), strict=True):
    os.environ["MASTER_PORT"] = port  # a port each: the ranks of one run may still hold its own
    loop.train(load_recipe(path))
"""


def start(*paths, num=2):
    """Start as many processes as torchrun would, with its environment."""
    with ExitStack() as stack:
        free = [stack.enter_context(socket.socket()) for _ in paths]
        for one in free:
            one.bind(("127.0.0.1", 0))
        ports = " ".join(str(one.getsockname()[1]) for one in free)
    where = {"MASTER_ADDR": "127.0.0.1", "PORTS": ports, "WORLD_SIZE": str(num)}
    return [
        subprocess.Popen(
            [sys.executable, "-c", RANK, *map(str, paths)],
            env=os.environ | where | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(num)
    ]


def finish(ranks, timeout_s=300):
    """Wait for all ranks and return their exit codes and their last words."""
    try:
        words = [rank.communicate(timeout=timeout_s)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    return [rank.returncode for rank in ranks], words


def trained(folder):
    return {
        f"{path.name}:{name}": tensor
        for path in folder.rglob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


def assert_same_weights(one, other):
    ours, theirs = trained(one), trained(other)
    assert ours.keys() == theirs.keys() and len(ours) > 10
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], atol=2e-5, rtol=1e-4, msg=name)


pytestmark = pytest.mark.slow  # two processes that import all of transformers

LEVERS = {"kl_weight": 0.5, "kl_twin_weight": 0.5, "ctc_tokens": 20, "ema": 0.5, "keep": 9}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, write_corpus, recipe_for):
    """Runs on two ranks: with both kinds of data parallelism, and where one draws only text."""
    corpus = write_corpus(tmp_path_factory.mktemp("ranks"))
    recipe = recipe_for(corpus)
    settings = {
        parallel: recipe(parallel, rows_per_step=2, parallel=parallel, **LEVERS)
        for parallel in ("ddp", "fsdp")
    } | {
        f"text-{parallel}": recipe(
            f"text-{parallel}",
            {"train": {"encoder": encoder}},
            rows_per_step=2,
            parallel=parallel,
            tokens_per_batch=100,
            steps=50,
            save_every=50,
            log_every=10,
            precision=precision,
        )
        for parallel, encoder, precision in (("ddp", "full", "fp32"), ("fsdp", "lora", "bf16"))
    }
    paths = []
    for name, one in settings.items():
        paths.append(corpus / f"{name}.yaml")
        paths[-1].write_text(dump_recipe(one))
    codes, words = finish(start(*paths))
    assert codes == [0, 0], words
    train(recipe("alone", rows_per_step=2, **LEVERS))
    return corpus


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_train_what_one_rank_trains_on_the_same_rows(parallel, runs):
    assert_same_weights(runs / parallel / "model", runs / "alone/model")
    for ours, alone in zip(read_log(runs / parallel), read_log(runs / "alone"), strict=True):
        assert ours["draw"] == alone["draw"]
        assert ours["tokens_by_source"] == alone["tokens_by_source"]
        for name in ("loss", "ctc", "kl", "kl_twin"):
            assert ours[name] == pytest.approx(alone[name], rel=1e-4, abs=1e-6)
        assert ours["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-3)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_rank_that_draws_text_alone_keeps_no_other_waiting(parallel, runs):
    lines = read_log(runs / f"text-{parallel}")
    assert lines[-1]["step"] == 50
    drawn = [line["conversations_by_source"] for line in lines]
    assert all(one["asr"] > 0 and one["text"] > one["asr"] for one in drawn)
    # A line has the last step's norms, and in some steps no rank drew speech.
    assert any(line["grad_norm"]["adapter"] > 0 for line in lines)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_run_on_two_ranks_goes_on_on_one(parallel, runs, recipe_for):
    recipe = recipe_for(runs)(parallel, rows_per_step=2, parallel=parallel, **LEVERS)
    for place in checkpoints(runs / parallel / "checkpoints")[1:]:
        place.rename(place.with_name(f"hidden-{place.name}"))
    assert read_log(runs / parallel)[-1]["step"] == 6
    train(recipe)
    assert [line["step"] for line in read_log(runs / parallel)] == [1, 2, 3, 4, 5, 6]
    assert_same_weights(runs / parallel / "model", runs / "alone/model")


def test_two_ranks_of_two_workers_go_on_as_one_rank_of_one(recipe, corpus):
    shared = {"rows_per_step": 2, "steps": 12, "save_every": 3}
    path = corpus / "two.yaml"
    path.write_text(dump_recipe(recipe("two", workers=2, **shared)))
    ranks = start(path)
    deadline_s = time.monotonic() + 200
    while not checkpoints(corpus / "two/checkpoints"):
        assert time.monotonic() < deadline_s and ranks[0].poll() is None
        time.sleep(0.05)
    ranks[1].send_signal(signal.SIGTERM)  # to one: all must stop
    codes, words = finish(ranks)
    assert codes in ([143, 143], [0, 0]), words
    train(recipe("two", workers=1, **shared))
    train(recipe("one", **shared))
    assert_same_weights(corpus / "two/model", corpus / "one/model")


def test_a_parameter_that_no_row_used_has_a_gradient_of_zeros():
    unused = torch.nn.Parameter(torch.ones(3))
    share_gradients([unused], ALONE)
    assert torch.equal(unused.grad, torch.zeros(3))


def test_a_rank_by_itself_has_nobody_to_wait_for():
    values = torch.ones(2)
    ALONE.wait()
    assert torch.equal(ALONE.sum(values), values) and ALONE.gather("a") == ["a"]
    assert ALONE.is_first and not Ranks(1, 2, torch.device("cpu")).is_first
