"""Decoding, slicing, tar members and errors, on tones that the tests themselves encode."""

import io
import tarfile
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voicetextblender.audio import SAMPLE_RATE, load, load_bytes, opus_bytes, probe_duration, save

PYAV_CODECS = {  # suffix: encoder, rate, container
    ".m4a": ("aac", 44_100, "mp4"),
    ".aac": ("aac", 44_100, "adts"),
    ".webm": ("libopus", 48_000, "webm"),
    ".g722": ("g722", 16_000, "g722"),
    ".mka": ("flac", 8_000, "matroska"),
}
SOUNDFILE_CODECS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_24"), ".mp3": ("MP3", None)}
SOUNDFILE_CODECS |= {".ogg": ("OGG", "VORBIS"), ".aiff": ("AIFF", "PCM_16")}


def tone(hertz: float, seconds: float, rate: int = SAMPLE_RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype("f4")


def chirp(seconds: float, rate: int = SAMPLE_RATE) -> np.ndarray:
    """A tone that rises through 200–2,000 Hz, so that no two places in it are alike."""
    time = np.arange(round(seconds * rate)) / rate
    sweep = 200 * time + 900 * time**2 / seconds
    return (0.5 * np.sin(2 * np.pi * sweep)).astype("f4")


def pitch(samples: np.ndarray) -> float:
    """Return the strongest frequency in Hz, to about 1 / (8 x duration)."""
    window = samples * np.hanning(samples.size)
    spectrum = np.abs(np.fft.rfft(window, 8 * samples.size))
    return float(spectrum.argmax() * SAMPLE_RATE / (8 * samples.size))


def lag(clip: np.ndarray, whole: np.ndarray, at: int) -> int:
    """Return by how many samples a slice was cut later than `at`, -100 to 100."""
    match = [np.dot(clip, whole[at + n : at + n + clip.size]) for n in range(-100, 101)]
    return int(np.argmax(match)) - 100


def encode(path: Path, samples: np.ndarray, live: bool = False) -> Path:
    """Write with PyAV what soundfile cannot; `live` writes as a browser's recorder does."""
    codec, rate, container = PYAV_CODECS[path.suffix]
    options = {"live": "1"} if live else {}
    with av.open(str(path), "w", format=container, options=options) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(stream.codec_context.format.name, "mono", rate)
        for part in resampler.resample(frame) + resampler.resample(None):
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    return path


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("suffix", SOUNDFILE_CODECS)
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_and_channels_keep_duration_and_pitch(tmp_path, suffix, rate, channels):
    container, subtype = SOUNDFILE_CODECS[suffix]
    samples = np.repeat(tone(440, 0.8, rate)[:, None], channels, axis=1)
    soundfile.write(tmp_path / f"a{suffix}", samples, rate, format=container, subtype=subtype)
    clip = load(tmp_path / f"a{suffix}")
    assert clip.dtype == np.float32 and clip.ndim == 1
    assert clip.size / SAMPLE_RATE == pytest.approx(0.8, abs=0.002)
    assert pitch(clip) == pytest.approx(440, abs=1)
    assert np.abs(clip[2000:-2000]).max() == pytest.approx(0.5, abs=0.06)
    assert probe_duration(tmp_path / f"a{suffix}") == pytest.approx(0.8, abs=0.002)


@pytest.mark.parametrize("suffix", PYAV_CODECS)
def test_what_soundfile_cannot_read_keeps_duration_and_pitch(tmp_path, suffix):
    rate = PYAV_CODECS[suffix][1]
    path = encode(tmp_path / f"a{suffix}", tone(440, 2.0, rate))
    # Raw AAC says nothing of the padding before and after: up to three packets of 23 ms.
    tolerance = 0.07 if suffix == ".aac" else 0.003
    clip = load(path)
    assert clip.size / SAMPLE_RATE == pytest.approx(2.0, abs=tolerance)
    assert pitch(clip) == pytest.approx(440, abs=1)
    assert probe_duration(path) == pytest.approx(2.0, abs=max(tolerance, 0.01))


@pytest.mark.parametrize("suffix", [".m4a", ".webm", ".g722", ".mka"])
def test_a_decoded_clip_is_not_shifted_in_time(tmp_path, suffix):
    path = encode(tmp_path / f"a{suffix}", chirp(2.0, PYAV_CODECS[suffix][1]))
    # 1.5 ms; G.722 itself delays by 22 samples.
    assert abs(lag(load(path)[5000:25_000], chirp(2.0), at=5000)) <= 24


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 44_100, 48_000])
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(start=st.floats(0, 2.9), duration=st.floats(0.01, 4.0))
def test_a_slice_is_the_slice_of_the_whole(rate, start, duration):
    data = io.BytesIO()
    soundfile.write(data, chirp(3.0, rate), rate, format="FLAC")
    whole = load_bytes(data.getvalue(), "a.flac")
    clip = load_bytes(data.getvalue(), "a.flac", start, duration)
    begin = round(start * SAMPLE_RATE)
    expected = whole[begin : begin + round(duration * SAMPLE_RATE)]
    np.testing.assert_allclose(clip, expected, atol=2e-4)


