"""Questions about recordings, asked by a language model that is not always right."""

import json

import pytest

from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.data.records import Records
from voicetextblender.synth import quality
from voicetextblender.synth.plan import run
from voicetextblender.synth.sqa import KINDS, Sqa, question_about

ANIMALS = ("horse", "tiger", "camel", "zebra", "goose", "whale")
PLACES = ("stable", "jungle", "desert", "savanna", "meadow", "harbour")
WORDS = (
    " It was a fine and quiet evening, so everybody stayed outside until the sun went down behind "
    "the hills."
)


@pytest.fixture(autouse=True)
def words_alone(monkeypatch):
    def missing():
        raise ValueError("not installed")

    monkeypatch.setattr(quality, "_embeddings", missing)


def clip(n):
    said = f"The {ANIMALS[n]} was sleeping near the {PLACES[n]}." + WORDS
    turns = (user("Write:", Audio(f"{n}.wav", duration=4.0, text=said)), assistant(said))
    return Conversation(f"clip-{n}", turns, "asr", "en", {"voice": "hibari"})


CLIPS = tuple(clip(n) for n in range(6))


def clever(messages):
    """Answer as a good model would; it knows the sentence that the clips are made of."""
    asked = messages[-1]["content"]
    n = next(n for n, animal in enumerate(ANIMALS) if animal in asked)
    if "as JSON" not in asked:
        if "Question: Was" in asked:
            return "No, it was not."
        if asked.startswith("Text: "):
            return f"Near the {PLACES[n]}."
        ending = "and everybody stayed outside until the sun went down."
        return f"The {ANIMALS[n]} was sleeping near the {PLACES[n]}, {ending}"
    if "yes" in asked.partition("Text:")[0] or "answered with no," in asked:
        word = "Yes" if "begins with Yes" in asked else "No"
        return json.dumps(
            {"question": f"Was the {ANIMALS[n]} awake?", "answer": f"{word}, it was."}
        )
    pair = {"question": f"Where did the {ANIMALS[n]} sleep?", "answer": f"Near the {PLACES[n]}."}
    return json.dumps(pair)


def made(plan, out, max_drop=1.0):
    list(run(plan, out, max_drop=max_drop, same=question_about))
    records = Records(f"{out}/*.jsonl")
    told = json.loads((out / "report.json").read_text())
    return [records[n] for n in range(len(records))], told


def reasons(told):
    return {(drop["by"], drop["reason"]) for drop in told["dropped"]}


