import math

import pytest
import torch

from voicetextblender.config import RetentionConfig
from voicetextblender.train.log import read_log
from voicetextblender.train.loop import train
from voicetextblender.train.retention import WINDOW, Kept, alarm, look, read_windows
from voicetextblender.train.state import checkpoints

TEXT = "You are a helpful assistant, trained by Hugging Face. " * 40


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "some.txt"
    path.write_text(TEXT)
    return path


def test_a_model_that_has_not_moved_has_kept_everything(build, text, processor):
    model = build()
    windows = read_windows(RetentionConfig(text=str(text)), processor)
    with model.voice_off():
        kept = look(model, windows)
    assert kept.kl == 0 and kept.rise == 0


def test_perplexity_and_divergence_are_those_of_the_logits(build, text, processor):
    model = build().train()
    windows = read_windows(RetentionConfig(text=str(text)), processor)
    kept = look(model, windows)
    assert model.training
    model.eval()
    nll, kl, num = [0.0, 0.0], 0.0, 0
    for window in windows:
        ours = model(window[None]).logits[0, :-1].log_softmax(-1)
        with model.voice_off():
            base = model(window[None]).logits[0, :-1].log_softmax(-1)
        for place, given in enumerate((ours, base)):
            nll[place] -= given.gather(1, window[1:, None]).sum().item()
        kl += (base.exp() * (base - ours)).sum().item()
        num += len(window) - 1
    assert kept.perplexity == pytest.approx(math.exp(nll[0] / num), rel=1e-4)
    assert kept.base_perplexity == pytest.approx(math.exp(nll[1] / num), rel=1e-4)
    assert kept.kl == pytest.approx(kl / num, rel=1e-3) and kept.kl > 0


def test_no_more_of_the_text_is_read_than_was_asked_for(text, processor):
    windows = read_windows(RetentionConfig(text=str(text), tokens=WINDOW + 5), processor)
    assert list(map(len, windows)) == [WINDOW, 5]


def test_the_alarm_sounds_beyond_the_limit_alone():
    kept = Kept(perplexity=11.0, base_perplexity=10.0, kl=0.1)
    assert kept.rise == pytest.approx(0.1)
    assert alarm(kept, RetentionConfig(text="t", limit=kept.rise + 0.01), 7) is None
    words = alarm(kept, RetentionConfig(text="t", limit=kept.rise / 2), 7)
    assert words and "step 7: perplexity of t is" in words and "train.retention.limit" in words


def test_a_text_that_is_not_there_or_empty_is_refused(tmp_path, processor):
    (tmp_path / "empty.txt").write_text("")
    for name, message in (
        ("none.txt", "no such file; train.retention.text"),
        ("empty.txt", "0 tok"),
    ):
        with pytest.raises(ValueError, match=message):
            read_windows(RetentionConfig(text=str(tmp_path / name)), processor)


def test_the_log_says_what_is_kept_and_warns(recipe, corpus, text):
    watch = {"text": str(text), "every": 2, "limit": 1e-6, "tokens": 100}
    train(recipe(retention=watch, log_every=100, lr={"lora": 0.3}))
    lines = read_log(corpus / "run")
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert all(line["retention"]["base_perplexity"] > 1 for line in lines)
    assert len({line["retention"]["base_perplexity"] for line in lines}) == 1
    for line in lines:
        kept = line["retention"]
        is_beyond = kept["perplexity"] / kept["base_perplexity"] - 1 > 1e-6
        assert ("above the LLM's" in line["warning"]) == is_beyond


def test_a_run_that_forgets_too_much_is_saved_and_stops(recipe, corpus, text):
    watch = {"text": str(text), "every": 1, "limit": 1e-6, "tokens": 100, "action": "stop"}
    with pytest.raises(ValueError, match="above the LLM's .*; the run is saved, and goes on"):
        train(recipe(retention=watch, save_every=100, lr={"lora": 0.3}))
    (place,) = checkpoints(corpus / "run/checkpoints")
    assert place.name == f"step-{read_log(corpus / 'run')[-1]['step']:06d}"
    assert not (corpus / "run/model").exists()
    assert torch.isfinite(torch.tensor(read_log(corpus / "run")[-1]["retention"]["kl"]))
