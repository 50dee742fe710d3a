"""What the LLM has read: keys and values of the answers that grow, and of those that ended.

Shapes: R rows, L tokens of room in a row, B rows in use, n tokens seen, H key heads, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import Cache

from voicetextblender.model.layout import ROUND, rounded

ROOM = 8 * ROUND
"""A row's room grows by so many tokens."""


class RowCache(Cache):
    """Keys and values of several answers, a row each; rows in use come first.

    A layer's store is (R, L, 2, H, C), keys and values side by side, so that one copy adds a token.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.lens: list[int] = []
        """Tokens in each row in use."""
        self.stores: list[Tensor] = []
        self.places = torch.empty(0, dtype=torch.long)
        """(B K,): where the step's tokens of each row go, rows joined."""
        self.filling: tuple[int, ...] = ()
        """Lengths of the packed prompts that are being read; empty while answers grow."""

    def put(self, layer: int, row: int, begin: int, pairs: Tensor) -> Tensor:
        """Write (n, 2, H, C) behind a row's first `begin` tokens.

        Returns all that the row holds, and what follows up to a multiple of `ROUND` tokens.
        """
        end = begin + len(pairs)
        store = self._store(layer, row + 1, end, pairs)
        store[row, begin:end] = pairs
        return store[row, : rounded(end)]

    def open_step(self, num: int, device: torch.device) -> Tensor:
        """Make room for K = `num` more tokens in every row; return their (B, K) positions."""
        for layer, store in enumerate(self.stores):
            self._store(layer, len(self.lens), max(self.lens) + num, store)
        positions = torch.tensor(self.lens).unsqueeze(1) + torch.arange(num)
        rows = torch.arange(len(self.lens)).unsqueeze(1) * self.stores[0].shape[1]
        self.places = (rows + positions).flatten().to(device)
        return positions.to(device)

    def append(self, layer: int, pairs: Tensor) -> Tensor:
        """Write (B K, 2, H, C), the step's tokens of each row, and return (B, n, 2, H, C)."""
        store = self.stores[layer]
        store.flatten(0, 1).index_copy_(0, self.places, pairs)
        num = len(self.places) // len(self.lens)
        return store[: len(self.lens), : max(self.lens) + num]

    def close_step(self) -> None:
        """Count the first of the step's tokens; who asked for more counts them."""
        self.lens = [n + 1 for n in self.lens]

    def mask(self, positions: Tensor) -> Tensor | None:
        """(B, 1, K, n): true where tokens at (B, K) positions may look; None if that is all."""
        if positions.shape[1] == 1 and min(self.lens) == max(self.lens):
            return None
        seen = torch.arange(max(self.lens) + positions.shape[1], device=positions.device)
        return (seen <= positions.unsqueeze(2)).unsqueeze(1)

    def drop(self, row: int) -> None:
        """Forget a row; the last one takes its place."""
        last = len(self.lens) - 1
        if row != last:
            for store in self.stores:
                store[row, : self.lens[last]] = store[last, : self.lens[last]]
        self.lens[row] = self.lens[last]
        self.lens.pop()
        if not self.lens:
            self.clear()

    def clear(self) -> None:
        """Forget all rows and give their memory back."""
        self.lens.clear()
        self.stores.clear()

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **_: object
    ) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values, for transformers, and return those to attend to.

        While `filling`, they are the packed prompts of new rows, (1, H, N, C), which attend within
        the pack; else one token of each row, (B, H, 1, C), which attends to (B, H, n, C).
        """
        pairs = torch.stack([key_states, value_states], dim=3)  # (1 or B, H, N or 1, 2, C)
        if self.filling:
            row = len(self.lens) - len(self.filling)
            prompts = pairs[0, :, : sum(self.filling)].permute(1, 2, 0, 3)
            for prompt in prompts.split(self.filling):
                self.put(layer_idx, row, 0, prompt)
                row += 1
            return key_states, value_states
        seen = self.append(layer_idx, pairs[:, :, 0].transpose(1, 2))
        keys, values = seen.permute(2, 0, 3, 1, 4)
        return keys, values

    def _store(self, layer: int, rows: int, tokens: int, like: Tensor) -> Tensor:
        """Return a layer's store, made or enlarged to hold `rows` of `tokens`."""
        if layer == len(self.stores):
            self.stores.append(like.new_zeros(0, 0, *like.shape[-3:]))
        store = self.stores[layer]
        num, room = store.shape[:2]
        if rows > num or tokens > room:
            # Zeros, not memory as it comes: what is masked out is still multiplied.
            num = max(num, 1 << (rows - 1).bit_length())
            room = max(room, -(-tokens // ROOM) * ROOM)
            larger = store.new_zeros(num, room, *store.shape[2:])
            larger[: store.shape[0], : store.shape[1]] = store
            self.stores[layer] = store = larger
        return store


@dataclass(frozen=True, slots=True)
class _Kept:
    names: np.ndarray
    """(n,) int64: what each token was; see `PrefixCache`."""
    pairs: list[Tensor]
    """(n, 2, H, C) of each layer."""


class PrefixCache:
    """Rows that ended, so that a conversation's next turn reads only what is new.

    Every token has a name: its id, or for an audio embedding a number made from the clip's sound.
    """

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._kept: list[_Kept] = []

    def keep(self, names: Sequence[int], cache: RowCache, row: int) -> None:
        """Keep what a row has read of `names`; the oldest rows make room for it."""
        n = min(len(names), cache.lens[row])
        own = np.array(names[:n], dtype=np.int64)
        if not 0 < n <= self.max_tokens or any(_shared(k.names, own) == n for k in self._kept):
            return
        # What the new row begins with is of no more use alone.
        self._kept = [k for k in self._kept if _shared(k.names, own) < len(k.names)]
        self._kept.append(_Kept(own, [store[row, :n].clone() for store in cache.stores]))
        while sum(len(kept.names) for kept in self._kept) > self.max_tokens:
            self._kept.pop(0)

    def find(self, names: Sequence[int]) -> tuple[int, list[Tensor]]:
        """Return how many tokens of `names`, not all, were read before, and their (n, 2, H, C)."""
        wanted = np.array(names[:-1], dtype=np.int64)
        best, pairs = 0, []
        for kept in self._kept:
            if (shared := _shared(kept.names, wanted)) > best:
                best, pairs = shared, kept.pairs
        return best, pairs


def _shared(a: np.ndarray, b: np.ndarray) -> int:
    """Return the length of the longest common beginning."""
    n = min(len(a), len(b))
    differs = a[:n] != b[:n]
    return int(differs.argmax()) if differs.any() else n
