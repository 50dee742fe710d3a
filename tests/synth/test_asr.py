import glob
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from voicetextblender import audio
from voicetextblender.chat import Audio, parse_line
from voicetextblender.synth import shards
from voicetextblender.synth.asr import PER_SHARD, SpokenSentences, speak
from voicetextblender.synth.shards import make_shards
from voicetextblender.synth.speakers import Speakers

pytest.importorskip("hibari")
SENTENCES = tuple(f"We saw {animal}s here." for animal in ("cat", "dog", "cow", "fox", "hen"))


def run(spoken, out, workers=1, max_drop=0.1):
    return list(speak(spoken, out, workers, max_drop))


def conversations(out):
    """Read them as the loader does: files whose name begins with a dot are not seen."""
    paths = sorted(glob.glob(f"{out}/*.jsonl"))
    lines = [line for path in paths for line in Path(path).read_text().splitlines()]
    return [parse_line(line, "here") for line in lines]


def digests(out):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.iterdir())}


def test_every_sentence_is_spoken_once_and_the_clips_are_as_long_as_they_say(tmp_path):
    spoken = SpokenSentences(SENTENCES, longest_run=2)
    assert run(spoken, tmp_path)[-1] == (len(spoken.runs()), len(spoken.runs()))
    made = conversations(tmp_path)
    assert " ".join(c.clips[0].text or "" for c in made) == " ".join(SENTENCES)
    for conversation in made:
        clip = conversation.clips[0]
        samples = audio.load(tmp_path / clip.audio)
        assert clip.duration == pytest.approx(len(samples) / audio.SAMPLE_RATE, abs=0.002)
        assert np.abs(samples).max() > 0.05
        assert conversation.meta["synthetic"] is True


def test_the_bytes_depend_on_the_seed_alone_not_on_the_number_of_workers(tmp_path):
    spoken = SpokenSentences(SENTENCES, per_shard=2)
    run(spoken, tmp_path / "one", workers=1)
    run(spoken, tmp_path / "two", workers=2)
    run(SpokenSentences(SENTENCES, per_shard=2, seed=1), tmp_path / "other")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert digests(tmp_path / "one") != digests(tmp_path / "other")


def test_a_stopped_run_makes_only_what_is_missing_and_ends_with_the_same_bytes(tmp_path):
    spoken = SpokenSentences(SENTENCES, per_shard=2)
    run(spoken, tmp_path)
    whole = digests(tmp_path)
    (tmp_path / "shard-00001.jsonl").unlink()  # as if it had been killed before the rename
    untouched = (tmp_path / "shard-00000.tar").stat().st_mtime_ns
    assert run(spoken, tmp_path)[0] == (3, 5)
    assert digests(tmp_path) == whole
    assert (tmp_path / "shard-00000.tar").stat().st_mtime_ns == untouched


def _fails(items):
    raise OSError(f"no space left for item {items[0]}")


def test_an_error_that_is_no_items_own_ends_the_run_and_leaves_no_shard_that_looks_complete(
    tmp_path,
):
    with pytest.raises(OSError, match="no space left for item 0"):
        list(make_shards(tmp_path, 3, 2, _fails, workers=1))
    assert not list(tmp_path.glob("*.json*"))[1:]  # but for report.json


def test_a_draft_left_by_a_killed_run_is_not_read_as_data(tmp_path):
    (tmp_path / f".{shards.shard_name(0)}-1.jsonl").write_text("half a li")
    run(SpokenSentences(SENTENCES[:1]), tmp_path)
    assert len(conversations(tmp_path)) == 1 <= PER_SHARD


def test_shards_are_read_back_through_their_folder(tmp_path):
    run(SpokenSentences(SENTENCES[:2]), tmp_path)
    clip = conversations(tmp_path)[1].clips[0]
    assert isinstance(clip, Audio) and Path(clip.audio).name == "shard-00000.tar#000001.flac"


RATE = 16_000


class FakeVoice:
    """Hums each sentence, 0.1 s a letter, louder with each voice; fails as its name asks."""

    rate = RATE

    def __init__(self, name):
        self.name = name

    def speak(self, text, seed, speed=1.0):
        if self.name == "espeak:en-mute" or (self.name == "espeak:en-moody" and seed % 2):
            raise ValueError(f"cannot say {text!r}")
        return np.full(int(0.1 * RATE * len(text) / speed), 0.1, dtype=np.float32)