@pytest.mark.parametrize("suffix", [".m4a", ".webm", ".aac", ".g722", ".mka"])
def test_a_slice_of_what_pyav_reads_is_the_slice_of_the_whole(tmp_path, suffix):
    path = encode(tmp_path / f"a{suffix}", chirp(6.0, PYAV_CODECS[suffix][1]))
    whole, clip = load(path), load(path, start=4.0, duration=1.0)
    assert clip.size == SAMPLE_RATE
    if suffix == ".webm":  # its clock ticks in milliseconds, and a start is rounded twice
        assert abs(lag(clip, whole, at=64_000)) <= 16
    else:
        np.testing.assert_allclose(clip, whole[64_000:80_000], atol=0.002)


def test_a_browser_recording_without_length_is_read_and_sliced(tmp_path):
    path = encode(tmp_path / "a.webm", chirp(6.0, 48_000), live=True)
    assert load(path).size == pytest.approx(6.0 * SAMPLE_RATE, abs=32)
    assert load(path, 4.0, 1.0).size == SAMPLE_RATE
    assert probe_duration(path) == pytest.approx(6.0, abs=0.02)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".opus"])
def test_saved_clips_load_as_they_were(tmp_path, suffix):
    save(tmp_path / f"a{suffix}", chirp(1.0))
    clip = load(tmp_path / f"a{suffix}")
    assert clip.size == SAMPLE_RATE
    if suffix != ".opus":
        np.testing.assert_allclose(clip, chirp(1.0), atol=1 / 32_000)
    assert np.corrcoef(clip, chirp(1.0))[0, 1] > 0.95


def test_opus_clips_take_about_24_kbits_a_second(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, 10 * SAMPLE_RATE)
    save(tmp_path / "a.opus", noise)
    assert 18_000 < (tmp_path / "a.opus").stat().st_size * 8 / 10 < 30_000


def test_full_scale_is_one_whatever_the_sample_format(tmp_path):
    square = np.repeat([32_767 / 32_768, -1.0], 400)
    for subtype in ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "PCM_U8"):
        soundfile.write(tmp_path / "a.wav", square, SAMPLE_RATE, subtype=subtype)
        clip = load(tmp_path / "a.wav")
        assert clip.max() == pytest.approx(1.0, abs=0.01) and clip.min() == -1.0


def test_resampling_never_overshoots_full_scale(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.sign(tone(100, 0.5, 44_100)), 44_100, subtype="FLOAT")
    assert np.abs(load(tmp_path / "a.wav")).max() == 1.0


