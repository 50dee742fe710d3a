import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from voicetextblender.model.splice import audio_mask, splice, spread

AUDIO = 99
prompts = st.lists(st.integers(0, 9) | st.none(), max_size=12)  # None: a clip's slot


@given(prompts, st.data())
def test_spreading_replaces_each_slot_by_its_clip_and_leaves_the_text(prompt, data):
    slots = [at for at, token in enumerate(prompt) if token is None]
    lens = data.draw(st.lists(st.integers(0, 4), min_size=len(slots), max_size=len(slots)))
    ids = [-1 if token is None else token for token in prompt]
    spread_ids = spread(ids, slots, lens, AUDIO)
    assert [token for token in spread_ids if token != AUDIO] == [i for i in ids if i != -1]
    remaining = iter(lens)
    expected = [t for i in ids for t in ([AUDIO] * next(remaining) if i == -1 else [i])]
    assert spread_ids == expected


def test_every_slot_needs_its_length():
    with pytest.raises(ValueError, match="shorter"):
        spread([1, -1, 2, -1], [1, 3], [2], AUDIO)


@given(st.lists(st.booleans(), max_size=12))
def test_speech_goes_where_the_mask_is_true_in_order_and_text_passes_untouched(is_audio):
    mask = torch.tensor(is_audio, dtype=torch.bool)
    text = torch.arange(len(mask) * 3.0).view(-1, 3)
    audio = -1.0 - torch.arange(int(mask.sum()) * 3.0).view(-1, 3)
    spliced = splice(text, audio, mask)
    assert torch.equal(spliced[mask], audio)
    assert torch.equal(spliced[~mask], text[~mask])


def test_without_speech_the_text_is_the_very_same_tensor():
    text = torch.randn(3, 2)
    assert splice(text, torch.zeros(0, 2), torch.zeros(3, dtype=torch.bool)) is text


def test_speech_takes_the_precision_of_the_text():
    text = torch.zeros(2, 3, dtype=torch.bfloat16)
    spliced = splice(text, torch.ones(1, 3), torch.tensor([False, True]))
    assert spliced.dtype == torch.bfloat16


def test_the_gradient_flows_to_speech_and_text():
    text, audio = torch.zeros(3, 2, requires_grad=True), torch.zeros(1, 2, requires_grad=True)
    (
        splice(text, audio, torch.tensor([False, True, False])) * torch.arange(6).view(3, 2)
    ).sum().backward()
    assert audio.grad.tolist() == [[2, 3]]
    assert text.grad.tolist() == [[0, 1], [0, 0], [4, 5]]


@pytest.mark.parametrize("num_embeds", [0, 1, 3])
def test_a_wrong_number_of_embeddings_is_refused(num_embeds):
    mask = audio_mask(torch.tensor([1, AUDIO, AUDIO, 2]), AUDIO)
    with pytest.raises(ValueError, match=f"2 audio positions in the tokens, but {num_embeds} "):
        splice(torch.zeros(4, 3), torch.zeros(num_embeds, 3), mask)
