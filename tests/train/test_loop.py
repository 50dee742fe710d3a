import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from voicetextblender.batch import Sample, collate
from voicetextblender.chat import Audio, Conversation, user
from voicetextblender.config import dump_recipe
from voicetextblender.model.generate import answers
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.train.dist import ALONE
from voicetextblender.train.log import read_log
from voicetextblender.train.loop import begin, count, train, train_step
from voicetextblender.train.optim import build_optimizer
from voicetextblender.train.state import checkpoints
from voicetextblender.train.tally import CLOCK, Tally, sizes_of

KILLED_AT_3 = """
import os, signal, sys
import torch
from voicetextblender.config import load_recipe
from voicetextblender.train.loop import train

torch.set_num_threads(1)

def report(line):
    if line["step"] == 3:
        os.kill(os.getpid(), signal.SIGKILL)

train(load_recipe(sys.argv[1]), report=report)
"""


def history(run):
    """Everything of a run's log but the clock."""
    return [{k: v for k, v in line.items() if k not in CLOCK} for line in read_log(run)]


def weights(folder):
    return {
        f"{path.relative_to(folder)}:{name}": tensor
        for path in folder.rglob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


def assert_same_run(one, other):
    assert history(one) == history(other)
    ours, theirs = weights(one / "model"), weights(other / "model")
    assert ours.keys() == theirs.keys() and len(ours) > 10
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


class Stopped(Exception):
    pass


def stop_at(step):
    def report(line):
        if line["step"] == step:
            raise Stopped

    return report


def test_in_a_few_steps_the_loss_falls(recipe, corpus):
    train(recipe(steps=12, save_every=100))
    lines = read_log(corpus / "run")
    assert [line["step"] for line in lines] == list(range(1, 13))
    for loss in ("loss", "ctc"):
        assert sum(line[loss] for line in lines[-3:]) < 0.9 * sum(line[loss] for line in lines[:3])


def test_the_log_has_the_loss_of_each_source_and_the_tokens_behind_it(recipe, corpus):
    seen = []
    train(recipe(steps=3, warmup=0, log_every=2), report=seen.append)
    assert [line["step"] for line in seen] == [2, 3]
    assert seen == read_log(corpus / "run")
    for line in seen:
        tokens, losses = line["tokens_by_source"], line["loss_by_source"]
        assert set(tokens) == set(losses) == {"asr", "text"}
        mean = sum(losses[s] * tokens[s] for s in tokens) / sum(tokens.values())
        assert line["loss"] == pytest.approx(mean)


def test_a_run_goes_on_from_the_model_of_another(recipe, corpus):
    first = train(recipe(steps=3, precision="bf16"))
    next_one = recipe("next", steps=1, warmup=0, seed=5, lr={"adapter": 1e-12, "lora": 1e-12})
    anew = weights(train(next_one.model_copy(update={"run": str(corpus / "anew")})))
    on = weights(train(next_one.model_copy(update={"init": str(first)})))
    for name, tensor in weights(first).items():
        torch.testing.assert_close(on[name], tensor, atol=1e-6, rtol=0)
    assert any(not torch.allclose(on[name], anew[name], atol=1e-3) for name in on)


def test_a_run_cannot_go_on_from_what_is_no_model(recipe, corpus):
    with pytest.raises(ValueError, match=r"nowhere/model.safetensors: no such file"):
        train(recipe().model_copy(update={"init": str(corpus / "nowhere")}))


def test_layers_are_compiled_on_a_gpu_alone(recipe):
    with pytest.raises(ValueError, match=r"train.compile needs a GPU"):
        begin(recipe(compile=True), ALONE, resume=False)


@pytest.mark.parametrize("train_parts", [{}, {"encoder": "full"}], ids=["frozen", "full"])
def test_a_run_that_is_stopped_and_resumed_is_the_run_that_was_not(train_parts, recipe, corpus):
    model = {"train": train_parts}
    train(recipe("unbroken", model))
    with pytest.raises(Stopped):
        train(recipe("broken", model), report=stop_at(5))
    assert [place.name for place in checkpoints(corpus / "broken/checkpoints")] == [
        "step-000002",
        "step-000004",
    ]
    train(recipe("broken", model))
    assert_same_run(corpus / "broken", corpus / "unbroken")


def test_a_run_stopped_while_the_adapter_goes_first_resumes_as_the_run_that_was_not(recipe, corpus):
    train(recipe("unbroken", adapter_first=4))
    with pytest.raises(Stopped):
        train(recipe("broken", adapter_first=4), report=stop_at(3))
    train(recipe("broken", adapter_first=4))
    assert_same_run(corpus / "broken", corpus / "unbroken")


def test_while_the_adapter_goes_first_the_llm_does_not_learn(recipe, corpus):
    train(recipe(adapter_first=3))
    lines = read_log(corpus / "run")
    assert ["lora" in line["grad_norm"] for line in lines] == [False] * 3 + [True] * 3
    assert all(line["grad_norm"]["adapter"] > 0 for line in lines if line["audio_s_per_s"])


def test_a_run_that_is_asked_to_stop_saves_at_once_and_goes_on_later(recipe, corpus):
    def ask_at_3(line):
        if line["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as exit:
        train(recipe("broken", save_every=100), report=ask_at_3)
    assert exit.value.code == 143
    assert [place.name for place in checkpoints(corpus / "broken/checkpoints")] == ["step-000003"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    train(recipe("broken", save_every=100))
    train(recipe("unbroken", save_every=100))
    assert_same_run(corpus / "broken", corpus / "unbroken")


LEVERS = {
    "ema": 0.9,
    "ctc_tokens": 20,
    "kl_weight": 0.5,
    "kl_twin_weight": 0.5,
    "frame_cache_gb": 0.1,
    "spec_augment": None,
    "recompute": True,
    "rows_per_step": 2,
    "learn": {"lora": [2, 5]},
}


def test_with_every_lever_pulled_a_resumed_run_is_the_run_that_was_not(
    recipe, corpus, monkeypatch, tmp_path
):
    monkeypatch.setenv("VTB_CACHE", str(tmp_path / "cache"))
    train(recipe("unbroken", **LEVERS))
    with pytest.raises(Stopped):
        train(recipe("broken", **LEVERS), report=stop_at(5))
    train(recipe("broken", **LEVERS))
    assert_same_run(corpus / "broken", corpus / "unbroken")
    for line in read_log(corpus / "broken"):
        assert ("lora" in line["grad_norm"]) == (3 <= line["step"] <= 5)
        assert line["kl_twin"] > 0 and (line["step"] > 3 or abs(line["kl"]) < 1e-5)
    assert read_log(corpus / "broken")[-1]["kl"] > 1e-6


def test_a_run_that_is_killed_and_resumed_is_the_run_that_was_not(recipe, corpus):
    broken = corpus / "broken.yaml"
    broken.write_text(dump_recipe(recipe("broken")))
    killed = subprocess.run([sys.executable, "-c", KILLED_AT_3, str(broken)], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert len(read_log(corpus / "broken")) == 3
    train(recipe("broken"))
    train(recipe("unbroken"))
    assert_same_run(corpus / "broken", corpus / "unbroken")


def test_a_run_can_go_on_for_longer_than_was_planned(recipe, corpus):
    train(recipe(steps=4))
    train(recipe(steps=6))
    assert [line["step"] for line in read_log(corpus / "run")] == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_is_not_done_again(recipe, corpus):
    train(recipe(steps=3))
    before = weights(corpus / "run/model")
    seen = []
    train(recipe(steps=3), report=seen.append)
    assert seen == []
    after = weights(corpus / "run/model")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_that_is_begun_anew_forgets_the_old_one(recipe, corpus):
    """The old run's later checkpoints counted as the newest, and the new run's were dropped."""
    train(recipe(steps=6))
    train(recipe(steps=3), resume=False)
    assert [line["step"] for line in read_log(corpus / "run")] == [1, 2, 3]
    assert [place.name for place in checkpoints(corpus / "run/checkpoints")] == [
        "step-000002",
        "step-000003",
    ]


def test_a_trained_model_is_a_folder_that_answers(recipe, corpus, sound):
    folder = train(recipe(steps=3, precision="bf16"))
    model = SpeechLM.from_pretrained(folder, dtype=torch.float32)
    processor = SpeechLMProcessor.from_pretrained(folder)
    question = Conversation("q", (user("Say:", Audio("a.wav")),))
    prompt = processor.encode(question, [sound(0.5)], purpose="answer")
    (answer,) = answers(model, processor, [prompt])
    assert isinstance(answer, str)


@pytest.mark.parametrize(
    "train_parts",
    [{"llm": "frozen"}, {"encoder": "lora"}, {"encoder": "full"}],
    ids=["voice only", "encoder lora", "encoder full"],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_whatever_is_to_be_trained_trains(train_parts, precision, recipe, corpus):
    train(recipe(steps=2, warmup=0, model={"train": train_parts}, precision=precision))
    assert len(read_log(corpus / "run")) == 2


def test_parakeet_learns_its_batch_statistics_in_float32(build, recipe):
    model = build(encoder="parakeet", train={"encoder": "full"}, dtype=torch.bfloat16).train()
    whisper = begin(recipe(precision="bf16"), ALONE, resume=False)
    run = replace(
        whisper,
        model=model,
        parts=model.trained_parts(),
        sizes=sizes_of(model),
        optimizer=build_optimizer(model, whisper.recipe.train),
        objective=replace(whisper.objective, model=model, encode=model.encode),
    )
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    audio = [model.config.audio_token_id] * 2
    features = torch.randn(40, 8)
    sample = Sample("a", "asr", "asr", [5, *audio, 6], [-100, -100, 6, 7], [features], [[6]])
    rows = [collate([sample], 8)]
    norms = train_step(run, rows, count(run, rows, False), Tally(["asr"], ALONE.device))
    assert set(norms) == {"adapter", "lora", "encoder"} and all(map(math.isfinite, norms.values()))
    means = [name for name in before if name.endswith("running_mean")]
    assert means
    for name in means:
        mean = model.get_buffer(name)
        assert mean.dtype == torch.float32 and not torch.equal(mean, before[name])


def test_speech_alone_and_text_alone_train_as_well(recipe, corpus):
    both = recipe(steps=2, warmup=0)
    for source in both.blend:
        train(both.model_copy(update={"blend": (source,), "run": str(corpus / source.name)}))
    assert read_log(corpus / "text")[-1]["ctc"] == 0.0


def test_a_line_of_the_log_that_was_cut_off_is_dropped(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_log(tmp_path) == [{"step": 1}]
    assert read_log(tmp_path / "none") == []


def test_a_run_whose_gradient_is_never_finite_stops_and_names_conversations(recipe):
    with pytest.raises(
        ValueError,
        match="gradient was not finite 5 times in a row; lower train.lr"
        ".* conversations .*(asr|text)-",
    ):
        train(recipe(steps=20, lr={"adapter": 1e30, "lora": 1e30}, save_every=100))


def clip_of(record):
    return record["messages"][0]["content"][1]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("{oops", r"asr.jsonl:1: not JSON"),
        (lambda record: record.update(lnag="en"), r"asr.jsonl:1: unknown key 'lnag'"),
        (
            lambda record: record["messages"].reverse(),
            r"conversation 'asr-0': begins with an assistant turn",
        ),
        (
            lambda record: record["messages"][1].update(content=[clip_of(record)]),
            r"asr.jsonl:1: conversation 'asr-0': message 1: audio in a assistant turn",
        ),
        (
            lambda record: clip_of(record).update(audio="clips/none.wav"),
            r"conversation 'asr-0': .*clips/none.wav: there is no such file",
        ),
        (
            lambda record: clip_of(record).update(start=60),
            r"conversation 'asr-0': .*clips/0.wav: start 60 s is beyond the end",
        ),
        (
            lambda record: record["messages"].pop(),
            r"conversation 'asr-0': no assistant turn",
        ),
    ],
    ids=["JSON", "key", "order", "audio in an answer", "no clip", "beyond the end", "no answer"],
)
def test_a_bad_record_stops_the_run_with_its_place(edit, message, recipe, first_line):
    first_line(edit)
    with pytest.raises(ValueError, match=message) as error:
        train(recipe())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"RIFF no sound at all", "cannot be read as audio"),
        (
            b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80>\0\0\0}\0\0\2\0\x10\0data\0\0\0\0",
            "no samples",
        ),
    ],
    ids=["no bytes", "rubbish", "no samples"],
)
def test_a_bad_clip_stops_the_run_with_its_name(data, message, recipe, corpus):
    (corpus / "clips/0.wav").write_bytes(data)
    with pytest.raises(ValueError, match=rf"conversation 'asr-0': .*clips/0.wav: .*{message}"):
        train(recipe())


