import json

import numpy as np
import pytest

from voicetextblender import audio
from voicetextblender.chat import Audio, Conversation, assistant, to_line, user
from voicetextblender.synth.plan import run
from voicetextblender.synth.sources import read_recordings
from voicetextblender.synth.vary import Variations

LENGTHS_S = {"ann": (1.0, 2.0, 1.5), "bob": (0.5, 4.0)}


@pytest.fixture
def recordings(tmp_path):
    """Tones, one pitch for each speaker, whose words say which they are."""
    lines = []
    for speaker, lengths in LENGTHS_S.items():
        for n, seconds in enumerate(lengths):
            times = np.arange(int(seconds * 16_000)) / 16_000
            tone = 0.3 * np.sin(2 * np.pi * (200 if speaker == "ann" else 330) * times)
            audio.save(tmp_path / f"{speaker}{n}.wav", tone.astype(np.float32))
            clip = Audio(f"{speaker}{n}.wav", duration=seconds, text=f"{speaker} {n}.")
            turns = (user("?", clip), assistant(clip.text))
            meta = {"speaker": speaker, "synthetic": False}
            lines.append(to_line(Conversation(f"{speaker}{n}", turns, "asr", "en", meta)) + "\n")
    (tmp_path / "clips.jsonl").write_text("".join(lines))
    return read_recordings(str(tmp_path / "clips.jsonl"))


def made_of(plan, out):
    list(run(plan, out))
    return [json.loads(line) for line in (out / "shard-00000.jsonl").read_text().splitlines()]


def test_each_recording_is_heard_in_every_variant_and_only_with_its_own_speaker(
    recordings, tmp_path
):
    made = made_of(Variations(recordings, variants=3, longest_s=4), tmp_path / "out")
    said = [record["messages"][1]["content"] for record in made]
    words = " ".join(said).split(".")
    for speaker, lengths in LENGTHS_S.items():
        for n in range(len(lengths)):
            assert sum(word.strip() == f"{speaker} {n}" for word in words) == 3
    assert not any("ann" in text and "bob" in text for text in said)
    assert any(text.count(".") > 1 for text in said)
    assert all(record["meta"]["synthetic"] is False for record in made)


def test_a_joined_clip_is_as_long_as_its_parts_and_warping_changes_that(recordings, tmp_path):
    lengths = {f"{s} {n}": x for s, of in LENGTHS_S.items() for n, x in enumerate(of)}
    for warp in (0.0, 0.3):
        out = tmp_path / f"out{warp}"
        for record in made_of(Variations(recordings, longest_s=4, warp=warp), out):
            clip = record["messages"][0]["content"][1]
            parts = [word.strip() for word in clip["text"].split(".") if word]
            plain_s = sum(lengths[part] for part in parts)
            heard_s = len(audio.load(out / clip["audio"])) / audio.SAMPLE_RATE
            assert clip["duration"] == pytest.approx(heard_s, abs=0.002)
            least, most = plain_s / (1 + warp), (plain_s + 0.35 * len(parts)) * (1 + warp)
            assert least - 0.01 < heard_s < most + 0.01


def test_the_same_seed_gives_the_same_clips_and_another_seed_others(recordings, tmp_path):
    how = {"warp": 0.1, "augment": 1.0, "wording": "varied"}
    made = [
        made_of(Variations(recordings, seed=seed, **how), tmp_path / str(n))
        for n, seed in enumerate((1, 1, 2))
    ]
    assert made[0] == made[1] != made[2]


def test_recordings_without_length_or_words_are_refused(recordings, tmp_path):
    clip = Audio("a.wav", text="a")
    endless = Conversation("a", (user("?", clip), assistant("a")), "asr")
    with pytest.raises(ValueError, match=r"a.wav: its 'duration' is not given"):
        Variations((endless,))
    with pytest.raises(ValueError, match="longest_s is 0.5; it must be 1 or more"):
        Variations(recordings, longest_s=0.5)
    (tmp_path / "text.jsonl").write_text(
        to_line(Conversation("t", (user("Hi"), assistant("Hello")))) + "\n"
    )
    with pytest.raises(ValueError, match="no conversation of task 'asr' with one clip"):
        read_recordings(str(tmp_path / "text.jsonl"))
