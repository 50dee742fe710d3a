"""Writers: a local model, and a service that answers as services do."""

import json
import time

import pytest
from pydantic import BaseModel

from voicetextblender.chat import assistant, system, user
from voicetextblender.prompt import Prompter
from voicetextblender.synth import remote
from voicetextblender.synth.writers import Failed, Sampling, load_writer, write_json

HELLO = (user("Hello"),)
BRIEF = Sampling(temperature=1.0, max_tokens=12)


class Fact(BaseModel):
    name: str
    year: int


@pytest.fixture
def local(parts):
    load_writer.cache_clear()
    return load_writer(str(parts / "llama"))


def ends_at_random(writer):
    """Let half of the tokens end a turn: a random model seldom ends one."""
    vocabulary = range(writer._tokenizer.vocab_size)
    writer._prompter.stop_ids = (writer._tokenizer.eos_token_id, *list(vocabulary)[::6])


def test_a_local_model_writes_the_same_for_the_same_seed_and_else_something_else(local):
    ends_at_random(local)
    chats = [HELLO, (user("system assistant user"),), HELLO]
    first = local.write(chats, [1, 2, 3], BRIEF)
    assert first == local.write(chats, [1, 2, 3], BRIEF)
    assert first[0] != first[2]
    assert first != local.write(chats, [4, 5, 6], BRIEF)


def test_without_temperature_the_seed_does_not_matter(local):
    ends_at_random(local)
    greedy = Sampling(temperature=0, max_tokens=12)
    assert local.write([HELLO], [1], greedy) == local.write([HELLO], [2], greedy)


def test_a_turn_that_does_not_end_has_failed(local):
    (turn,) = local.write([HELLO], [0], Sampling(max_tokens=2))
    assert isinstance(turn, Failed) and turn.reason == "longer than is allowed"


def test_behind_an_answer_the_prompt_opens_the_users_turn(local):
    prompter = local._prompter
    chat = (system("Be brief."), user("Hello"), assistant("Hi."))
    asked, answered = local._encode(chat), local._encode(chat[:-1])
    assert isinstance(prompter, Prompter)
    text = prompter.tokenizer.decode(asked)
    assert text.endswith("<|im_start|>user\n") and "Hi.<|im_end|>" in text
    assert prompter.tokenizer.decode(answered).endswith("<|im_start|>assistant\n")


def test_a_service_is_asked_for_each_chat_with_its_seed_and_the_schema(llm):
    llm.reply = lambda messages: '{"name": "Ada", "year": 1815}'
    writer = load_writer(llm.name)
    facts = write_json(writer, [HELLO, (system("Be brief."), *HELLO)], [7, 8], Fact, BRIEF)
    assert facts == [Fact(name="Ada", year=1815)] * 2
    (path, body), _ = llm.asked
    assert path == "/v1/chat/completions" and body["model"] == "tiny"
    assert body["temperature"] == 1.0 and body["max_tokens"] == 12
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["name", "year"]
    assert len({body["seed"] for _, body in llm.asked}) == 2


def test_a_service_plays_the_user_with_the_turns_swapped(llm):
    llm.reply = lambda messages: "And you?"
    chat = (user("How are you?"), assistant("Fine."))
    assert load_writer(llm.name).write([chat], [0]) == ["And you?"]
    ((_, body),) = llm.asked
    assert [(m["role"], m["content"]) for m in body["messages"][2:]] == [
        ("assistant", "How are you?"),
        ("user", "Fine."),
    ]


def test_json_that_is_none_is_asked_for_again_and_then_counted(llm):
    replies = iter(["no idea", '{"name": 3}', 'Sure! {"name": "Ada", "year": 1815} Or: {}'])
    llm.reply = lambda messages: next(replies)
    assert write_json(load_writer(llm.name), [HELLO], [0], Fact) == [Fact(name="Ada", year=1815)]
    llm.reply = lambda messages: "nonsense"
    (failed,) = write_json(load_writer(llm.name), [HELLO], [0], Fact)
    assert failed == Failed("answered with other JSON than asked for", "nonsense")
    assert len(llm.asked) == 3 + 3


def test_errors_that_may_pass_are_tried_again_and_others_are_not(llm):
    replies = iter([500, 429, "At last.", 400])
    llm.reply = lambda messages: next(replies)
    assert load_writer(llm.name).write([HELLO], [0]) == ["At last."]
    (failed,) = load_writer(llm.name).write([HELLO], [0])
    assert failed.reason == "refused by the service" and "answered 400" in failed.why
    assert len(llm.asked) == 4


def test_one_chat_without_an_answer_is_counted_and_all_of_them_end_the_run(llm):
    llm.reply = lambda m: 500 if m[0]["content"] == "Bad" else "Fine."
    turns = load_writer(llm.name).write([(user("Bad"),), HELLO], [0, 1])
    assert turns[1] == "Fine." and turns[0].reason == "without an answer"
    with pytest.raises(ValueError, match="completions: answered 500"):
        load_writer(llm.name).write([(user("Bad"),)] * 2, [0, 1])


def test_a_service_that_takes_too_long_is_no_answer(llm, monkeypatch):
    monkeypatch.setattr(remote, "_TIMEOUT_S", 0.05)
    llm.reply = lambda messages: time.sleep(0.2) or "Late."
    (failed,) = load_writer(llm.name).write([HELLO], [0])
    assert failed.reason == "without an answer" and "no answer (timed out)" in failed.why


@pytest.mark.parametrize("answer", [b"<html>", b"{}", b'{"choices": [{"message": {}}]}'])
def test_an_answer_that_is_no_chat_completion_is_counted(answer, service):
    service.answers[:] = [(200, answer)]
    (failed,) = load_writer(f"{service.url}#tiny").write([HELLO], [0])
    assert failed.reason == "answered with no chat completion"


def test_an_answer_that_was_cut_is_counted(service):
    cut = {"choices": [{"message": {"content": "On and"}, "finish_reason": "length"}]}
    service.answers[:] = [(200, json.dumps(cut).encode())]
    (failed,) = load_writer(f"{service.url}#tiny").write([HELLO], [0])
    assert failed == Failed("longer than is allowed", "On and")


def test_an_unknown_writer_is_refused():
    with pytest.raises(ValueError, match="model part 'smollm3' is not known"):
        load_writer("smollm3")
    with pytest.raises(ValueError, match="a service with the model behind '#'"):
        load_writer("http://host/v1")