def test_channels_are_averaged(tmp_path):
    stereo = np.stack([np.full(1600, 0.8), np.full(1600, -0.2)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, SAMPLE_RATE, subtype="FLOAT")
    np.testing.assert_allclose(load(tmp_path / "a.wav"), 0.3, atol=1e-6)


def test_bytes_and_files_decode_alike(tmp_path):
    save(tmp_path / "a.opus", chirp(1.0))
    data = (tmp_path / "a.opus").read_bytes()
    np.testing.assert_array_equal(
        load_bytes(data, "a.opus", 0.2, 0.5), load(tmp_path / "a.opus", 0.2, 0.5)
    )


def test_a_tar_member_loads_like_the_file_and_needs_one_index(tmp_path, monkeypatch):
    save(tmp_path / "a.opus", chirp(1.0))
    save(tmp_path / "b.wav", tone(300, 1.0))
    files = {f"./{name}": (tmp_path / name).read_bytes() for name in ("a.opus", "b.wav")}
    shard = write_tar(tmp_path / "000.tar", files)
    np.testing.assert_array_equal(load(f"{shard}#b.wav"), load(tmp_path / "b.wav"))
    monkeypatch.setattr(tarfile, "open", None)  # the second clip must not scan the tar again
    np.testing.assert_array_equal(load(f"{shard}#a.opus", 0.3), load(tmp_path / "a.opus", 0.3))
    assert probe_duration(f"{shard}#a.opus") == pytest.approx(1.0)


def test_a_rewritten_tar_is_indexed_anew(tmp_path):
    save(tmp_path / "a.wav", tone(300, 0.2))
    data = (tmp_path / "a.wav").read_bytes()
    shard = write_tar(tmp_path / "000.tar", {"a.wav": data})
    assert load(f"{shard}#a.wav").size
    write_tar(shard, {"padding": bytes(20_000), "a.wav": data})
    assert load(f"{shard}#a.wav").size


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="b.wav: there is no such file; check the path"):
        load(tmp_path / "b.wav")
    with pytest.raises(FileNotFoundError, match="0.tar: there is no such file"):
        load(f"{tmp_path}/0.tar#a.wav")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", r"a\.x: is empty \(0 bytes\); copy or record it again"),
        (b"no sound at all " * 99, r"a\.x: cannot be read as audio \(.*convert it to FLAC or WAV"),
        (b"ffconcat version 1.0\nfile other.aac\n", r"a\.x: cannot be read as audio"),
    ],
)
def test_what_is_no_audio_is_refused(data, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_bytes(data, "a.x")


def test_a_raw_file_is_refused_as_nobody_knows_its_rate(tmp_path):
    (tmp_path / "a.raw").write_bytes(bytes(1000))
    with pytest.raises(ValueError, match=r"a\.raw: (cannot be read as audio|holds no audio)"):
        load(tmp_path / "a.raw")


def test_a_playlist_cannot_make_us_read_another_file(tmp_path, monkeypatch):
    encode(tmp_path / "secret.aac", tone(440, 1.0, 44_100))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="cannot be read as audio"):
        load_bytes(b"ffconcat version 1.0\nfile secret.aac\n", "upload.wav")


