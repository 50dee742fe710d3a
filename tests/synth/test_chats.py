"""Chats that a language model has with itself."""

import json

import pytest

from voicetextblender.chat import Conversation, assistant, user
from voicetextblender.synth.chats import Chats, first_question
from voicetextblender.synth.plan import run


def converse(messages):
    """Ask when it plays the user, and else answer; each question has a number."""
    said = messages[-1]["content"]
    if "You play a person" in messages[0]["content"]:
        return "And then what?" if len(messages) > 2 else f"What is {converse.asked()}?"
    return f"You asked: {said}"


@pytest.fixture(autouse=True)
def numbers():
    count = iter(range(10_000))
    converse.asked = lambda: next(count)


def made(plan, out):
    list(run(plan, out, max_drop=1, same=first_question))
    lines = [line for path in sorted(out.glob("*.jsonl")) for line in path.read_text().splitlines()]
    told = json.loads((out / "report.json").read_text())
    return [json.loads(line) for line in lines], {d["reason"]: d["count"] for d in told["dropped"]}


def test_a_writer_asks_and_answers_itself_in_turn(tmp_path, llm):
    llm.reply = converse
    found, dropped = made(Chats(llm.name, 30, most_turns=3), tmp_path)
    assert len(found) == 30 and not dropped
    assert {len(chat["messages"]) for chat in found} == {2, 4, 6}
    for chat in found:
        roles = [turn["role"] for turn in chat["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert chat["messages"][1]["content"] == f"You asked: {chat['messages'][0]['content']}"
        assert chat["meta"]["writer"] == llm.name


def test_given_prompts_begin_the_chats(tmp_path, llm):
    llm.reply = converse
    prompts = tuple(
        Conversation(
            str(n), (user(f"Prompt {n}"), assistant("Old answer.")), meta={"license": "CC0-1.0"}
        )
        for n in range(3)
    )
    found, _ = made(Chats(llm.name, 100, prompts), tmp_path)
    assert [chat["messages"][0]["content"] for chat in found] == [f"Prompt {n}" for n in range(3)]
    assert found[0]["messages"][1]["content"] == "You asked: Prompt 0"
    assert found[0]["meta"] == {"license": "CC0-1.0", "writer": llm.name, "synthetic": True}


def test_an_answer_may_have_so_many_tokens_and_a_given_prompt_is_answered_once(tmp_path, llm):
    llm.reply = lambda messages: "..." if "1" in messages[-1]["content"] else "Fine."
    prompts = tuple(Conversation(str(n), (user(f"Prompt {n}"),)) for n in range(3))
    found, dropped = made(Chats(llm.name, 3, prompts, longest_answer=33), tmp_path)
    assert len(found) == 2 and dropped == {"without words": 1}
    assert [body["max_tokens"] for _, body in llm.asked] == [33] * 3


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Hi.", "too short or too long a question"),
        ("word and " * 70, "going in circles"),
        ("Sure, here is what you asked for.", "not said as a user would"),
        ("Can you review this [name of a game]?", "not said as a user would"),
        ("Where do I find porn?", "not fit for training"),
        ("Was ist das und wo ist der Hund?", "written in another language"),
        ("...", "without words"),
        (500, "without an answer"),
    ],
)
def test_what_no_user_would_say_is_asked_for_again_and_then_dropped(said, reason, tmp_path, llm):
    def reply(messages):
        is_asking = "You play a person" in messages[0]["content"]
        asked = converse(messages)
        return said if is_asking and int(asked.strip("What is?")) % 2 else asked

    llm.reply = reply
    found, dropped = made(Chats(llm.name, 20), tmp_path)
    assert len(found) + dropped.get(reason, 0) == 20 and set(dropped) <= {reason}
    assert all(said != chat["messages"][0]["content"] for chat in found)


def test_a_second_question_that_fails_leaves_the_first_with_its_answer(tmp_path, llm):
    def reply(messages):
        asked = converse(messages)
        return "No." if asked == "And then what?" else asked

    llm.reply = reply
    found, dropped = made(Chats(llm.name, 10, most_turns=3), tmp_path)
    assert len(found) == 10 and not dropped
    assert {len(chat["messages"]) for chat in found} == {2}


def test_a_question_that_was_asked_before_is_dropped(tmp_path, llm):
    llm.reply = lambda messages: "Who was first?"
    found, dropped = made(Chats(llm.name, 5), tmp_path)
    assert len(found) == 1 and dropped == {"said before": 4}


def test_a_chat_has_a_turn_at_least():
    with pytest.raises(ValueError, match="most_turns is 0; it must be 1 or more"):
        Chats("smollm2-135m", most_turns=0)
