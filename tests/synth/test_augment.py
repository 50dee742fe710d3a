from typing import get_args

import numpy as np
import pytest

from voicetextblender.synth.augment import (
    Noise,
    add_noise,
    apply_gain,
    augment,
    clip_peaks,
    make_noise,
    reverberate,
    through_band,
    through_mu_law,
    through_opus,
)

RATE = 16_000
OTHERS = [np.sin(np.arange(n) / 7).astype(np.float32) for n in (3_000, 40_000)]


def speech(length=24_001):
    """Bursts of harmonics, as loud as speech."""
    times = np.arange(length) / RATE
    voice = sum(np.sin(2 * np.pi * 140 * n * times) / n for n in range(1, 40))
    return (0.08 * voice * (np.sin(2 * np.pi * 3 * times) > 0)).astype(np.float32)


def power_db(samples):
    return 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)))


def energy_share(samples, low, high):
    power = np.abs(np.fft.rfft(samples)) ** 2
    frequencies = np.fft.rfftfreq(len(samples), 1 / RATE)
    return power[(frequencies >= low) & (frequencies < high)].sum() / power.sum()


@pytest.mark.parametrize("rate", [16_000, 24_000, 22_050])
def test_every_condition_keeps_length_and_type_and_stays_in_range(rate):
    clean = speech()
    seen = set()
    for seed in range(60):
        noisy, meta = augment(clean, rate, np.random.default_rng(seed), others=OTHERS)
        assert noisy.shape == clean.shape and noisy.dtype == np.float32
        assert np.isfinite(noisy).all() and 1e-3 < np.abs(noisy).max() <= 1
        seen |= set(meta) | {meta.get("channel"), meta.get("noise", {}).get("kind")}
    assert seen >= {"room", "noise", "clipped", "channel", "gain_db", *get_args(Noise)}
    assert seen >= {"telephone", "radio", "opus"}


def test_the_same_seed_gives_the_same_clip_and_the_input_is_left_alone():
    clean = speech()
    kept = clean.copy()
    for seed in range(8):
        first, again = (augment(clean, RATE, np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(first[0], again[0])
        assert first[1] == again[1]
    np.testing.assert_array_equal(clean, kept)


def test_without_strength_nothing_is_done_and_too_much_is_refused():
    clean = speech()
    same, meta = augment(clean, RATE, np.random.default_rng(0), strength=0)
    np.testing.assert_array_equal(same, clean)
    assert meta == {"gain_db": 0}
    with pytest.raises(ValueError, match="strength is 2; it must be 0"):
        augment(clean, RATE, np.random.default_rng(0), strength=2)


@pytest.mark.parametrize("kind", get_args(Noise))
@pytest.mark.parametrize("snr_db", [5.0, 17.3, 30.0])
def test_the_noise_is_as_far_below_the_speech_as_asked(kind, snr_db):
    clean = speech()
    noise = make_noise(kind, len(clean), np.random.default_rng(1), OTHERS)
    added = add_noise(clean, noise, snr_db).astype(np.float64) - clean
    assert power_db(clean) - power_db(added) == pytest.approx(snr_db, abs=0.5)


def test_noise_is_white_pink_or_brown():
    low = {
        kind: energy_share(make_noise(kind, RATE, np.random.default_rng(0)), 0, 800)
        for kind in ("white", "pink", "brown")
    }
    assert low["white"] == pytest.approx(0.1, abs=0.02)  # a tenth of the band
    assert 0.6 < low["pink"] < 0.9 < low["brown"]


def test_a_babble_needs_talkers_and_silence_adds_nothing():
    with pytest.raises(ValueError, match="a babble is made of other clips, and there are none"):
        make_noise("babble", 10, np.random.default_rng(0), [np.zeros(0, np.float32)])
    clean = speech()
    np.testing.assert_array_equal(add_noise(clean, np.zeros_like(clean), 5), clean)


def test_a_room_rings_on_for_its_time_and_is_as_loud_as_before():
    click = np.zeros(RATE, dtype=np.float32)
    click[0] = 1
    rung = reverberate(click, RATE, 0.5, np.random.default_rng(0))
    after = [power_db(rung[int(t * RATE) : int((t + 0.05) * RATE)]) for t in (0.05, 0.25)]
    assert after[0] - after[1] == pytest.approx(0.2 / 0.5 * 60, abs=3)
    assert power_db(rung) == pytest.approx(power_db(click), abs=0.1)


def test_a_gain_is_what_it_says_and_never_clips():
    clean = speech()
    softer, gain_db = apply_gain(clean, -6.0)
    assert power_db(clean) - power_db(softer) == pytest.approx(6, abs=0.01) and gain_db == -6
    louder, gain_db = apply_gain(clean, 60.0)
    assert gain_db < 60 and np.abs(louder).max() == pytest.approx(1, abs=2e-3)


def test_channels_take_away_what_they_cannot_carry():
    clean = speech()
    telephone = through_mu_law(through_band(clean, RATE, 300, 3400), RATE)
    assert energy_share(clean, 0, 290) > 0.5 > 0.03 > energy_share(telephone, 0, 290)
    assert energy_share(telephone, 4100, 8001) < 1e-3
    packed = through_opus(clean, RATE, 1.0)
    assert len(packed) == len(clean)
    assert 0.8 < np.corrcoef(packed, clean)[0, 1] < 0.9999  # in step, and not the same


def test_mu_law_is_close_at_every_level():
    for level in (0.9, 0.05):
        tone = (level * np.sin(np.arange(8_000) / 5)).astype(np.float32)
        error = through_mu_law(tone, 8_000) - tone
        assert 25 < power_db(tone) - power_db(error) < 50


def test_clipping_cuts_the_peaks_alone():
    clean = speech()
    cut = clip_peaks(clean, 0.5)
    limit = 0.5 * np.abs(clean).max()
    assert np.abs(cut).max() == pytest.approx(limit)
    quiet = np.abs(clean) < limit
    np.testing.assert_array_equal(cut[quiet], clean[quiet])
