import itertools
import math

import pytest
import torch

from voicetextblender.chat import Audio, Conversation, user
from voicetextblender.model.decode import LeanDecoder
from voicetextblender.model.generate import Decoding, answers
from voicetextblender.model.prefix import HeardPrefix

T, V, BLANK, STOP = 5, 5, 3, 4


@pytest.fixture
def log_probs():
    torch.manual_seed(0)
    return (2 * torch.randn(T, V)).log_softmax(-1)


def prefix_of(log_probs):
    return HeardPrefix(lambda tokens: log_probs[:, tokens], torch.arange(2), BLANK, [STOP])


def collapse(path):
    return tuple(k for k, _ in itertools.groupby(path) if k != BLANK)


def paths(log_probs):
    """Yield every path, what it says, and its probability."""
    for path in itertools.product(range(V), repeat=T):
        yield collapse(path), math.exp(sum(log_probs[t, k].item() for t, k in enumerate(path)))


@pytest.mark.parametrize("said", [(), (0,), (0, 1), (1, 1), (2, 0, 2), (0, 0, 1)])
def test_prefixes_score_as_the_sum_over_all_ways_to_hear_them(log_probs, said):
    heard = prefix_of(log_probs)
    for token in said:
        heard.accept(token)
    every = list(paths(log_probs))
    begins = sum(p for text, p in every if text[: len(said)] == said)
    assert heard.score == pytest.approx(math.log(begins), abs=1e-4)
    weighed = heard.weigh(torch.zeros(V), weight=1.0)
    for token in range(3):
        longer = sum(p for text, p in every if text[: len(said) + 1] == (*said, token))
        expected = math.log(longer / begins) if longer else -1e4
        assert weighed[token].item() == pytest.approx(expected, abs=1e-3)
    whole = sum(p for text, p in every if text == said)
    assert weighed[STOP].item() == pytest.approx(math.log(whole / begins), abs=1e-3)


def test_without_weight_it_is_the_llm_that_chooses_among_the_candidates(log_probs):
    logits = torch.randn(V)
    weighed = prefix_of(log_probs).weigh(logits, weight=0.0)
    kept = weighed.isfinite()
    torch.testing.assert_close(weighed[kept], logits.log_softmax(-1)[kept])


def test_a_transcript_that_the_clip_has_no_room_for_is_weighed_without_nan(log_probs):
    heard = prefix_of(log_probs)
    for _ in range(T):
        heard.accept(0)  # a blank must part each from the next, and there is no time for that
    weighed = heard.weigh(torch.zeros(V), weight=0.5)
    assert weighed[[0, 1, 2, STOP]].isfinite().all()
    assert weighed[BLANK] == float("-inf")


def test_a_draft_is_what_is_likeliest_behind_the_last_token(log_probs):
    sure = torch.full((6, V), -20.0)
    for t, token in enumerate((0, 0, BLANK, 0, 1, STOP)):
        sure[t, token] = -1e-3
    best = sure.argmax(1).tolist()
    heard = HeardPrefix(lambda tokens: sure[:, tokens], torch.arange(2), BLANK, [STOP], best)
    assert heard.draft(9) == [0, 0, 1] and heard.draft(2) == [0, 0]
    heard.accept(0)
    assert heard.draft(9) == [0, 1]
    heard.accept(0)
    assert heard.draft(9) == [1]
    heard.accept(1)
    assert heard.draft(9) == []


@pytest.mark.parametrize("chance", [0, 1])
def test_drafts_change_no_transcript_only_the_number_of_steps(chance, build, processor, sound):
    model = build()
    asked = Conversation("a", (user("Say:", Audio("a")),))
    prompts = [processor.encode(asked, [sound(0.4 + n)], purpose="answer") for n in range(3)]
    how = [Decoding(20, temperature=chance, ctc_weight=0.7, seed=n) for n in range(3)]
    alone = answers(model, processor, prompts, how)
    decoder, steps = LeanDecoder(model), []
    step = decoder.step
    decoder.step = lambda tokens: (steps.append(tokens.shape), step(tokens))[1]
    assert answers(model, processor, prompts, how, decoder) == alone
    assert any(num > 1 for _, num in steps)
    if not chance:
        assert len(steps) < max(len(processor.tokenizer(text).input_ids) for text in alone)


def test_a_saved_model_decodes_transcripts_as_it_was_trained_to(build, processor, tmp_path):
    model = build()
    model.config.ctc_decoding = 0.4
    model.save_pretrained(tmp_path)
    assert type(model).from_pretrained(tmp_path).config.ctc_decoding == 0.4


def test_a_weight_out_of_range_and_a_prompt_without_one_clip_are_refused(build, processor, sound):
    with pytest.raises(ValueError, match=r"ctc_weight is 1.0; it must be 0 \(LLM alone\) to 1"):
        Decoding(ctc_weight=1.0)
    asked = Conversation("a", (user("?", Audio("a"), Audio("b")),))
    two = processor.encode(asked, [sound(0.5), sound(0.4)], purpose="answer")
    with pytest.raises(ValueError, match="transcript of one clip, and here are 2; set it to 0"):
        answers(build(), processor, [two], Decoding(4, ctc_weight=0.5))