def test_a_damaged_file_is_refused_rather_than_cut_short(tmp_path):
    soundfile.write(tmp_path / "a.flac", chirp(3.0), SAMPLE_RATE)
    data = (tmp_path / "a.flac").read_bytes()
    with pytest.raises(ValueError, match=r"a\.flac: is damaged .*; copy it again"):
        load_bytes(data[: len(data) // 2], "a.flac")


def test_a_file_without_sound_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w", format="matroska") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 16
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with pytest.raises(ValueError, match="holds no audio stream; give a file with sound"):
        load(tmp_path / "a.mkv")


def test_sound_in_a_codec_that_nobody_knows_is_refused(tmp_path):
    path = encode(tmp_path / "a.webm", chirp(0.5, 48_000))
    path.write_bytes(path.read_bytes().replace(b"A_OPUS", b"A_ODUS"))
    with pytest.raises(ValueError, match=r"a\.webm: its sound cannot be decoded; convert it"):
        load(path)


def test_a_clip_without_samples_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(0), SAMPLE_RATE)
    with pytest.raises(ValueError, match=r"a\.wav: holds no samples"):
        load(tmp_path / "a.wav")


@pytest.mark.parametrize("suffix", [".wav", ".mka"])
def test_a_start_beyond_the_end_is_refused_with_the_length(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".wav":
        save(path, tone(440, 2.0, 8_000), 8_000)
    else:
        encode(path, tone(440, 2.0, 8_000))
    with pytest.raises(ValueError, match=r"start 7 s is beyond the end at 2\.0\d* s"):
        load(path, start=7.0)


@pytest.mark.parametrize(("start", "duration"), [(-1.0, None), (np.nan, None), (0.0, 0.0)])
def test_a_slice_that_is_no_slice_is_refused(tmp_path, start, duration):
    save(tmp_path / "a.wav", tone(440, 0.1))
    with pytest.raises(ValueError, match=r"(start|duration) is .*; it must be seconds"):
        load(tmp_path / "a.wav", start, duration)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused(tmp_path, bad):
    samples = np.zeros((100, 2), np.float32)
    samples[50, 0] = bad
    soundfile.write(tmp_path / "a.wav", samples, 44_100, subtype="FLOAT")
    with pytest.raises(ValueError, match="holds samples that are not finite numbers"):
        load(tmp_path / "a.wav")


def test_integers_saved_as_floats_are_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", 20_000 * tone(440, 0.1), SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"samples reach \d+ where full scale is 1.0; divide"):
        load(tmp_path / "a.wav")


def test_an_unknown_member_is_refused_with_one_that_is_there(tmp_path):
    shard = write_tar(tmp_path / "000.tar", {"b.wav": b"x", "c.wav": b"y"})
    with pytest.raises(ValueError, match=r"000\.tar#a\.wav: .* but 2 others, such as 'b\.wav'"):
        load(f"{shard}#a.wav")


def test_a_compressed_tar_is_refused(tmp_path):
    shard = write_tar(tmp_path / "000.tar", {"a.wav": bytes(999)}, mode="w:gz")
    with pytest.raises(ValueError, match=r"000\.tar: is not an uncompressed tar .*gunzip"):
        load(f"{shard}#a.wav")


@pytest.mark.parametrize(
    ("name", "samples", "rate", "sentence"),
    [
        ("a.mp3", np.zeros(9), 16_000, r"cannot write '\.mp3' files; use \.wav, \.flac, \.opus"),
        ("a.opus", np.zeros(9), 44_100, "Opus cannot hold 44100 Hz"),
        ("a.wav", np.zeros(0), 16_000, "must be a row of finite numbers"),
        ("a.wav", np.zeros((2, 9)), 16_000, "must be a row of finite numbers"),
        ("a.wav", np.array([0.0, np.nan]), 16_000, "with 1 finite values"),
    ],
)
def test_what_cannot_be_saved_is_refused(tmp_path, name, samples, rate, sentence):
    with pytest.raises(ValueError, match=sentence):
        save(tmp_path / name, samples, rate)


def test_the_opus_bytes_of_a_clip_are_its_own_file_or_a_new_one(tmp_path):
    save(tmp_path / "a.opus", chirp(1.0))
    own = (tmp_path / "a.opus").read_bytes()
    assert opus_bytes(tmp_path / "a.opus") == opus_bytes(tmp_path / "a.opus", 0.0, 0.99) == own
    save(tmp_path / "b.wav", chirp(1.0))
    for path, start, duration in (("a.opus", 0.0, 0.5), ("b.wav", 0.25, 0.5)):
        part = load_bytes(opus_bytes(tmp_path / path, start, duration), "part.opus")
        assert len(part) == pytest.approx(SAMPLE_RATE / 2, abs=2)


def test_mp3_is_decoded_to_16_bits_because_its_floats_cannot_be_trusted(tmp_path):
    """libsndfile 1.2.2 gives 15 % of an old game's clips as rubbish when asked for floats."""
    soundfile.write(tmp_path / "a.mp3", chirp(1.0), SAMPLE_RATE, format="MP3")
    samples = load(tmp_path / "a.mp3")
    theirs, _ = soundfile.read(tmp_path / "a.mp3", dtype="int16")
    assert np.array_equal(samples * 2**15, theirs)
