import numpy as np
import pytest

from voicetextblender.audio import load, probe_duration, save
from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.data.records import Records, load_clips, write_lines
from voicetextblender.eval.conditions import CONDITIONS, NOTHING, conditions, long, nothing
from voicetextblender.seeding import seeded


@pytest.fixture
def source(tmp_path, sound):
    """Two ASR conversations of 1 and 2 s."""
    items = []
    for number in (1, 2):
        path = tmp_path / f"{number}.flac"
        save(path, sound(float(number)))
        turns = (
            user("Write:", Audio(str(path), text=f"Word {number}.")),
            assistant(f"W {number}."),
        )
        items.append(Conversation(f"c{number}", turns, "asr", "en", {"speaker": "ann"}))
    return items


def read(folder):
    records = Records(str(folder / "items.jsonl"))
    return [records[place] for place in range(len(records))]


def level_db(samples):
    return 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)))


def test_every_clip_is_put_into_every_condition_and_keeps_its_words(source, tmp_path):
    write_lines(tmp_path / "items.jsonl", conditions(source, tmp_path, 0))
    made = read(tmp_path)
    assert [item.meta["condition"] for item in made] == [*CONDITIONS] * 2
    assert len({item.id for item in made}) == len(made)
    for item, of in zip(made, [source[0]] * len(CONDITIONS), strict=False):
        assert item.messages[-1] == of.messages[-1] and item.clips[0].text == of.clips[0].text
        assert item.meta["speaker"] == "ann"
        assert np.isfinite(load_clips(item)[0]).all()


def test_a_clean_clip_is_the_clip_and_the_others_are_not(source, tmp_path):
    write_lines(tmp_path / "items.jsonl", conditions(source[:1], tmp_path, 0))
    clean, *others = read(tmp_path)
    samples = load_clips(source[0])[0]
    np.testing.assert_array_equal(load_clips(clean)[0], samples)
    for item in others:
        changed = load_clips(item)[0]
        speed = str(item.meta["condition"]).removeprefix("speed ")
        factor = float(speed) if speed.replace(".", "").isdigit() else 1.0
        assert len(changed) == pytest.approx(len(samples) / factor, abs=8)
        assert len(changed) != len(samples) or not np.array_equal(changed, samples)


@pytest.mark.parametrize("snr", [20, 10, 0])
def test_noise_is_as_far_below_the_speech_as_it_says(sound, snr):
    clean = 0.3 * sound(1.0)
    noisy = CONDITIONS[f"noise {snr} dB"](clean, seeded(0))
    assert level_db(clean) - level_db(noisy - clean) == pytest.approx(snr, abs=0.1)


def test_the_same_seed_makes_the_same_bytes(source, tmp_path):
    for folder in ("a", "b"):
        write_lines(tmp_path / folder / "items.jsonl", conditions(source, tmp_path / folder, 0))
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_where_nobody_speaks_no_words_are_right(tmp_path):
    number = 2 * len(NOTHING)
    write_lines(tmp_path / "items.jsonl", nothing(number, tmp_path, 0))
    made = read(tmp_path)
    assert {item.meta["condition"] for item in made} == NOTHING.keys() and len(made) == number
    for item in made:
        assert item.messages[-1] == assistant("") and item.clips[0].text == ""
        samples = load(item.clips[0].audio)
        assert 1 <= len(samples) / 16_000 <= 20
        assert bool(np.abs(samples).max()) == (item.meta["condition"] != "zeros")


def test_a_long_clip_says_all_that_it_was_joined_from(source, tmp_path):
    write_lines(tmp_path / "items.jsonl", long(source, tmp_path, 0, seconds=7.0))
    (item,) = read(tmp_path)
    assert 7.0 <= probe_duration(item.clips[0].audio) < 7.0 + 2.4
    words = str(item.messages[-1].parts[0].text).split()
    assert set(words) == {"W", "1.", "2."} and len(words) == 2 * 4
