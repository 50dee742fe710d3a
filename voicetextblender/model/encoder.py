"""Speech encoders: features in, frames out, at each clip's true length.

A transformers encoder keeps its weights and layers; what is ours is how clips pass through it:
packed, never padded to 30 seconds. Known here: Whisper's encoder and the Parakeet FastConformer.

Shapes: F feature frames of all clips, M mel bins, T encoder frames of all clips, D encoder width.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel, WhisperModel
from transformers.models.parakeet.modeling_parakeet import ParakeetEncoder, ParakeetForCTC
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from voicetextblender.model.attention import PACKED, packing_of
from voicetextblender.model.layout import Lens, begins, complete, lay_apart, places, row_size, take

MOST_PADDING, MOST_PADDING_ON_GPU = 0.05, 0.6
"""Share of the frames of a padded group of clips that may be padding."""


class WhisperFrames(nn.Module):
    """Whisper's encoder over packed clips; a clip beyond 30 s goes through in 30 s windows."""

    def __init__(self, encoder: WhisperEncoder) -> None:
        super().__init__()
        encoder.set_attn_implementation(PACKED)
        self.encoder = encoder
        self.window = 2 * encoder.config.max_source_positions  # feature frames: 3,000 are 30 s
        self.width: int = encoder.config.d_model
        self.subsampling = 2
        """Feature frames per encoder frame: 100 a second become 50."""

    def forward(self, features: Tensor, lens: Lens) -> tuple[Tensor, Lens]:
        """Map (F, M) features to (T, D) frames, and the clips' lengths to their new lengths.

        Positions restart in each window, which is how Whisper itself hears long recordings.
        """
        encoder = self.encoder
        windows = tuple(min(self.window, n - at) for n in lens for at in range(0, n, self.window))
        hidden, seq_lens = self._stem(features, windows)
        within = places(seq_lens, (0,) * len(seq_lens), features.device)
        hidden = hidden + encoder.embed_positions.weight[within]  # (T, D)
        hidden, seq_lens = complete(hidden, seq_lens)
        hidden = F.dropout(hidden.unsqueeze(0), encoder.dropout, self.training)
        packing = packing_of(seq_lens, features.device)
        torch._dynamo.maybe_mark_dynamic(hidden, 1)  # pyright: ignore[reportPrivateImportUsage]
        for layer in encoder.layers:
            hidden = layer(hidden, attention_mask=None, **packing)
        return encoder.layer_norm(hidden)[0, : len(within)], tuple(-(-n // 2) for n in lens)

    def _stem(self, features: Tensor, lens: Lens) -> tuple[Tensor, Lens]:
        """Map (F, M) features of windows through both convolutions, to (T, D) and their lengths.

        A zero or two between the windows, and a beginning at an even place, let one call serve all.
        """
        first, second = (cast(nn.Conv1d, c) for c in (self.encoder.conv1, self.encoder.conv2))
        slots = tuple((n + 2) // 2 * 2 for n in lens)
        starts, num, device = begins(slots), 2 * row_size(sum(slots) // 2), features.device
        at = places(lens, starts, device)
        between = lay_apart(features.new_ones(len(features), 1), at, num)
        hidden = F.gelu(_convolve(lay_apart(features, at, num), first)) * between
        hidden = F.gelu(_convolve(hidden, second))
        seq_lens = tuple(-(-n // 2) for n in lens)
        at = places(seq_lens, tuple(n // 2 for n in starts), device)
        return take(hidden, at), seq_lens


def _convolve(rows: Tensor, conv: nn.Conv1d) -> Tensor:
    """Map (P, C) to (P / stride, D) as `conv` does, by one matrix product.

    A library of convolutions prepares itself for each new length, and here every length is new.
    """
    (kernel,), (stride,), (beyond,) = conv.kernel_size, conv.stride, cast(Any, conv.padding)
    windows = F.pad(rows, (0, 0, beyond, beyond)).unfold(0, kernel, stride)  # (P / stride, C, k)
    return F.linear(windows.flatten(1), conv.weight.flatten(1), conv.bias)


class ParakeetFrames(nn.Module):
    """The FastConformer of Parakeet and Canary: 8x subsampling, 80 ms a frame.

    Its convolutions and relative attention belong to transformers and take padded clips with a
    mask, so clips of like length go through together and the padding is taken out again.
    """

    def __init__(self, encoder: ParakeetEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.width: int = encoder.config.hidden_size
        self.subsampling: int = encoder.config.subsampling_factor
        """Feature frames per encoder frame: 8 turn 10 ms steps into 80 ms."""

    def forward(self, features: Tensor, lens: Lens) -> tuple[Tensor, Lens]:
        """Map (F, M) features to (T, D) frames, and the clips' lengths to their new lengths."""
        clips = features.split(lens)
        out_lens = tuple(-(-n // self.subsampling) for n in lens)
        frames: dict[int, Tensor] = {}
        for group in alike(lens, most_padding(features.device)):
            padded = nn.utils.rnn.pad_sequence([clips[n] for n in group], batch_first=True)
            steps = torch.arange(padded.shape[1], device=padded.device)
            mask = steps < torch.tensor([[lens[n]] for n in group], device=padded.device)
            rows = self.encoder(padded, attention_mask=mask).last_hidden_state  # (B, T', D)
            frames |= {n: row[: out_lens[n]] for n, row in zip(group, rows, strict=True)}
        return torch.cat([frames[n] for n in range(len(lens))]), out_lens


def most_padding(device: torch.device) -> float:
    """Return the share of a group of clips that may be padding: on a GPU, few calls count more."""
    return MOST_PADDING if device.type == "cpu" else MOST_PADDING_ON_GPU


def alike(lens: Lens, most_padding: float) -> list[list[int]]:
    """Divide clips by length so that, in each group, at most that share is padding."""
    groups: list[list[int]] = []
    total = 0
    for n in sorted(range(len(lens)), key=lens.__getitem__, reverse=True):
        if groups:
            room = lens[groups[-1][0]] * (len(groups[-1]) + 1)
        if groups and room - total - lens[n] <= most_padding * room:
            groups[-1].append(n)
            total += lens[n]
        else:
            groups.append([n])
            total = lens[n]
    return groups


SpeechEncoder = WhisperFrames | ParakeetFrames


def encoder_from_config(config: PreTrainedConfig) -> SpeechEncoder:
    """Build an encoder with random weights; see `encoder_from_pretrained` for `config`."""
    return _wrap(AutoModel.from_config(config))


def encoder_from_pretrained(folder: str, dtype: torch.dtype) -> SpeechEncoder:
    """Load the encoder of a Whisper or Parakeet checkpoint, without its decoder.

    Raises ValueError for a model of another kind.
    """
    return _wrap(AutoModel.from_pretrained(folder, dtype=dtype))


def _wrap(model: PreTrainedModel) -> SpeechEncoder:
    match model:
        case WhisperModel():
            return WhisperFrames(model.encoder)
        case ParakeetEncoder():
            return ParakeetFrames(model)
        case ParakeetForCTC():
            return ParakeetFrames(model.encoder)
    raise ValueError(
        f"a speech encoder of kind '{model.config.model_type}' is not known; "
        f"name a Whisper or Parakeet model, such as openai/whisper-base or nvidia/parakeet-ctc-0.6b"
    )
