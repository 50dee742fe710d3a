"""Sound files: anything that can be decoded in, mono float32 at one rate out.

soundfile reads what it can, PyAV the rest, soxr resamples. A path may name a member of an
uncompressed tar, `shards/000.tar#0412.opus`, or a value of a Parquet column, `000.parquet#audio/17`
(column and row). This module knows nothing of conversations or tensors.
"""

import hashlib
import io
import math
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import soundfile

from voicetextblender.cache import index_of
from voicetextblender.parquet import parquet_value

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

SAMPLE_RATE = 16_000  # Hz

_MARGIN_S = 0.1  # read before and after a slice: Opus needs 80 ms to settle, the resampler less
_ROUNDED_S = 0.05  # a stated duration that is nearer than this to the whole means the whole
_FULL_SCALE_LIMIT = 8.0  # a float file above it holds integers; music masters stay below 4
_BLOCK = 1 << 20  # frames turned to mono at a time, so hours of stereo are never held whole
_HEADERLESS = {".g722": "g722"}  # suffix → the format that FFmpeg cannot guess
_CODECS = {".wav": "WAV", ".flac": "FLAC", ".opus": "OGG"}
_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)  # Hz
_OPUS_EFFORT = 5  # of 10: half as slow, and no ear tells


@dataclass(frozen=True, slots=True)
class _Mono:
    """Decoded samples (n,) at the file's own rate, the first of them `first` frames into it."""

    samples: np.ndarray
    rate: int
    first: int


def load(path: str | Path, start: float = 0.0, duration: float | None = None) -> np.ndarray:
    """Decode a file, or `duration` seconds from `start`, to mono float32 (n,) in [-1, 1].

    The rate is SAMPLE_RATE; channels are averaged. A slice that runs past the end stops there.
    Raises FileNotFoundError, or ValueError if there is no sound to be had.
    """
    with _open(path) as file:
        return _load(file, str(path), start, duration)


def load_bytes(
    data: bytes, name: str, start: float = 0.0, duration: float | None = None
) -> np.ndarray:
    """Decode a file's bytes as `load` does; `name` gives the suffix and opens every error."""
    return _load(io.BytesIO(data), name, start, duration)


def probe_duration(path: str | Path) -> float:
    """Return the length in seconds, from the header where there is one, without decoding."""
    with _open(path) as file:
        sound = _open_soundfile(file, str(path))
        if sound is None:
            return _probe_av(file, str(path))
        with sound:
            return sound.frames / sound.samplerate


