import pytest
import torch

from voicetextblender.train.frames import FrameCache


@pytest.fixture
def features():
    return torch.randn(70, 8, generator=torch.Generator().manual_seed(0))


LENS = (30, 40)


def test_frames_come_from_the_cache_as_the_encoder_made_them(build, features, tmp_path):
    model = build()
    expected, lens = model.encode(features, LENS)
    cache = FrameCache(tmp_path, model, 1.0)
    made, made_lens = cache.encode(features, LENS)
    model.encode = None  # whoever encodes again fails
    kept, kept_lens = cache.encode(features, LENS)
    assert lens == made_lens == kept_lens
    torch.testing.assert_close(made, expected)
    assert torch.equal(kept, made)


def test_frames_do_not_depend_on_which_other_clips_were_new(build, features, tmp_path):
    model = build(dtype=torch.bfloat16)
    whole, _ = FrameCache(tmp_path / "a", model, 1.0).encode(features, LENS)
    cache = FrameCache(tmp_path / "b", model, 1.0)
    cache.encode(features[:30], LENS[:1])
    assert torch.equal(cache.encode(features, LENS)[0], whole)


def test_another_encoder_does_not_find_them(build, features, tmp_path):
    model = build()
    first, _ = FrameCache(tmp_path, model, 1.0).encode(features, LENS)
    with torch.no_grad():
        next(model.encoder.parameters()).add_(0.1)
    assert not torch.equal(FrameCache(tmp_path, model, 1.0).encode(features, LENS)[0], first)


def test_the_cache_does_not_grow_beyond_its_limit(build, features, tmp_path):
    model = build()
    one_clip = 15 * 16 * 4  # frames of the first clip, in bytes
    cache = FrameCache(tmp_path, model, (one_clip + 100) / 1e9)
    frames, _ = cache.encode(features, LENS)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.stat().st_size for path in files] == [one_clip]
    again = FrameCache(tmp_path, model, one_clip / 1e9)
    assert again.room == pytest.approx(0, abs=1)
    assert torch.equal(again.encode(features, LENS)[0], frames)
    assert len(list(tmp_path.rglob("*"))) == len(files) + 2
