import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from voicetextblender.chat import Audio, Conversation, user
from voicetextblender.model import generate as generation
from voicetextblender.model.constrain import BEGINS, GOES_ON, Names, check_schema
from voicetextblender.model.decode import ModuleDecoder
from voicetextblender.model.generate import Chunk, Decoding, Generation, answers, generate

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
            generation, "_choose", lambda _, growing: [next(written[a.row]) for a in growing]
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


@pytest.mark.parametrize("how", [(1.0, 1e-6), (1.0, 5e-324), (5e-324, 1.0), (1e-30, 0.5)])
def test_the_smallest_temperature_or_top_p_is_greedy(build, processor, prompts, how):
    model = build()
    narrow = Decoding(12, *how)
    assert answers(model, processor, prompts, narrow) == answers(
        model, processor, prompts, Decoding(max_new_tokens=12)
    )


def test_draws_are_among_the_likeliest_that_have_top_p_together():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    seen = set()
    for seed in range(60):
        decoding = Decoding(temperature=1.0, top_p=0.75, seed=seed)
        seen |= set(generation._choose(logits, [generation._Answer(0, decoding)]))
    assert seen == {0, 1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be 1 or more"),
        ({"temperature": -1.0}, "temperature is -1.0; it must be 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0; it must be above 0 and at most 1"),
        ({"stop": ("",)}, "stop holds an empty text"),
    ],
)
def test_a_decoding_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Decoding(**settings)


def test_no_prompts_have_no_answers(build, processor):
    assert answers(build(), processor, []) == []


def test_an_answer_ends_before_a_stop_text_even_across_tokens(scripted, build, processor, prompts):
    ids = processor.tokenizer("one two three").input_ids
    scripted(ids)
    decoding = Decoding(max_new_tokens=len(ids), stop=("twice", "o th"))
    chunks = list(generate(build(), processor, prompts[:1], decoding))
    assert "".join(chunk.text for chunk in chunks) == "one tw"
    assert chunks[-1].finished == "stop"


def test_what_only_looks_like_a_stop_text_is_given_out(scripted, build, processor, prompts):
    ids = processor.tokenizer("one two").input_ids
    scripted(ids)
    decoding = Decoding(max_new_tokens=len(ids), stop=("twice",))
    assert answers(build(), processor, prompts[:1], decoding) == ["one two"]


def test_log_probabilities_are_those_of_the_model(build, processor, prompts):
    model = build()
    decoding = Decoding(max_new_tokens=3, num_logprobs=2)
    tokens = [c.token for c in generate(model, processor, prompts[1:2], decoding)]
    logits = model(torch.tensor([prompts[1].ids])).logits[0, -1]
    best = logits.log_softmax(-1).topk(2)
    assert tokens[0].logprob == pytest.approx(best.values[0].item(), abs=1e-4)
    assert [lp for _, lp in tokens[0].likeliest] == pytest.approx(best.values.tolist(), abs=1e-4)
    assert (
        tokens[0].likeliest[0][0] == tokens[0].text == processor.tokenizer.decode(best.indices[0])
    )


def test_an_answer_follows_its_json_schema_whatever_the_model_would_say(build, processor, prompts):
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["x", "y"]}, "b": {"type": "boolean"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    for temperature in (0.0, 2.0):
        decoding = Decoding(64, temperature, schema=json.dumps(schema))
        for text in answers(build(), processor, prompts, decoding):
            assert json.loads(text)["a"] in ("x", "y")


@pytest.mark.parametrize(
    ("schema", "message"),
    [("{", "the JSON schema is no JSON"), ('{"type": "oops"}', "the JSON schema cannot be used")],
)
def test_a_schema_that_cannot_be_followed_is_refused(schema, message):
    with pytest.raises(ValueError, match=message):
        check_schema(schema)


def test_a_listed_name_wins_where_it_is_nearly_as_likely_and_nowhere_else(processor):
    first, second = processor.tokenizer("ab").input_ids
    names = Names(processor, ["ab"])
    near, far = torch.zeros(400), torch.zeros(400)
    near[7], far[7] = BEGINS / 2, 2 * GOES_ON
    assert names.favour(near).argmax() == first and names.favour(far).argmax() == 7
    near[7] = GOES_ON / 2
    assert names.favour(near).argmax() == 7
    names.accept(first)
    assert names.favour(near).argmax() == second
    names.accept(7)
    assert names.favour(near).argmax() == 7


def test_listed_names_change_an_answer_and_nobody_elses(build, processor, prompts):
    model = build()
    plain = Decoding(max_new_tokens=24)
    favoured = Decoding(max_new_tokens=24, names=tuple("abcdefghij"))
    generation = Generation(model, processor, ModuleDecoder(model))
    generation.join(0, prompts[1], plain)
    generation.join(1, prompts[1], favoured)
    texts = ["", ""]
    while generation.answers:
        for chunk in generation.step():
            texts[chunk.row] += chunk.text
    assert texts == [answers(model, processor, prompts[1:2], d)[0] for d in (plain, favoured)]
    assert texts[0] != texts[1]


def test_an_iteration_that_was_left_early_spoils_nothing(build, processor, prompts):
    model = build()
    decoder = ModuleDecoder(model)
    next(generate(model, processor, prompts, Decoding(24), decoder))
    assert answers(model, processor, prompts, Decoding(24), decoder) == answers(
        model, processor, prompts, Decoding(24)
    )