def test_a_conversation_that_fits_no_row_stops_the_run_with_its_name(recipe):
    with pytest.raises(ValueError, match="conversation '(asr|text)-.' .*tokens_per_batch=20"):
        train(recipe(tokens_per_batch=20))


def test_a_model_that_is_not_known_is_refused_before_anything_is_made(recipe, corpus):
    known = recipe()
    unknown = known.model_copy(update={"model": known.model.model_copy(update={"llm": "smolm2"})})
    with pytest.raises(ValueError, match="'smolm2' is not known .did you mean 'smollm2-135m'"):
        train(unknown)
    assert not (corpus / "run").exists()


def test_a_source_that_is_not_there_is_refused_before_anything_is_made(recipe, corpus):
    (corpus / "text.jsonl").unlink()
    with pytest.raises(ValueError, match="text.jsonl: no such file"):
        train(recipe())
    assert not (corpus / "run").exists()


def test_the_run_says_with_which_settings_it_was_made(recipe, corpus):
    folder = train(recipe(steps=2, warmup=0))
    assert (folder / "recipe.yaml").read_text() == dump_recipe(recipe(steps=2, warmup=0))
    assert json.loads((folder / "provenance.json").read_text())["torch"] == torch.__version__


def test_conversations_that_are_left_out_are_named_in_the_log_once(recipe, corpus):
    (corpus / "clips/2.wav").unlink()
    train(recipe(max_broken=3))
    lines = read_log(corpus / "run")
    named = [name for line in lines for name in line["newly_left_out"]]
    assert len(named) == len(set(named)) == lines[-1]["left_out"] == 1
    assert (
        "2.wav"
        in next(line for line in lines if line["newly_left_out"])["newly_left_out"][named[0]]
    )
