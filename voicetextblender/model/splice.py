"""Putting speech among the text: the one delicate step, as a pure function.

Shapes: N tokens, E language-model width, A audio embeddings.
"""

import torch
from torch import Tensor


def splice(text: Tensor, audio: Tensor, is_audio: Tensor) -> Tensor:
    """Return (N, E): `audio` (A, E), in order, where `is_audio` (N,) is true; `text` elsewhere.

    Text embeddings pass through untouched. Raises ValueError if the counts do not match.
    """
    slots = int(is_audio.sum())
    if slots != len(audio):
        raise ValueError(
            f"{slots} audio positions in the tokens, but {len(audio)} audio embeddings; "
            f"each clip needs one position for each of its embeddings"
        )
    if slots == 0:
        return text
    return text.masked_scatter(is_audio.unsqueeze(-1), audio.to(text.dtype))


def spread(token_ids: list[int], slots: list[int], lens: list[int], audio_id: int) -> list[int]:
    """Return the ids with each slot replaced by `audio_id` as often as its clip has embeddings.

    `slots` are the positions of the clips in `token_ids`, ascending; `lens` their embeddings.
    """
    spread_ids: list[int] = []
    begin = 0
    for at, n in zip(slots, lens, strict=True):
        spread_ids += token_ids[begin:at] + [audio_id] * n
        begin = at + 1
    return spread_ids + token_ids[begin:]


def audio_mask(input_ids: Tensor, audio_id: int) -> Tensor:
    """(N,) bool, true on audio positions. User text can never hold the audio token (prompt.py)."""
    return torch.eq(input_ids, audio_id)
