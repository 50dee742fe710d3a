import json
from dataclasses import replace

import pytest

from voicetextblender import audio
from voicetextblender.chat import Audio, Conversation, assistant, to_line, user
from voicetextblender.eval.asr import (
    EvalSet,
    describe,
    evaluate_asr,
    read_predictions,
    read_results,
    transcribe_sets,
    whisper_asr,
)
from voicetextblender.model.generate import Decoding, answers

SAID = {"en": ["Press six.", "Goodbye, now.", "Hello there"], "it": ["Premi sei.", "A domani"]}


class FakeTranscriber:
    """Writes what is said but for its last word; may be stopped before a batch."""

    def __init__(self, stop_before: int | None = None):
        self.asked: list[str] = []
        self.batches = 0
        self.stop_before = stop_before

    def __call__(self, batch):
        if self.batches == self.stop_before:
            raise KeyboardInterrupt
        self.batches += 1
        self.asked += [conversation.id for conversation in batch]
        assert all(conversation.messages[-1].role == "user" for conversation in batch)
        return [conversation.clips[0].text.rpartition(" ")[0] for conversation in batch]


def spoken(key: str, words: str, lang: str | None = "en") -> Conversation:
    clip = Audio(f"{key}.wav", text=words)
    return Conversation(key, (user("Write it down:", clip), assistant(words)), "asr", lang)


def write(path, conversations) -> EvalSet:
    path.write_text("\n".join(map(to_line, conversations)), encoding="utf-8")
    return EvalSet(path.stem, path, "synthetic")


@pytest.fixture
def calls(tmp_path, sound) -> EvalSet:
    """Five clips in two languages, of 0.3 s and more."""
    talks = [spoken(f"{lang}-{n}", w, lang) for lang in SAID for n, w in enumerate(SAID[lang])]
    for n, talk in enumerate(talks):
        audio.save(tmp_path / talk.clips[0].audio, sound(0.3 + 0.1 * n, n))
    return write(tmp_path / "calls.jsonl", talks)


def run(transcribe, calls, tmp_path, model="a", batch_size=2):
    return transcribe_sets(transcribe, [calls], tmp_path / "out/x", model, "greedy", batch_size)


def test_every_clip_is_transcribed_and_scored_by_language(calls, tmp_path):
    result = run(FakeTranscriber(), calls, tmp_path)["calls"]
    assert result.overall.num_clips == 5
    assert result.overall.wer == 5 / 10
    assert {lang: score.num_clips for lang, score in result.by_lang.items()} == {"en": 3, "it": 2}
    assert result.overall.audio_s == pytest.approx(2.5)
    assert (result.speech, result.seen, result.model) == ("synthetic", False, "a")


def test_predictions_say_what_was_said_and_where_to_hear_it(calls, tmp_path):
    run(FakeTranscriber(), calls, tmp_path)
    first = json.loads((tmp_path / "out/x/calls.jsonl").read_text().splitlines()[0])
    assert (first["id"], first["lang"], first["source"]) == ("en-0", "en", "calls")
    assert (first["reference"], first["hypothesis"]) == ("Press six.", "Press")
    assert (tmp_path / "out/x" / first["audio"]).samefile(tmp_path / "en-0.wav")
    assert first["duration"] == pytest.approx(0.3)


def test_scores_are_read_back_as_they_were(calls, tmp_path):
    results = run(FakeTranscriber(), calls, tmp_path)
    assert read_results(tmp_path / "out/x.json") == results
    assert read_results(tmp_path / "nothing.json") == {}


