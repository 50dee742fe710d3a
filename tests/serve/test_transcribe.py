import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicetextblender import audio
from voicetextblender.serve import transcribe as module
from voicetextblender.serve.transcribe import (
    Segment,
    Transcript,
    is_loud,
    split,
    to_srt,
    to_vtt,
    transcribe,
)

TALK = Transcript(
    "talk.wav",
    "Hello. Bye.",
    "en",
    3700.0,
    (Segment(0.0, 1.5, "Hello."), Segment(3661.25, 3662, "Bye.")),
)


@settings(max_examples=25)
@given(st.floats(0, 70), st.floats(1.0, 20))
def test_pieces_cover_a_recording_once_and_none_is_too_long(seconds, longest_s):
    samples = np.random.default_rng(0).standard_normal(int(seconds * 16_000)).astype(np.float32)
    pieces = split(samples, longest_s)
    assert pieces[0].start == 0 and pieces[-1].stop == len(samples)
    assert all(a.stop == b.start for a, b in zip(pieces, pieces[1:], strict=False))
    assert all(piece.stop - piece.start <= longest_s * 16_000 for piece in pieces)


def test_a_cut_falls_into_the_pause():
    samples = np.random.default_rng(0).standard_normal(20 * 16_000).astype(np.float32)
    samples[12 * 16_000 : 13 * 16_000] = 0
    cut = split(samples, 15.0)[0].stop / 16_000
    assert 12 < cut < 13


def test_captions_carry_their_times():
    assert to_srt(TALK) == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello.\n\n2\n01:01:01,250 --> 01:01:02,000\nBye.\n\n"
    )
    assert to_vtt(TALK).startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello.\n\n")


def test_a_transcript_is_plain_json():
    assert json.loads(json.dumps(TALK.to_json()))["segments"][1]["start"] == 3661.25


def test_silence_has_no_words_and_the_model_is_not_asked(tmp_path, build, processor, monkeypatch):
    monkeypatch.setattr(module, "answers", pytest.fail)
    audio.save(tmp_path / "silence.wav", np.zeros(20 * 16_000, dtype=np.float32))
    transcript = transcribe(build(), processor, tmp_path / "silence.wav")
    assert transcript.text == "" and transcript.segments == () and transcript.duration_s == 20
    assert not is_loud(np.zeros(0, dtype=np.float32))


def test_a_long_recording_is_transcribed_piece_by_piece(
    tmp_path, build, processor, sound, monkeypatch
):
    asked = []

    def fake(model, processor, samples, decoding):
        asked.extend(samples)
        return [f" word {len(asked)} "] * len(samples)

    monkeypatch.setattr(module, "answers", fake)
    audio.save(tmp_path / "long.wav", sound(40.0))
    shares = []
    transcript = transcribe(build(), processor, tmp_path / "long.wav", progress=shares.append)
    assert len(asked) == len(transcript.segments) >= 3 and shares[-1] == 1
    assert transcript.segments[-1].end == 40.0
    assert transcript.text == " ".join(segment.text for segment in transcript.segments)


def test_a_real_pass_through_a_tiny_model_gives_a_transcript(tmp_path, build, processor, sound):
    audio.save(tmp_path / "a.wav", sound(0.5))
    transcript = transcribe(build(), processor, tmp_path / "a.wav", "de")
    assert transcript.language == "de" and transcript.duration_s == 0.5


def test_a_language_without_a_name_is_refused(tmp_path, build, processor, sound):
    audio.save(tmp_path / "a.wav", sound(0.5))
    with pytest.raises(ValueError, match="language 'xx' has no name here"):
        transcribe(build(), processor, tmp_path / "a.wav", "xx")
