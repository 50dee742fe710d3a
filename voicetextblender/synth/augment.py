"""Speaking conditions: what rooms, bystanders, telephones and codecs do to a clean voice.

Pure functions of samples (S,), float32, one channel; none changes their number. What is random
comes from the generator that is passed in, so the same seed gives the same clip.
"""

import io
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import soundfile
import soxr

from voicetextblender.seeding import one_of

Noise = Literal["white", "pink", "brown", "babble"]
Channel = Literal["telephone", "radio", "opus"]
Meta = dict[str, object]

_TELEPHONE_RATE = 8_000  # Hz
_OPUS_RATE = 16_000  # Hz
_OPUS_LEVELS = (0.95, 1.0)  # libsndfile's scale: about 25 and 13 kbit/s in practice
_BANDS = {"telephone": (300.0, 3400.0), "radio": (100.0, 4500.0)}  # Hz
_TILT = {"white": 0.0, "pink": 0.5, "brown": 1.0}  # amplitude falls with frequency to this power
_NUM_TALKERS = 5  # that make a babble


def augment(
    samples: np.ndarray,
    rate: int,
    random: np.random.Generator,
    strength: float = 1.0,
    others: Sequence[np.ndarray] = (),
) -> tuple[np.ndarray, Meta]:
    """Put samples into conditions drawn at random; return them and what was done, in order.

    `strength` 0 to 1 is how often and how badly; `others` are clips at the same rate that a babble
    is made of. Raises ValueError for a strength out of range.
    """
    if not 0 <= strength <= 1:
        raise ValueError(
            f"strength is {strength}; it must be 0 (leave alone) to 1 (all conditions)"
        )
    meta: Meta = {}
    if random.random() < 0.4 * strength:
        rt60_s = round(float(random.uniform(0.15, 0.15 + 0.75 * strength)), 2)
        samples = reverberate(samples, rate, rt60_s, random)
        meta["room"] = {"rt60_s": rt60_s}
    if random.random() < 0.6 * strength:
        kinds = [kind for kind in get_args(Noise) if others or kind != "babble"]
        kind: Noise = one_of(kinds, random)
        snr_db = round(float(random.uniform(30 - 25 * strength, 30)), 1)
        samples = add_noise(samples, make_noise(kind, len(samples), random, others), snr_db)
        meta["noise"] = {"kind": kind, "snr_db": snr_db}
    if random.random() < 0.1 * strength:
        share = round(float(random.uniform(0.3, 0.8)), 2)
        samples = clip_peaks(samples, share)
        meta["clipped"] = {"share_of_peak": share}
    if random.random() < 0.5 * strength:
        channel = one_of(get_args(Channel), random)
        meta["channel"] = channel
        if channel == "opus":
            level = round(float(random.uniform(*_OPUS_LEVELS)), 3)
            samples = through_opus(samples, rate, level)
        else:
            samples = through_band(samples, rate, *_BANDS[channel])
            if channel == "telephone":
                samples = through_mu_law(samples, rate)
    gain_db = round(float(random.uniform(-18, 6)) * strength, 1)
    samples, gain_db = apply_gain(samples, gain_db)
    meta["gain_db"] = gain_db
    return samples, meta


def apply_gain(samples: np.ndarray, gain_db: float) -> tuple[np.ndarray, float]:
    """Return louder or softer samples, and the gain in dB: less than asked if they would clip."""
    headroom_db = -20 * np.log10(max(float(np.abs(samples).max(initial=0.0)), 1e-6))
    gain_db = round(min(gain_db, float(headroom_db)), 2)
    return np.clip(samples * np.float32(10 ** (gain_db / 20)), -1, 1), gain_db


