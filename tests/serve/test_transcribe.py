import json
import time

import numpy as np
import pytest

from voicetextblender import audio, speech
from voicetextblender.model.generate import Decoding
from voicetextblender.serve.engine import BusyError
from voicetextblender.serve.transcribe import (
    Segment,
    Task,
    Transcript,
    segments_of,
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


@pytest.fixture(autouse=True)
def anything_loud_is_speech(monkeypatch):
    monkeypatch.setattr(
        speech, "build_detector", lambda: lambda frame: float(np.abs(frame).max() > 0.1)
    )


@pytest.fixture
def long(sound):
    """Eight spoken stretches of different lengths, a second of silence behind each."""
    silence = np.zeros(16_000, np.float32)
    return np.concatenate([p for n in range(8) for p in (sound(0.5 + n / 4, n), silence)])


def test_captions_carry_their_times():
    assert to_srt(TALK) == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello.\n\n2\n01:01:01,250 --> 01:01:02,000\nBye.\n\n"
    )
    assert to_vtt(TALK).startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello.\n\n")


def test_a_transcript_is_plain_json():
    assert json.loads(json.dumps(TALK.to_json()))["segments"][1]["start"] == 3661.25


def test_a_text_that_repeats_itself_is_seen_by_its_compression():
    assert Segment(0, 1, "no no no no no no no no no no no no no no no no").compression > 2.4
    assert Segment(0, 1, "Press six to play the next message.").compression < 1.5


def test_silence_has_no_words_and_the_model_is_not_asked(tmp_path, start):
    engine = start()
    audio.save(tmp_path / "silence.wav", np.zeros(20 * 16_000, dtype=np.float32))
    transcript = transcribe(engine, tmp_path / "silence.wav")
    assert transcript.text == "" and transcript.segments == () and transcript.duration_s == 20
    assert engine.stats.prompt_tokens == 0


def test_pieces_are_transcribed_together_and_come_in_order(tmp_path, start, long):
    engine = start()
    audio.save(tmp_path / "long.wav", long)
    shares = []
    transcript = transcribe(engine, tmp_path / "long.wav", Task("de"), progress=shares.append)
    starts = [segment.start for segment in transcript.segments]
    assert starts == sorted(starts) and 1 <= len(starts) <= 8
    assert shares == sorted(shares) and shares[-1] == 1
    assert transcript.language == "de" and transcript.duration_s == len(long) / 16_000
    assert transcript.text == " ".join(segment.text for segment in transcript.segments)
    assert all(segment.logprob < 0 and segment.speech > 0.5 for segment in transcript.segments)
    assert transcribe(engine, (tmp_path / "long.wav").read_bytes()).duration_s == 19.0
    samples = audio.load(tmp_path / "long.wav")
    alone = segments_of(engine, iter([samples]), Task("de"), ahead=1)
    assert [s.text for s in alone] == [s.text for s in transcript.segments]


def test_a_full_queue_delays_a_recording_that_has_begun_and_refuses_one_that_has_not(
    start, long, monkeypatch
):
    engine = start()
    monkeypatch.setattr(time, "sleep", lambda s: None)
    submit, asked = engine.submit, []

    def busy_at_times(*args):
        asked.append(args)
        if len(asked) % 3 == 0:
            raise BusyError("full", 1.0)
        return submit(*args)

    monkeypatch.setattr(engine, "submit", busy_at_times)
    list(segments_of(engine, iter([long])))
    assert len(asked) > 8, "no piece was offered twice"
    asked[:] = [None, None]
    with pytest.raises(BusyError, match="full"):
        list(segments_of(engine, iter([long])))


def test_who_stops_listening_frees_the_engine(start, long):
    engine = start()
    hearing = segments_of(engine, iter([long]))
    next(hearing)
    hearing.close()
    end = time.monotonic() + 10
    while engine.num_running or engine.num_waiting:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_is_said_is_cut_off_where_nobody_could_have_said_more(start, sound):
    engine = start()
    list(segments_of(engine, iter([sound(1.0)])))
    assert engine.stats.new_tokens <= 16 + 8 * 1.5
    assert Decoding().max_new_tokens > 30


@pytest.mark.parametrize("task", [Task("xx"), Task("en", "xx")])
def test_a_language_without_a_name_is_refused(task, start):
    with pytest.raises(ValueError, match="language 'xx' has no name here"):
        list(segments_of(start(), iter([]), task))
