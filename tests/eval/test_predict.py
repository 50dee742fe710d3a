import json

import pytest

from voicetextblender import audio
from voicetextblender.chat import Audio, Conversation, assistant, to_line, user
from voicetextblender.data.records import Records
from voicetextblender.eval.predict import (
    Measured,
    System,
    batched,
    choices,
    positions,
    predict,
    predictions_file,
    read_predictions,
)
from voicetextblender.eval.suite import EvalSet, write_items

SAID = {"en": ["Press six.", "Goodbye, now.", "Hello there"], "it": ["Premi sei.", "A domani"]}


class FakeModel:
    """Writes what is said but for its last word; may be stopped before a batch."""

    def __init__(self, stop_before: int | None = None):
        self.batches: list[list[str]] = []
        self.stop_before = stop_before

    def __call__(self, batch, max_new_tokens):
        if len(self.batches) == self.stop_before:
            raise KeyboardInterrupt
        self.batches.append([conversation.id for conversation in batch])
        assert all(conversation.messages[-1].role == "user" for conversation in batch)
        return [conversation.clips[0].text.rpartition(" ")[0] for conversation in batch]

    @property
    def asked(self):
        return sorted(id for batch in self.batches for id in batch)


def spoken(key: str, words: str, lang: str | None = "en") -> Conversation:
    clip = Audio(f"{key}.wav", text=words)
    return Conversation(key, (user("Write it down:", clip), assistant(words)), "asr", lang)


def write(path, conversations, **others) -> EvalSet:
    path.write_text("\n".join(map(to_line, conversations)), encoding="utf-8")
    return EvalSet(name=path.stem, path=str(path), speech="synthetic", scorer="wer", **others)


@pytest.fixture
def calls(tmp_path, sound) -> EvalSet:
    """Five clips in two languages, of 0.3 s and more."""
    talks = [spoken(f"{lang}-{n}", w, lang) for lang in SAID for n, w in enumerate(SAID[lang])]
    for n, talk in enumerate(talks):
        audio.save(tmp_path / talk.clips[0].audio, sound(0.3 + 0.1 * n, n))
    return write(tmp_path / "calls.jsonl", talks)


def ask(answer, of, tmp_path, model="a", budget=400, advance=None):
    write_items(of, tmp_path / "out")
    system = System("ours", model, "greedy", answer)
    return predict(system, of, tmp_path / "out", budget, advance)


def file_of(tmp_path, name="calls"):
    return predictions_file(tmp_path / "out", "ours", name)


def test_every_item_is_answered_and_written_in_its_place(calls, tmp_path):
    model = FakeModel()
    found = ask(model, calls, tmp_path)
    assert [p.id for p in found] == ["en-0", "en-1", "en-2", "it-0", "it-1"]
    assert read_predictions(file_of(tmp_path)) == found
    assert len(model.batches) == 3  # of 400 positions each, 128 of them for an answer
    first = json.loads(file_of(tmp_path).read_text().splitlines()[0])
    assert (first["answer"], first["model"]) == ("Press", "a")
    assert first["decoding"] == "greedy, at most 128 tokens"
    assert first["audio_s"] == pytest.approx(0.3)


def test_a_run_that_was_killed_goes_on_with_the_same_batches(calls, tmp_path):
    whole = FakeModel()
    unbroken = [(p.id, p.answer) for p in ask(whole, calls, tmp_path / "unbroken")]
    with pytest.raises(KeyboardInterrupt):
        ask(FakeModel(stop_before=2), calls, tmp_path)
    path = file_of(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + lines[-1][:20])  # killed while it wrote
    second = FakeModel()
    assert [(p.id, p.answer) for p in ask(second, calls, tmp_path)] == unbroken
    assert second.batches == whole.batches[1:]  # the second was cut off, so it is asked again whole
    assert len(read_predictions(path)) == 5


def test_answers_of_another_model_are_never_taken_over(calls, tmp_path):
    ask(FakeModel(), calls, tmp_path)
    again, other = FakeModel(), FakeModel()
    ask(again, calls, tmp_path)
    ask(other, calls, tmp_path, model="b")
    assert (len(again.asked), len(other.asked)) == (0, 5)


def test_a_changed_question_is_asked_again_and_a_corrected_reference_is_not(calls, tmp_path):
    ask(FakeModel(), calls, tmp_path)
    path = tmp_path / "calls.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace('"content": "Goodbye, now."', '"content": "Farewell, now."')
    lines[2] = lines[2].replace("Write it down", "Write down")
    path.write_text("\n".join(lines))
    again = FakeModel()
    ask(again, calls, tmp_path, budget=1)
    assert again.asked == ["en-2"]


def test_a_limit_takes_items_from_the_whole_file(calls, tmp_path):
    asked = FakeModel()
    ask(asked, calls.model_copy(update={"limit": 3}), tmp_path)
    assert asked.asked == ["en-0", "en-1", "it-0"]


def test_progress_is_told_after_each_batch(calls, tmp_path):
    told = []
    ask(FakeModel(), calls, tmp_path, advance=told.append)
    items = [*Records(calls.path)]
    assert len(told) == 4 and told[0] == 0
    assert sum(told) == pytest.approx(sum(map(positions, items)))


def test_batches_hold_items_of_like_length_within_the_budget():
    items = [Conversation(str(n), (user("x" * n), assistant("y"))) for n in (4, 400, 8, 4000)]
    assert [[i.id for i in b] for b in batched(items, 260, 50)] == [["4000"], ["400"], ["8", "4"]]


def test_an_item_without_a_reference_answer_is_refused(tmp_path):
    odd = Conversation("typed", (user("hello"),))
    with pytest.raises(ValueError, match="'typed' ends with a turn of the user.*must end with the"):
        ask(FakeModel(), write(tmp_path / "odd.jsonl", [odd]), tmp_path)


def test_an_id_that_is_there_twice_is_refused(tmp_path):
    twice = write(tmp_path / "twice.jsonl", [spoken("en-0", "a"), spoken("en-0", "b")])
    with pytest.raises(ValueError, match="conversation 'en-0' is there twice; give each"):
        ask(FakeModel(), twice, tmp_path)


def test_multiple_choice_takes_the_likeliest_and_keeps_the_log_probabilities(tmp_path):
    item = Conversation("q", (user("1 + 1?"), assistant("2")), meta={"choices": ["1", "2", "3"]})
    of = write(tmp_path / "sums.jsonl", [item]).model_copy(update={"scorer": "choice"})
    write_items(of, tmp_path / "out")
    measured = Measured([-3.0, -1.0, -2.0], "2")
    system = System("ours", "a", "greedy", FakeModel(), {"choice": lambda items: [measured]})
    (found,) = predict(system, of, tmp_path / "out", 400)
    assert (found.answer, found.scores) == ("2", (-3.0, -1.0, -2.0))
    assert found.decoding == "log-probability of each choice"
    with pytest.raises(ValueError, match="each choice, which 'whisper' does not tell; leave it"):
        predict(System("whisper", "a", "g", FakeModel()), of, tmp_path / "out", 400)


@pytest.mark.parametrize("options", [None, ["one"], "ab", ["", "b"], [1, 2]])
def test_choices_that_are_none_are_refused(options):
    item = Conversation("q", (user("1 + 1?"), assistant("2")), meta={"choices": options})
    with pytest.raises(ValueError, match="'q': meta.choices is .* needs a list of two texts"):
        choices(item)


def test_a_line_that_is_no_prediction_is_named(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": "a"}\n')
    with pytest.raises(ValueError, match="p.jsonl:1: no prediction; each line must be a JSON"):
        read_predictions(path)