def make_noise(
    kind: Noise, length: int, random: np.random.Generator, others: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """Return `length` samples of noise at no particular level.

    A babble is a few of `others` at once, each from a random place. Raises ValueError if there
    are none.
    """
    if kind == "babble":
        others = [other for other in others if len(other)]
        if not others:
            raise ValueError("a babble is made of other clips, and there are none")
        talkers = [others[int(n)] for n in random.integers(len(others), size=_NUM_TALKERS)]
        rolled = (np.roll(talker, int(random.integers(len(talker)))) for talker in talkers)
        return np.stack([np.resize(talker, length) for talker in rolled]).sum(axis=0)
    spectrum = np.fft.rfft(random.standard_normal(length))
    spectrum[0] = 0
    spectrum[1:] /= np.arange(1, len(spectrum)) ** _TILT[kind]
    return np.fft.irfft(spectrum, length).astype(np.float32)


def add_noise(samples: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Return samples + noise (S,), the noise scaled so that their powers are `snr_db` apart.

    Where either is silent, the samples are returned as they are.
    """
    if _level(noise) < 1e-9:
        return samples
    scale = _level(samples) / _level(noise) * 10 ** (-snr_db / 20)
    return np.add(samples, np.float32(scale) * noise, dtype=np.float32)


def reverberate(
    samples: np.ndarray, rate: int, rt60_s: float, random: np.random.Generator
) -> np.ndarray:
    """Return samples as heard in a room whose sound falls by 60 dB in `rt60_s`, as loud as before.

    The room is noise that dies away behind the direct sound; it has no walls and no corners.
    """
    times = np.arange(1, int(rt60_s * rate)) / rate
    tail = random.standard_normal(len(times)) * 10 ** (-3 * times / rt60_s)
    tail *= random.uniform(0.3, 1.0) / max(float(np.linalg.norm(tail)), 1e-9)  # direct sound is 1
    response = np.concatenate([[1.0], tail])
    size = 1 << (len(samples) + len(response) - 2).bit_length()  # fast to transform
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)
    return _as_loud(wet[: len(samples)], samples)


def clip_peaks(samples: np.ndarray, share: float) -> np.ndarray:
    """Return samples cut off at a share of their peak, as an overdriven microphone does."""
    limit = share * np.abs(samples).max(initial=0.0)
    return np.clip(samples, -limit, limit)


def through_band(samples: np.ndarray, rate: int, low: float, high: float) -> np.ndarray:
    """Return what is left of samples between two frequencies in Hz."""
    spectrum = np.fft.rfft(samples)
    frequencies = np.fft.rfftfreq(len(samples), 1 / rate)
    spectrum[(frequencies < low) | (frequencies > high)] = 0
    return np.fft.irfft(spectrum, len(samples)).astype(np.float32)


def through_mu_law(samples: np.ndarray, rate: int) -> np.ndarray:
    """Return samples after 8 kHz, 8-bit mu-law: a telephone line's G.711."""
    narrow = np.clip(soxr.resample(samples, rate, _TELEPHONE_RATE), -1, 1)
    packed = np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256)
    packed = np.round(packed * 127) / 127
    narrow = np.sign(packed) * (256 ** np.abs(packed) - 1) / 255
    return _fitted(soxr.resample(narrow.astype(np.float32), _TELEPHONE_RATE, rate), len(samples))


def through_opus(samples: np.ndarray, rate: int, level: float) -> np.ndarray:
    """Return samples after Opus at 16 kHz; `level` 0.95 is 25 kbit/s and 1.0 is 13 kbit/s."""
    file = io.BytesIO()
    wide = np.clip(soxr.resample(samples, rate, _OPUS_RATE), -1, 1)
    soundfile.write(file, wide, _OPUS_RATE, format="OGG", subtype="OPUS", compression_level=level)
    file.seek(0)
    heard, _ = soundfile.read(file, dtype="float32")
    return _fitted(soxr.resample(heard, _OPUS_RATE, rate), len(samples))


def _level(samples: np.ndarray) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if samples.size else 0.0


def _as_loud(samples: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return (samples * (_level(wanted) / max(_level(samples), 1e-9))).astype(np.float32)


def _fitted(samples: np.ndarray, length: int) -> np.ndarray:
    """Return `length` samples: resampling there and back may end one off."""
    return np.pad(samples[:length], (0, max(0, length - len(samples)))).astype(np.float32)