def save(path: str | Path, samples: np.ndarray, rate: int = SAMPLE_RATE) -> None:
    """Write mono samples (n,), clipped to [-1, 1], as .wav or .flac (16 bit) or .opus (24 kbit/s).

    Raises ValueError if the suffix, the rate or the samples cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _CODECS:
        raise ValueError(f"{path}: cannot write '{suffix}' files; use {', '.join(_CODECS)}")
    if suffix == ".opus" and rate not in _OPUS_RATES:
        raise ValueError(f"{path}: Opus cannot hold {rate} Hz; use one of {_OPUS_RATES}")
    if samples.ndim != 1 or not samples.size or not np.isfinite(samples).all():
        raise ValueError(
            f"{path}: samples must be a row of finite numbers, one channel, at least one sample, "
            f"not an array {samples.shape} with {np.isfinite(samples).sum()} finite values"
        )
    if suffix == ".opus":
        Path(path).write_bytes(encode_opus(samples, rate))
        return
    samples = np.clip(samples, -1.0, 1.0).astype(np.float32)
    soundfile.write(str(path), samples, rate, subtype="PCM_16", format=_CODECS[suffix])


def encode_opus(samples: np.ndarray, rate: int = SAMPLE_RATE, bits_per_s: int = 24_000) -> bytes:
    """Return mono samples (n,), clipped to [-1, 1], as an Ogg Opus file; `rate` must be Opus's."""
    import av

    whole = (np.clip(samples, -1.0, 1.0) * 32767).round().astype(np.int16)
    file = io.BytesIO()
    with av.open(file, "w", format="ogg") as container:
        effort = {"compression_level": str(_OPUS_EFFORT)}
        stream = container.add_stream("libopus", rate=rate, layout="mono", options=effort)
        stream.bit_rate = bits_per_s
        frame = av.AudioFrame.from_ndarray(whole[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        for piece in (frame, None):
            container.mux(stream.encode(piece))
    return file.getvalue()


def opus_bytes(path: str | Path, start: float = 0.0, duration: float | None = None) -> bytes:
    """Return a clip as the bytes of an Opus file: its own where it is all of one, or 24 kbit/s.

    Raises FileNotFoundError, or ValueError if there is no sound to be had.
    """
    if str(path).endswith(".opus") and not start:
        length_s = probe_duration(path)
        if duration is None or abs(length_s - duration) < _ROUNDED_S:
            with _open(path) as file:
                return file.read()
    return encode_opus(load(path, start, duration))


def _load(file: BinaryIO, name: str, start: float, duration: float | None) -> np.ndarray:
    if not 0 <= start < math.inf:
        raise ValueError(f"{name}: start is {start}; it must be seconds, 0 or more")
    if duration is not None and not 0 < duration < math.inf:
        raise ValueError(f"{name}: duration is {duration}; it must be seconds, more than 0")
    sound = _open_soundfile(file, name)
    if sound is None:
        mono = _decode_av(file, name, start, duration)
    else:
        with sound:
            mono = _decode_soundfile(sound, name, start, duration)
    return _cut(mono, name, start, duration)


def _cut(mono: _Mono, name: str, start: float, duration: float | None) -> np.ndarray:
    """Check, resample and trim to the slice."""
    import soxr

    peak = np.abs(mono.samples).max(initial=0.0)
    if not np.isfinite(peak):
        raise ValueError(f"{name}: holds samples that are not finite numbers; export it again")
    if peak > _FULL_SCALE_LIMIT:
        raise ValueError(
            f"{name}: samples reach {peak:.0f} where full scale is 1.0; "
            f"divide 16-bit values by 32768 before saving them as floats"
        )
    samples = mono.samples
    if mono.rate != SAMPLE_RATE and samples.size:
        samples = soxr.resample(samples, mono.rate, SAMPLE_RATE)
    # A container whose index is wrong may be entered late; what is before is lost then.
    begin = max(0, round(start * SAMPLE_RATE) - round(mono.first * SAMPLE_RATE / mono.rate))
    end = None if duration is None else begin + max(1, round(duration * SAMPLE_RATE))
    clip = samples[begin:end]
    if not clip.size:
        length_s = (mono.first + mono.samples.size) / mono.rate
        if not length_s:
            raise ValueError(f"{name}: holds no samples; record it again or leave it out")
        raise ValueError(
            f"{name}: start {start:g} s is beyond the end at {length_s:.3f} s; correct the slice"
        )
    return np.clip(clip, -1.0, 1.0)


def _span(start: float, duration: float | None, rate: int) -> tuple[int, int]:
    """Return the first and one past the last frame to decode for a slice.

    The first falls where a frame and an output sample coincide, so that a resampled slice lies on
    the same grid as the resampled whole.
    """
    grid = rate // math.gcd(rate, SAMPLE_RATE)
    first = max(0, math.floor((start - _MARGIN_S) * rate)) // grid * grid
    if duration is None:
        return first, sys.maxsize
    return first, math.ceil((start + duration + _MARGIN_S) * rate)


def _open_soundfile(file: BinaryIO, name: str) -> soundfile.SoundFile | None:
    """Open with soundfile, or rewind and return None for what only PyAV may know."""
    if not file.seek(0, io.SEEK_END):
        raise ValueError(f"{name}: is empty (0 bytes); copy or record it again")
    file.seek(0)
    if Path(name).suffix.lower() in _HEADERLESS:
        return None
    try:
        # Through the descriptor, libsndfile reads by itself, not by calling Python for each piece.
        is_on_disk = isinstance(file, io.BufferedReader)
        return soundfile.SoundFile(file.fileno() if is_on_disk else file, closefd=not is_on_disk)
    except (soundfile.LibsndfileError, TypeError):  # TypeError: a .raw file has no header
        file.seek(0)
        return None


def _decode_soundfile(
    sound: soundfile.SoundFile, name: str, start: float, duration: float | None
) -> _Mono:
    first, end = _span(start, duration, sound.samplerate)
    first = min(first, sound.frames)
    try:
        sound.seek(first)
        # libsndfile 1.2.2 has MP3 decoded to floats that are now and then rubbish, not to integers.
        is_mp3 = sound.format == "MP3"
        blocks = sound.blocks(
            _BLOCK,
            frames=min(end, sound.frames) - first,
            dtype="int16" if is_mp3 else "float32",
            always_2d=True,
        )
        mean = np.full(sound.channels, (2**-15 if is_mp3 else 1) / sound.channels, np.float32)
        chunks = [
            block[:, 0] if sound.channels == 1 and not is_mp3 else block @ mean for block in blocks
        ]
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"{name}: is damaged ({error.error_string}); copy it again or leave it out"
        ) from None
    samples = np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
    return _Mono(samples, sound.samplerate, first)


@contextmanager
def _open_av(file: BinaryIO, name: str) -> "Iterator[tuple[InputContainer, AudioStream, Fraction]]":
    """Open the first audio stream, with its tick in seconds; PyAV's errors become ours in use."""
    import av
    from av.error import FFmpegError

    # An uploaded playlist must not make FFmpeg open other files or addresses.
    options = {"protocol_whitelist": "none"}
    try:
        kind = _HEADERLESS.get(Path(name).suffix.lower())
        with av.open(file, "r", format=kind, options=options) as container:
            if not container.streams.audio:
                raise ValueError(f"{name}: holds no audio stream; give a file with sound in it")
            stream = container.streams.audio[0]
            if stream.codec_context is None or not stream.rate:
                raise ValueError(f"{name}: its sound cannot be decoded; convert it to FLAC or WAV")
            yield container, stream, stream.time_base or Fraction(1, stream.rate)
    except FFmpegError as error:
        raise ValueError(
            f"{name}: cannot be read as audio ({error}); "
            f"if it plays elsewhere, convert it to FLAC or WAV"
        ) from None


def _decode_av(file: BinaryIO, name: str, start: float, duration: float | None) -> _Mono:
    from av.audio.resampler import AudioResampler

    with _open_av(file, name) as (container, stream, tick):
        rate = stream.rate
        first, end = _span(start, duration, rate)
        # A stream without timestamps (raw AAC, G.722) can only be decoded from its beginning.
        seek_from = stream.start_time if first > rate else None
        if seek_from is not None:
            container.seek(seek_from + int(first / rate / tick), stream=stream)
        to_float = AudioResampler(format="fltp", rate=rate)
        position, num_decoded, chunks = 0, 0, [np.zeros(0, np.float32)]
        for frame in container.decode(stream):
            if seek_from is not None and not num_decoded:
                position = round(((frame.pts or 0) - seek_from) * tick * rate)
            decoded = [part.to_ndarray().mean(axis=0) for part in to_float.resample(frame)]
            num_decoded += sum(part.size for part in decoded)
            chunks += decoded
            if position + num_decoded >= end:
                break
        samples = np.concatenate(chunks)
        if stream.start_time is not None and stream.duration:
            # MP4 pads its last packet with silence and says so only in the header.
            excess = position + num_decoded - round(stream.duration * tick * rate)
            samples = samples[:-excess] if 0 < excess < _MARGIN_S * rate else samples
    skip = min(max(0, first - position), samples.size)
    return _Mono(samples[skip:], rate, position + skip)


def _probe_av(file: BinaryIO, name: str) -> float:
    with _open_av(file, name) as (container, stream, tick):
        if stream.start_time is not None and stream.duration:
            return float(stream.duration * tick)
        if stream.start_time is not None and container.duration:
            return container.duration / 1e6  # WebM: all streams together, in microseconds
        # Live WebM and raw streams do not say how long they are: add up their packets.
        ticks = sum(packet.duration or 0 for packet in container.demux(stream))
        return float(ticks * tick)


@contextmanager
def _open(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file, a tar member or a value of a Parquet column, for reading and seeking."""
    archive, kind, member = str(path), "", ""
    for suffix in (".tar", ".parquet"):
        if f"{suffix}#" in archive:
            archive, kind, member = str(path).partition(f"{suffix}#")
            archive += suffix
            break
    path = Path(archive)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: there is no such file; check the path, "
            f"which in a conversations file is relative to that file"
        )
    if kind == ".parquet#":
        column, _, row = member.rpartition("/")
        if not column or not row.isdecimal():
            raise ValueError(f"{path}#{member}: after '#' must stand COLUMN/ROW, such as audio/17")
        yield io.BytesIO(parquet_value(path, column, int(row)))
        return
    with path.open("rb") as file:
        yield io.BytesIO(_read_member(path, file, member)) if kind else file


def _read_member(path: Path, file: BinaryIO, member: str) -> bytes:
    index = index_of(path, _tar_index)
    key = _key(member)
    at = int(np.searchsorted(index[:, 0], key))
    if at == len(index) or index[at, 0] != key:
        names = [name for name, _, _ in _members(path)]
        raise ValueError(
            f"{path}#{member}: the tar has no such member, but {len(names)} others, "
            f"such as '{min(names, default='')}'; correct the name after '#'"
        )
    file.seek(int(index[at, 1]))
    return file.read(int(index[at, 2]))


def _tar_index(path: Path) -> np.ndarray:
    """Return (members, 3) uint64: key of the name, by which they are sorted, offset and size."""
    rows = [(_key(name), offset, size) for name, offset, size in _members(path)]
    return np.array(sorted(rows), np.uint64).reshape(-1, 3)


def _key(name: str) -> np.uint64:
    digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "big"))


def _members(path: Path) -> list[tuple[str, int, int]]:
    """Return the name, offset and size of every file in a tar; the last of equal names wins."""
    try:
        with tarfile.open(path, "r:") as tar:
            files = {m.name.removeprefix("./"): m for m in tar if m.isreg()}
    except tarfile.TarError as error:
        raise ValueError(
            f"{path}: is not an uncompressed tar ({error}); "
            f"clips are read at random, so unpack it with gunzip first"
        ) from None
    return [(name, member.offset_data, member.size) for name, member in files.items()]