class FakeRecogniser:
    """Hears every clip of up to three seconds as it is, and longer ones not at all."""

    def recognise(self, clips, lang):
        return ["we saw cats here" if len(clip) < 3 * RATE else "" for clip in clips]


@pytest.fixture
def fakes(monkeypatch):
    monkeypatch.setattr("voicetextblender.synth.speakers.load_voice", FakeVoice)
    monkeypatch.setattr("voicetextblender.synth.check.load_recogniser", lambda _: FakeRecogniser())
    monkeypatch.setattr("voicetextblender.synth.asr.PER_GROUP", 2)


MANY = SENTENCES * 6
PLAIN, MOODY, MUTE = ("espeak:en", "espeak:en-moody", "espeak:en-mute")


def report(out):
    return json.loads((out / "report.json").read_text())


def test_each_clip_is_spoken_by_a_voice_drawn_from_the_seed(tmp_path, fakes):
    voices = (PLAIN, "espeak:en-us", "espeak:en-gb")
    run(SpokenSentences(MANY, Speakers(voices)), tmp_path)
    made = [c.meta["voice"] for c in conversations(tmp_path)]
    assert set(made) == set(voices) and len(made) == len(MANY)
    assert report(tmp_path)["made"] == {voice: made.count(voice) for voice in sorted(voices)}
    assert report(tmp_path)["dropped"] == []


def test_an_item_that_fails_is_tried_once_more_and_then_dropped_and_counted(tmp_path, fakes):
    run(SpokenSentences(MANY, Speakers((MOODY,))), tmp_path, max_drop=1)
    told = report(tmp_path)
    num_dropped = sum(drop["count"] for drop in told["dropped"])
    # Half of the first attempts fail, and half of the second: a quarter, not a half, is dropped.
    assert 0 < num_dropped < 0.45 * len(MANY)
    assert told["made"] == {MOODY: len(MANY) - num_dropped} and told["items"] == len(MANY)
    assert told["dropped"] == [{"by": MOODY, "reason": "not able to say it", "count": num_dropped}]
    kept = {int(c.id[-6:]) for c in conversations(tmp_path)}
    dropped = {drop["item"] for drop in told["each"]}
    assert kept | dropped == set(range(len(MANY))) and not kept & dropped
    assert told["each"][0]["why"].startswith("cannot say 'We saw")


def test_a_run_with_drops_ends_with_the_same_bytes_whoever_works_and_wherever_it_stopped(
    tmp_path, fakes
):
    spoken = SpokenSentences(
        MANY, Speakers((MOODY,), augment=1.0), longest_s=3, per_shard=5, seed=3
    )
    for name, workers in (("one", 1), ("two", 2)):
        run(spoken, tmp_path / name, workers, max_drop=1)
    whole = digests(tmp_path / "one")
    assert digests(tmp_path / "two") == whole
    assert report(tmp_path / "one")["dropped"]
    for lost in ("shard-00001.json", "shard-00000.jsonl", "report.json"):
        (tmp_path / "one" / lost).unlink()
    run(spoken, tmp_path / "one", max_drop=1)
    assert digests(tmp_path / "one") == whole


def test_a_run_that_drops_too_much_ends_with_the_commonest_reason(tmp_path, fakes):
    expected = (
        f"items were dropped, more than the 10% allowed; most often, [0-9]+ times, '{MUTE}' was "
        "not able to say it: cannot say 'We saw .*'; see report.json there"
    )
    for _ in range(2):  # a second run does not overlook what the first one dropped
        with pytest.raises(ValueError, match=expected):
            run(SpokenSentences(MANY, Speakers((MUTE, PLAIN))), tmp_path)


def test_a_shard_of_which_nothing_is_left_has_no_conversations_and_is_not_made_again(
    tmp_path, fakes
):
    spoken = SpokenSentences(SENTENCES, Speakers((MUTE,)))
    run(spoken, tmp_path, max_drop=1)
    assert not conversations(tmp_path) and not list(tmp_path.glob("*.jsonl"))
    assert run(spoken, tmp_path, max_drop=1) == [(5, 5)]


def test_clips_that_are_heard_otherwise_are_dropped(tmp_path, fakes):
    sentences = ("We saw cats here.", "We saw cats here, and they were not at all amused.")
    run(SpokenSentences(sentences, Speakers((PLAIN,), check="fake")), tmp_path, max_drop=1)
    assert [c.clips[0].text for c in conversations(tmp_path)] == [sentences[0]]
    (drop,) = report(tmp_path)["each"]
    assert (drop["item"], drop["reason"]) == (1, "heard otherwise")
    assert drop["why"].startswith("100% of the words of 'We saw cats here, and")