def test_a_run_that_was_stopped_goes_on_behind_its_last_prediction(calls, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(FakeTranscriber(stop_before=1), calls, tmp_path)
    path = tmp_path / "out/x/calls.jsonl"
    assert [p.id for p in read_predictions(path)] == ["en-0", "en-1"]
    path.write_text(path.read_text() + '{"id": "en-2", "hyp')  # killed while it wrote
    second = FakeTranscriber()
    run(second, calls, tmp_path)
    assert second.asked == ["en-2", "it-0", "it-1"]
    assert [p.id for p in read_predictions(path)] == ["en-0", "en-1", *second.asked]


def test_predictions_of_another_model_are_never_taken_over(calls, tmp_path):
    run(FakeTranscriber(), calls, tmp_path)
    again, other = FakeTranscriber(), FakeTranscriber()
    run(again, calls, tmp_path)
    run(other, calls, tmp_path, model="b")
    assert (len(again.asked), len(other.asked)) == (0, 5)


def test_a_corrected_reference_is_heard_again(calls, tmp_path):
    run(FakeTranscriber(), calls, tmp_path)
    calls.path.write_text(calls.path.read_text().replace("Goodbye", "Farewell"))
    again = FakeTranscriber()
    run(again, calls, tmp_path)
    assert again.asked == ["en-1"]


def test_a_limit_takes_clips_from_the_whole_file(calls, tmp_path):
    asked = FakeTranscriber()
    run(asked, replace(calls, limit=3), tmp_path)
    assert asked.asked == ["en-0", "en-1", "it-0"]


def test_progress_is_told_after_each_batch(calls, tmp_path):
    told = []
    transcribe_sets(
        FakeTranscriber(), [calls], tmp_path / "x", "a", "g", 2, lambda *a: told.append(a)
    )
    assert told == [("calls", 2, 5), ("calls", 4, 5), ("calls", 5, 5)]


def test_a_conversation_without_one_clip_and_an_answer_is_refused(tmp_path):
    odd = Conversation("typed", (user("hello"), assistant("hello")))
    with pytest.raises(ValueError, match="'typed' has 0 clips.*needs one clip, then the answer"):
        run(FakeTranscriber(), write(tmp_path / "odd.jsonl", [odd]), tmp_path)


def test_an_id_that_is_there_twice_is_refused(calls, tmp_path):
    twice = write(tmp_path / "twice.jsonl", [spoken("en-0", "a"), spoken("en-0", "b")])
    with pytest.raises(ValueError, match="conversation 'en-0' is there twice; give each"):
        run(FakeTranscriber(), twice, tmp_path)


def test_our_model_answers_the_clips(build, processor, calls, tmp_path):
    model = build()
    (result,) = evaluate_asr(
        model, processor, [calls], tmp_path / "ours", max_new_tokens=4, batch_size=3
    ).values()
    assert result.model == describe(model) and "greedy" in result.decoding
    (last,) = (p for p in read_predictions(tmp_path / "ours/calls.jsonl") if p.id == "it-1")
    sample = processor.encode(
        Conversation("q", (spoken("it-1", "A domani").messages[0],)),
        [audio.load(tmp_path / "it-1.wav")],
        purpose="answer",
    )
    assert [last.hypothesis] == answers(model, processor, [sample], Decoding(4))


def test_a_model_in_training_mode_is_refused(build, processor, calls, tmp_path):
    with pytest.raises(ValueError, match=r"training mode.*call model.eval\(\) first"):
        evaluate_asr(build().train(), processor, [calls], tmp_path)


def test_a_model_is_described_by_its_parts_and_its_weights(build):
    one, other = build(), build()
    assert describe(one) == describe(other)
    other.trained_parts()["adapter"][0].data += 1
    assert describe(one) != describe(other)


@pytest.mark.slow
def test_whisper_hears_the_same_clips_and_must_know_their_language(calls, tmp_path):
    (result,) = whisper_asr([calls], tmp_path / "whisper", max_new_tokens=8).values()
    assert result.overall.num_clips == 5 and "whisper-base" in result.model
    unknown = write(tmp_path / "unknown.jsonl", [spoken("en-0", "Press six.", None)])
    with pytest.raises(ValueError, match="'en-0' has no 'lang', which Whisper's decoder is told"):
        whisper_asr([unknown], tmp_path / "whisper")