def test_every_kind_of_question_is_made_and_refers_to_the_clip_where_it_lies(tmp_path, llm):
    llm.reply = clever
    found, told = made(Sqa(CLIPS, llm.name, per_clip=6), tmp_path)
    kinds = [conversation.meta["kind"] for conversation in found]
    assert set(kinds) == set(KINDS)
    by_clip = {(c.meta["made_from"], c.meta["kind"]) for c in found}
    assert len(by_clip) == len(found)  # the kinds of one clip's questions differ
    assert told["made"] == {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    for conversation in found:
        (audio,) = conversation.clips
        n = int(conversation.meta["made_from"][-1])
        assert audio.audio == str(tmp_path / f"{n}.wav") and ANIMALS[n] in audio.text
        question, answer = (turn.text for turn in conversation.messages)
        match conversation.meta["kind"]:
            case "factual":
                assert (question, answer) == (
                    f"Where did the {ANIMALS[n]} sleep?",
                    f"Near the {PLACES[n]}.",
                )
            case "format":
                assert question.startswith(f"Where did the {ANIMALS[n]} sleep? ")
                assert PLACES[n] in answer.lower() and answer != f"Near the {PLACES[n]}."
            case "unanswerable":
                assert ANIMALS[n] not in question and PLACES[n] not in answer
            case "yes-no":
                assert answer == "No, it was."
    # Whoever says yes is asked again, and says no; and this model infers what it knows for a fact.
    again = {(kind, "said before") for kind in ("factual", "inferential")}
    assert reasons(told) <= {("yes-no", "answered otherwise when asked again")} | again


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        ({"question": "Where did the {0} sleep?", "answer": ""}, "without a question or an answer"),
        ({"question": "Where did the {0} sleep", "answer": "Here."}, "without a question mark"),
        ({"question": "Is it in Paris?", "answer": "It is."}, "about something else"),
        (
            {"question": "Where did the {0} sleep?", "answer": "In Paris, France, in a hotel."},
            "answered with what is not said",
        ),
        (
            {"question": "Where did the {0} sleep?", "answer": "The {0} was sleeping." + WORDS},
            "a copy of what is said",
        ),
        (
            {"question": "Where did the {0} sleep?", "answer": "Under the sun, outside."},
            "answered otherwise when asked again",
        ),
        (
            {"question": "Wo hat das {0} geschlafen?", "answer": "Das ist nicht von hier, und."},
            "written in another language",
        ),
    ],
)
def test_a_bad_pair_is_asked_for_again_and_then_dropped_with_its_reason(
    pair, reason, tmp_path, llm
):
    def reply(messages):
        asked = messages[-1]["content"]
        if "as JSON" not in asked:
            return clever(messages)
        animal = next(animal for animal in ANIMALS if animal in asked)
        return json.dumps({key: text.format(animal) for key, text in pair.items()})

    llm.reply = reply
    list(run(Sqa(CLIPS, llm.name, kinds=("factual",)), tmp_path, max_drop=1))
    told = json.loads((tmp_path / "report.json").read_text())
    assert reasons(told) == {("factual", reason)} and len(told["each"]) == 6
    assert not list(tmp_path.glob("*.jsonl"))


def test_the_same_question_about_the_same_clip_is_made_once(tmp_path, llm):
    llm.reply = clever
    found, told = made(Sqa(CLIPS, llm.name, kinds=("factual", "inferential"), per_clip=2), tmp_path)
    assert len(found) == 6 and {reason for _, reason in reasons(told)} == {"said before"}


def test_nonsense_is_counted_and_too_much_of_it_ends_the_run(tmp_path, llm):
    llm.reply = lambda messages: "Lorem ipsum."
    with pytest.raises(ValueError, match="6 of 6 items were dropped.*other JSON than asked for"):
        list(run(Sqa(CLIPS, llm.name, kinds=("factual",)), tmp_path, max_drop=0.5))
    assert (tmp_path / "report.json").is_file()


def test_an_answer_that_could_be_given_after_all_is_no_unanswerable_question(tmp_path, llm):
    reply = json.dumps({"question": "Was the evening quiet outside?", "answer": "Yes."})
    llm.reply = lambda messages: reply
    list(run(Sqa(CLIPS, llm.name, kinds=("unanswerable",)), tmp_path, max_drop=1))
    told = json.loads((tmp_path / "report.json").read_text())
    assert reasons(told) == {("unanswerable", "perhaps to be answered after all")}


def test_distilled_answers_are_those_of_the_model_to_be_trained(tmp_path, llm):
    llm.reply = lambda messages: "Asleep: " + messages[-1]["content"][-30:]
    plan = Sqa(CLIPS, "smollm2-135m", kinds=("distilled",), distil=llm.name)
    found, _ = made(plan, tmp_path)
    assert {c.messages[-1].text for c in found} == {"Asleep: " + WORDS[-30:]}
    assert {c.meta["writer"] for c in found} == {llm.name}
    prompts = [body["messages"][-1]["content"] for _, body in llm.asked]
    for conversation in found:
        twin = " ".join(part.text for part in conversation.typed().messages[0].parts)
        assert any(sorted(twin.split()) == sorted(prompt.split()) for prompt in prompts)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kinds": ("funny",)}, "kind 'funny' is unknown; use factual, inferential"),
        ({"kinds": ("summary",), "per_clip": 2}, "per_clip is 2; it must be 1 to 1"),
        ({"distil": "smollm2-135m"}, "the kind 'distilled' and distil, its writer, need each"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Sqa(CLIPS, "smollm2-135m", **wrong)