def test_sentences_are_joined_up_to_a_length_in_seconds(tmp_path, fakes):
    spoken = SpokenSentences(MANY, Speakers((PLAIN,)), longest_s=8)
    run(spoken, tmp_path, max_drop=0.5)
    lengths = [c.clips[0].duration for c in conversations(tmp_path)]
    assert max(lengths) <= 8 and max(lengths) > 5 and min(lengths) < 3
    assert {number for run in spoken.runs() for number in run} == set(range(len(MANY)))
    long = SpokenSentences(("A sentence of many words. " * 5,), Speakers((PLAIN,)), longest_s=2)
    run(long, tmp_path / "long", max_drop=1)
    (drop,) = report(tmp_path / "long")["each"]
    assert drop["reason"] == "too slow for the longest clip"


def test_conditions_are_written_down_and_leave_the_words_alone(tmp_path, fakes):
    run(SpokenSentences(MANY, Speakers((PLAIN,), augment=1.0)), tmp_path)
    made = conversations(tmp_path)
    assert [c.clips[0].text for c in made] == list(MANY)
    conditions = [c.meta["conditions"] for c in made]
    assert {key for each in conditions for key in each} >= {"room", "noise", "channel", "gain_db"}


def test_with_translations_a_translation_is_asked_for_and_wordings_vary(tmp_path, fakes):
    german = tuple(f"Satz {n}." for n in range(len(MANY)))
    how = {"translations": german, "target": "de", "longest_run": 2, "wording": "varied"}
    run(SpokenSentences(MANY, Speakers((PLAIN,)), **how), tmp_path)
    made = conversations(tmp_path)
    assert {(c.task, c.meta["target_lang"]) for c in made} == {("ast", "de")}
    assert len({c.messages[0].text for c in made}) > 5
    answers = " ".join(c.messages[1].text for c in made).lower().replace(".", "")
    assert answers == " ".join(german).lower().replace(".", "")


def test_a_folder_that_holds_other_clips_is_refused(tmp_path, fakes):
    run(SpokenSentences(SENTENCES, Speakers((PLAIN,))), tmp_path)
    with pytest.raises(ValueError, match="holds clips made from other text or with other settings"):
        run(SpokenSentences(SENTENCES, Speakers((PLAIN,)), seed=1), tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"longest_run": 0}, "longest_run is 0; it must be 1 or more"),
        ({"longest_s": 31}, "longest_s is 31; it must be 1 to 30"),
        ({"translations": ("Eins.",)}, "5 sentences have 1 translations; each needs one"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        SpokenSentences(SENTENCES, **wrong)


def test_a_warped_voice_keeps_its_pace_and_it_is_written_down_how_far(tmp_path, fakes):
    run(SpokenSentences(MANY, Speakers((PLAIN,), warp=0.25)), tmp_path)
    made = conversations(tmp_path)
    warps = [c.meta["warp"] for c in made]
    assert 0.79 < min(warps) < 0.9 and 1.1 < max(warps) < 1.26
    for clip in (c.clips[0] for c in made):
        hummed_s = 0.1 * len(clip.text)  # at speed 1; then there are pauses before and behind
        assert hummed_s / 1.2 + 0.07 < clip.duration < hummed_s / 0.85 + 1.05


def test_a_share_of_the_clips_stays_clean_and_the_text_says_where_it_is_from(tmp_path, fakes):
    about = (("source", "Aesop"), ("license", "CC0-1.0"))
    run(SpokenSentences(MANY, Speakers((PLAIN,), augment=1.0, clean=0.5), about=about), tmp_path)
    made = conversations(tmp_path)
    assert 0.2 < sum("conditions" in c.meta for c in made) / len(made) < 0.8
    assert {(c.meta["source"], c.meta["license"]) for c in made} == {("Aesop", "CC0-1.0")}


def test_so_many_clips_are_some_of_all_in_random_order():
    few = SpokenSentences(MANY, longest_s=8, clips=5).runs()
    assert len(few) == 5 and few != sorted(few, key=lambda run: run.start)
    assert set(few) < set(SpokenSentences(MANY, longest_s=8).runs())
