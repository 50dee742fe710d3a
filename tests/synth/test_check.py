import json

import numpy as np
import pytest

from voicetextblender.synth.check import load_recogniser, word_error


@pytest.fixture(autouse=True)
def fresh():
    load_recogniser.cache_clear()
    yield
    load_recogniser.cache_clear()


@pytest.mark.parametrize(
    ("written", "heard"),
    [
        ("Well, it's twenty-five past nine!", "well it is 25 past 9"),
        ("One thousand two hundred people paid.", "1,200 people paid"),
        ("Dr. Smith isn’t in.", "doctor smith is not in"),
    ],
)
def test_case_punctuation_contractions_and_digits_are_no_errors(written, heard):
    assert word_error(written, heard) == word_error(heard, written) == 0


def test_errors_are_counted_for_each_word_of_the_reference():
    assert word_error("we saw a cat", "we saw the cat") == 0.25
    assert word_error("we saw a cat", "") == 1
    assert word_error("cat", "a cat and a dog") == 4
    assert word_error("Wir sahen 3 Kühe.", "wir sahen 3 kühe", "de") == 0
    assert word_error("Wir sahen eine Kuh.", "Wir sahen ein Kuh", "de") == 0.25


def test_a_reference_without_words_is_matched_by_silence_alone():
    assert (word_error("...", ""), word_error("...", "so"), word_error("", "")) == (0, 1, 0)


def test_a_service_is_sent_each_clip_as_a_form(service):
    service.answers[:] = [(200, json.dumps({"text": text}).encode()) for text in (" one ", "two")]
    clips = [np.zeros(1600, np.float32), np.ones(800, np.float32)]
    assert load_recogniser(f"{service.url}#whisper-1").recognise(clips, "en") == ["one", "two"]
    path, headers, body = service.asked[0]
    assert path == "/v1/audio/transcriptions"
    border = headers["Content-Type"].partition("boundary=")[2].encode()
    *fields, file, end = body.split(b"--" + border)[1:]
    assert end == b"--\r\n"
    assert [field.partition(b"name=")[2].strip() for field in fields] == [
        b'"model"\r\n\r\nwhisper-1',
        b'"language"\r\n\r\nen',
        b'"response_format"\r\n\r\njson',
    ]
    assert file.partition(b"\r\n\r\n")[2].startswith(b"RIFF")


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"text": 3}', b"{}"])
def test_an_answer_that_is_no_transcript_is_refused(answer, service):
    service.answers[:] = [(200, answer)]
    with pytest.raises(ValueError, match="transcriptions: answered .*; expected JSON with a 'text"):
        load_recogniser(f"{service.url}#whisper-1").recognise([np.zeros(9, np.float32)], "en")


def test_a_service_needs_a_model_and_a_part_must_be_known():
    with pytest.raises(ValueError, match="a service with the model behind '#'"):
        load_recogniser("http://host/v1")
    with pytest.raises(ValueError, match="model part 'whisper-huge' is not known"):
        load_recogniser("whisper-huge")
