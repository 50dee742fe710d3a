import pytest
import torch
from transformers import AutoModelForCausalLM

from voicetextblender.chat import Audio, Conversation, user
from voicetextblender.model import generate as generation
from voicetextblender.model.generate import Chunk, Decoding, answers, generate

CLIP = Audio("a.wav")


@pytest.fixture(scope="module")
def prompts(processor, sound):
    talks = [
        (Conversation("a", (user("Say:", CLIP),)), [sound(0.4)]),
        (Conversation("b", (user("What is it? " * 4),)), []),
        (Conversation("c", (user(CLIP, "and", CLIP),)), [sound(0.2, 1), sound(0.7, 2)]),
    ]
    return [processor.encode(talk, clips, purpose="answer") for talk, clips in talks]


@pytest.mark.parametrize("llm", ["llama", "qwen2", "gemma", "gemma2"])
def test_a_batch_of_greedy_answers_is_each_answer_alone(llm, build, processor, prompts):
    model, decoding = build(llm), Decoding(max_new_tokens=24)
    together = answers(model, processor, prompts, decoding)
    assert together == [answers(model, processor, [prompt], decoding)[0] for prompt in prompts]
    assert len(set(together)) > 1


@pytest.mark.parametrize("llm", ["llama", "qwen2", "gemma", "gemma2"])
def test_with_the_voice_off_an_answer_is_the_one_that_transformers_generates(
    llm, build, processor, prompts, parts
):
    """For Gemma 2 the answer outgrows the sliding window of 16."""
    model = build(llm)
    base = AutoModelForCausalLM.from_pretrained(parts / llm).eval()
    ids = torch.tensor([prompts[1].ids])
    theirs = base.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=24,
        do_sample=False,
        eos_token_id=list(processor.prompter.stop_ids),
    )[0, ids.shape[1] :]
    with model.voice_off():
        (ours,) = answers(model, processor, prompts[1:2], Decoding(max_new_tokens=24))
    assert ours == processor.tokenizer.decode(theirs, skip_special_tokens=True)


def test_chunks_join_to_the_whole_and_the_last_says_why(build, processor, prompts):
    chunks = list(generate(build(), processor, prompts, Decoding(max_new_tokens=12)))
    for row in range(3):
        own = [chunk for chunk in chunks if chunk.row == row]
        assert [chunk.finished is not None for chunk in own] == [False] * (len(own) - 1) + [True]
        assert len(own) <= 12
    texts = ["".join(c.text for c in chunks if c.row == row) for row in range(3)]
    assert texts == answers(build(), processor, prompts, Decoding(max_new_tokens=12))


@pytest.fixture
def scripted(monkeypatch, processor):
    """Let the answers be these tokens, whatever the model says."""

    def script(*rows):
        written = {row: iter(ids) for row, ids in enumerate(rows)}
        monkeypatch.setattr(
            generation, "_choose", lambda _, growing, __: [next(written[a.row]) for a in growing]
        )

    return script


def test_a_character_of_many_bytes_is_given_out_whole(scripted, build, processor, prompts):
    text = "na\u00efve \u20ac \U0001f44d\U0001f3fd \u1112\u1161\u11ab"
    ids = processor.tokenizer(text).input_ids
    assert len(ids) > len(text)
    scripted([*ids, processor.tokenizer.eos_token_id])
    chunks = list(generate(build(), processor, prompts[:1], Decoding(max_new_tokens=99)))
    assert not any("\ufffd" in chunk.text for chunk in chunks)
    assert "".join(chunk.text for chunk in chunks) == text
    assert chunks[-1] == Chunk(0, "", "stop")


def test_an_answer_cut_within_a_character_ends_with_what_there_is(
    scripted, build, processor, prompts
):
    scripted(processor.tokenizer("ab\U0001f44d").input_ids)
    chunks = list(generate(build(), processor, prompts[:1], Decoding(max_new_tokens=4)))
    assert [chunk.text for chunk in chunks][:2] == ["a", "b"]
    assert chunks[-1].finished == "length" and set(chunks[-1].text) == {"\ufffd"}


def test_a_row_leaves_when_it_ends_and_the_others_go_on(scripted, build, processor, prompts):
    a, b = processor.tokenizer("ab").input_ids
    stop = processor.tokenizer.eos_token_id
    scripted([a, stop], [b, a, b, a, b], [a, b, stop])
    chunks = list(generate(build(), processor, prompts, Decoding(max_new_tokens=5)))
    finished = {chunk.row: chunk.finished for chunk in chunks if chunk.finished}
    assert finished == {0: "stop", 1: "length", 2: "stop"}
    texts = ["".join(c.text for c in chunks if c.row == row) for row in range(3)]
    assert texts == ["a", "babab", "ab"]


def test_control_tokens_are_not_part_of_the_text(scripted, build, processor, prompts):
    (a,) = processor.tokenizer("a").input_ids
    start = processor.tokenizer.convert_tokens_to_ids("<|im_start|>")
    scripted([start, a, processor.tokenizer.eos_token_id])
    (text,) = answers(build(), processor, prompts[:1])
    assert text == "a"


def test_a_drawn_answer_follows_from_its_seed_alone(build, processor, prompts):
    model = build()
    warm = Decoding(max_new_tokens=12, temperature=1.5, top_p=0.95, seed=3)
    first, _, third = answers(model, processor, prompts, warm)
    assert answers(model, processor, prompts, warm)[0] == first
    assert answers(model, processor, prompts[:1], warm) == [first]
    assert answers(model, processor, [prompts[1], prompts[1], prompts[2]], warm)[2] == third
    other = Decoding(max_new_tokens=12, temperature=1.5, top_p=0.95, seed=4)
    assert answers(model, processor, prompts[:1], other) != [first]


def test_the_smallest_top_p_is_greedy(build, processor, prompts):
    model = build()
    narrow = Decoding(max_new_tokens=12, temperature=1.0, top_p=1e-6)
    assert answers(model, processor, prompts, narrow) == answers(
        model, processor, prompts, Decoding(max_new_tokens=12)
    )


def test_draws_are_among_the_likeliest_that_have_top_p_together():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    seen = set()
    for seed in range(60):
        decoding = Decoding(temperature=1.0, top_p=0.75, seed=seed)
        seen |= set(generation._choose(logits, [generation._Answer(0, decoding)], decoding))
    assert seen == {0, 1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be 1 or more"),
        ({"temperature": -1.0}, "temperature is -1.0; it must be 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0; it must be above 0 and at most 1"),
    ],
)
def test_a_decoding_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Decoding(**settings)


def test_no_prompts_have_no_answers(build, processor):
    assert answers(build(), processor, []) == []
