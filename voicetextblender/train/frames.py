"""The frame cache: what a frozen encoder made of each clip, on disk, so that it is made once.

A clip is known by its features and by the encoder's weights, so neither a changed file nor another
encoder is ever mistaken for it.
"""

import hashlib
import os
from pathlib import Path

import torch
from torch import Tensor

from voicetextblender.model.modeling import SpeechLM

Lens = tuple[int, ...]


class FrameCache:
    """Encoder frames of clips in a folder of bounded size.

    A full cache takes no more, and forgets none: epochs come round in a circle, in which whatever
    was used longest ago is needed next.
    """

    def __init__(self, folder: Path, model: SpeechLM, limit_gb: float) -> None:
        """Open a cache below `folder` for the model's encoder as it is."""
        self.model = model
        self.dtype = model.encoder.encoder.dtype
        digest = hashlib.sha256()
        for tensor in model.encoder.state_dict().values():
            digest.update(_bytes(tensor))
        self.folder = folder / digest.hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        stored = (file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
        self.room = limit_gb * 1e9 - sum(stored)

    def encode(self, features: Tensor, clip_lens: Lens) -> tuple[Tensor, Lens]:
        """Map (F, M) features of packed clips to frames, as `SpeechLM.encode` does.

        Clips that are new are encoded one by one, so that the frames do not depend, in their last
        bits, on which others were new: a resumed run is the run that never stopped.
        """
        frames = [self._frames(clip) for clip in features.split(clip_lens)]
        return torch.cat(frames).to(features.device), tuple(map(len, frames))

    def _frames(self, clip: Tensor) -> Tensor:
        key = hashlib.sha256(clip.cpu().numpy().tobytes()).hexdigest()
        path = self.folder / key[:2] / key
        if path.is_file():
            stored = torch.frombuffer(bytearray(path.read_bytes()), dtype=self.dtype)
            return stored.view(-1, self.model.encoder.width).to(clip.device)
        with torch.no_grad():
            frames, _ = self.model.encode(clip, (len(clip),))
        frames = frames.to(self.dtype)
        self._store(path, _bytes(frames))
        return frames

    def _store(self, path: Path, data: bytes) -> None:
        if len(data) > self.room:
            return
        path.parent.mkdir(exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")  # ranks may make the same clip's at once
        draft.write_bytes(data)
        draft.replace(path)
        self.room -= len(data)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
