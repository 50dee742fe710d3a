"""How the LLM reads prompts into a cache and adds a token to every row.

Two ways, one interface: the transformers module itself, for any LLM and with LoRA as it is trained;
and, for LLMs shaped like Llama, the same arithmetic on weights laid out to be read once per token:
LoRA merged, projections that share an input fused, a step of few and large operations.

Shapes: N tokens read, B rows, E width, V vocabulary, H query heads, K key heads, C head channels.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional as F

from voicetextblender.model.cache import RowCache
from voicetextblender.model.layout import ROUND, complete, rounded
from voicetextblender.model.modeling import LORA, SpeechLM

Precision = Literal["model", "int8"]
"""Weights as the model has them, or in 8 bits with a scale for each output."""


class Decoder(Protocol):
    """Reads prompts and adds tokens."""

    can_continue: bool
    """Whether a prompt's beginning may be in the cache already."""
    most_tokens: int
    """Tokens that a step reads in hardly more time than one; 0 if no row may have several."""

    def read(self, embeds: Tensor, begins: Sequence[int], lens: Sequence[int]) -> Tensor:
        """Read packed (N, E) prompts into the newest rows; return (rows, V) logits of what follows.

        `lens` are the tokens read of each; `begins` those that its row holds already.
        """
        ...

    def step(self, tokens: Tensor) -> Tensor:
        """Add (B, K) tokens to the rows and return (B, K, V) logits of what follows each.

        The cache counts the first of each row alone: the others may be wrong (`Generation.step`).
        """
        ...

    @property
    def cache(self) -> RowCache: ...


class ModuleDecoder:
    """Decodes with the transformers module, for any LLM."""

    can_continue = False
    most_tokens = 0

    def __init__(self, model: SpeechLM, *, voice: bool = True) -> None:
        self.model = model
        self.mode = nullcontext if voice else model.voice_off
        self.cache = RowCache()

    def read(self, embeds: Tensor, begins: Sequence[int], lens: Sequence[int]) -> Tensor:
        """See `Decoder.read`."""
        assert not any(begins)
        self.cache.lens += lens
        self.cache.filling = tuple(lens)
        embeds, row_lens = complete(embeds, tuple(lens))
        positions = torch.cat([torch.arange(n, device=embeds.device) for n in row_lens])
        with self.mode():
            hidden = self.model.decode(embeds[None], positions[None], row_lens, self.cache)
        self.cache.filling = ()
        return self.model.project(hidden[0, _lasts(lens, embeds.device)])

    def step(self, tokens: Tensor) -> Tensor:
        """See `Decoder.step`."""
        positions = self.cache.open_step(tokens.shape[1], tokens.device)
        embeds = self.model.llm.get_input_embeddings()(tokens)
        mask = self.cache.mask(positions)
        with self.mode():
            hidden = self.model.decode(embeds, positions, None, self.cache, mask)
        self.cache.close_step()
        return self.model.project(hidden)


@dataclass(frozen=True, slots=True)
class _Layer:
    """One block: its two norms' weights, and what multiplies by its four matrices."""

    norm: Tensor
    qkv: Callable[[Tensor], Tensor]
    out: Callable[[Tensor], Tensor]
    norm_wide: Tensor
    gate_up: Callable[[Tensor], Tensor]
    down: Callable[[Tensor], Tensor]


class LeanDecoder:
    """Decodes an LLM shaped like Llama (Llama, Mistral, Qwen 2, SmolLM) with few operations.

    Rotary pairs stand side by side here, so that a rotation is one complex product; the rows of the
    query and key projections are put in that order once. The weights are those of the moment:
    what is trained or switched off in the model afterwards does not count here.
    """

    can_continue = True

    def __init__(
        self, model: SpeechLM, precision: Precision = "model", *, voice: bool = True
    ) -> None:
        """Lay out the weights, with LoRA merged, or left out if not `voice`. Raises ValueError."""
        if not is_lean(model):
            raise ValueError(
                f"an LLM of kind '{model.config.text_config.model_type}' has no lean decoder; "
                f"leave the precision as it is"
            )
        config: Any = model.llm.config
        decoder: Any = model.llm.get_decoder()
        self.cache = RowCache()
        self.most_tokens = 32 if precision == "model" else 0
        self.heads: int = config.num_attention_heads
        self.key_heads: int = config.num_key_value_heads
        self.channels: int = decoder.layers[0].self_attn.head_dim
        self.eps: float = config.rms_norm_eps
        self.frequencies: Tensor = decoder.rotary_emb.inv_freq.float()
        self.scaling: float = decoder.rotary_emb.attention_scaling
        self.embeddings = model.llm.get_input_embeddings()
        self.norm: Tensor = decoder.norm.weight.detach()
        with torch.no_grad():
            self.layers = [self._layer(layer, precision, voice) for layer in decoder.layers]
            self.head = _product([model.llm.get_output_embeddings()], precision, voice)

    def read(self, embeds: Tensor, begins: Sequence[int], lens: Sequence[int]) -> Tensor:
        """See `Decoder.read`."""
        cache, first = self.cache, len(self.cache.lens)
        ends = [begin + n for begin, n in zip(begins, lens, strict=True)]
        cache.lens += ends
        embeds, row_lens = complete(embeds, tuple(lens))
        positions = torch.cat([torch.arange(b, e) for b, e in zip(begins, ends, strict=True)])
        positions = F.pad(positions, (0, len(embeds) - len(positions)))
        rotation = self._rotation(positions.to(embeds.device))
        masks = [_mask(begin, n, embeds.device) for begin, n in zip(begins, lens, strict=True)]

        def attend(number: int, qkv: Tensor) -> Tensor:
            query, pairs = (part.split(row_lens) for part in self._split(qkv))
            heard = []
            for own, (n, begin, mask) in enumerate(zip(lens, begins, masks, strict=True)):
                kept = cache.put(number, first + own, begin, pairs[own])
                key, value = kept.permute(1, 2, 0, 3)[:, None]
                own_query = F.pad(query[own], (0, 0, 0, 0, 0, rounded(n) - n))
                attended = F.scaled_dot_product_attention(
                    own_query.transpose(0, 1)[None],
                    key,
                    value,
                    attn_mask=mask,
                    is_causal=mask is None,
                    enable_gqa=self.heads != self.key_heads,
                )
                heard.append(attended[0, :, :n].transpose(0, 1))
            heard += query[len(lens) :]  # what completes the row attends to nothing
            return torch.cat(heard).flatten(1)

        hidden = self._through(embeds, rotation, attend)
        return self._logits(hidden[_lasts(lens, embeds.device)])

    def step(self, tokens: Tensor) -> Tensor:
        """See `Decoder.step`."""
        cache, size = self.cache, tokens.shape
        positions = cache.open_step(size[1], tokens.device)
        rotation = self._rotation(positions.flatten())
        mask, groups = cache.mask(positions), self.heads // self.key_heads
        if mask is not None:  # additive: a boolean one would be turned into it in every layer
            mask = _additive(mask, self.norm.dtype).repeat_interleave(groups, dim=2)

        def attend(number: int, qkv: Tensor) -> Tensor:
            query, pairs = self._split(qkv)
            key, value = cache.append(number, pairs).permute(2, 0, 3, 1, 4)
            # The query heads that share a key head stand where a sequence's queries would.
            grouped = query.view(*size, self.key_heads, groups, -1).transpose(1, 2).flatten(2, 3)
            heard = F.scaled_dot_product_attention(grouped, key, value, attn_mask=mask)
            return heard.unflatten(2, (size[1], groups)).transpose(1, 2).flatten(2).flatten(0, 1)

        hidden = self._through(self.embeddings(tokens.flatten()), rotation, attend)
        cache.close_step()
        return self._logits(hidden).unflatten(0, size)

    def _through(
        self, hidden: Tensor, rotation: Tensor, attend: Callable[[int, Tensor], Tensor]
    ) -> Tensor:
        """Map (N, E) through all layers."""
        shape, num_rotated = hidden.shape[-1:], (self.heads + self.key_heads) * self.channels
        for number, layer in enumerate(self.layers):
            qkv = layer.qkv(F.rms_norm(hidden, shape, layer.norm, self.eps))
            turned = qkv[:, :num_rotated].unflatten(1, (-1, self.channels // 2, 2))
            pairs = torch.view_as_complex(turned.float())
            pairs.mul_(rotation)  # in place: in float32 this is qkv itself
            if turned.dtype != torch.float32:
                turned.copy_(torch.view_as_real(pairs))
            hidden = hidden + layer.out(attend(number, qkv))
            wide = layer.gate_up(F.rms_norm(hidden, shape, layer.norm_wide, self.eps))
            gate, up = wide.chunk(2, dim=-1)
            hidden = hidden + layer.down(F.silu(gate).mul_(up))
        return hidden

    def _split(self, qkv: Tensor) -> tuple[Tensor, Tensor]:
        """Split (N, (H + 2 K) C) into queries (N, H, C) and keys with values (N, 2, K, C)."""
        width = self.heads * self.channels
        query = qkv[:, :width].unflatten(1, (self.heads, self.channels))
        return query, qkv[:, width:].unflatten(1, (2, self.key_heads, self.channels))

    def _rotation(self, positions: Tensor) -> Tensor:
        """(N, 1, C / 2) complex: the rotary turn of each pair at (N,) positions."""
        angles = torch.outer(positions.float(), self.frequencies)
        return torch.polar(torch.full_like(angles, self.scaling), angles).unsqueeze(1)

    def _logits(self, hidden: Tensor) -> Tensor:
        return self.head(F.rms_norm(hidden, hidden.shape[-1:], self.norm, self.eps))

    def _layer(self, layer: Any, precision: Precision, voice: bool) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        half = torch.arange(self.channels).view(2, -1).T.flatten()  # 0, C/2, 1, C/2 + 1, …
        rotated = torch.arange((self.heads + self.key_heads) * self.channels)
        order = rotated.view(-1, self.channels)[:, half].flatten()
        qkv = [attention.q_proj, attention.k_proj, attention.v_proj]
        return _Layer(
            norm=layer.input_layernorm.weight.detach(),
            qkv=_product(qkv, precision, voice, order),
            out=_product([attention.o_proj], precision, voice),
            norm_wide=layer.post_attention_layernorm.weight.detach(),
            gate_up=_product([mlp.gate_proj, mlp.up_proj], precision, voice),
            down=_product([mlp.down_proj], precision, voice),
        )


def merge_encoder(model: SpeechLM) -> None:
    """Put the encoder's low-rank updates into its weights, for good: fewer products for a clip."""
    for name, layer in list(model.encoder.named_modules()):
        if isinstance(layer, LoraLinear):
            base = cast(nn.Linear, layer.base_layer)
            base.weight.data = _merged(layer, voice=True)
            model.encoder.set_submodule(name, base)


def is_lean(model: SpeechLM) -> bool:
    """Tell whether the LLM is of the shape that `LeanDecoder` computes."""
    config = model.config.text_config
    known = config.model_type in ("llama", "mistral", "qwen2")
    rope = (config.rope_parameters or {}).get("rope_type", "default")
    windows = getattr(config, "layer_types", None) or ["full_attention"]
    return (
        known
        and config.hidden_act == "silu"
        and rope in ("default", "linear", "llama3", "yarn")
        and (config.model_type != "mistral" or config.sliding_window is None)
        and set(windows) == {"full_attention"}
    )


def build_decoder(
    model: SpeechLM, precision: Precision = "model", *, voice: bool = True
) -> Decoder:
    """Return the fast decoder where the LLM has one, else the module itself. Raises ValueError."""
    if is_lean(model) or precision != "model":
        return LeanDecoder(model, precision, voice=voice)
    return ModuleDecoder(model, voice=voice)


def _product(
    linears: list[Any], precision: Precision, voice: bool, order: Tensor | None = None
) -> Callable[[Tensor], Tensor]:
    """Return what multiplies by several layers at once, the first outputs put in `order`."""
    weights = [_merged(linear, voice) for linear in linears]
    weight = torch.cat(weights) if len(weights) > 1 else weights[0]
    biases = [linear.bias for linear in linears]
    bias = torch.cat(biases).detach() if biases[0] is not None else None
    if order is not None:
        weight[: len(order)] = weight[order]
        if bias is not None:
            bias[: len(order)] = bias[order]
    if precision == "int8":
        return _int8_product(weight, bias)
    if weight.dtype == torch.bfloat16 and weight.is_cpu and _has_bf16_products():
        return _packed_product(weight, bias)
    return lambda hidden: F.linear(hidden, weight, bias)


def _has_bf16_products() -> bool:
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _packed_product(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """As `F.linear`, bit for bit, on weights in the order in which oneDNN reads them.

    With few rows it takes half the time: it reads weights as fast as memory gives them.
    """
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, ROUND)
    return lambda hidden: torch.ops.mkldnn._linear_pointwise(hidden, packed, bias, "none", [], "")


def _int8_product(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    scales = weight.float().abs().amax(1).clamp(min=1e-12) / 127
    small = (weight.float() / scales.unsqueeze(1)).round().to(torch.int8)
    scales = scales.to(weight.dtype)

    def product(hidden: Tensor) -> Tensor:
        if len(hidden) > 16:  # a prompt: unpacking costs less than many slow rows
            return F.linear(hidden, small.to(hidden.dtype) * scales.unsqueeze(1), bias)
        result = torch.ops.aten._weight_int8pack_mm(hidden, small, scales)
        return result if bias is None else result + bias

    return product


def _merged(linear: nn.Linear | LoraLinear, voice: bool) -> Tensor:
    """Return a layer's weights with its low-rank update added in float32 and rounded once."""
    if not isinstance(linear, LoraLinear):
        return linear.weight.detach()
    base = cast(nn.Linear, linear.base_layer).weight.detach()
    if not voice:
        return base
    up, down = (cast(nn.Linear, part[LORA]).weight for part in (linear.lora_B, linear.lora_A))
    return (base.float() + linear.scaling[LORA] * (up.float() @ down.float())).to(base.dtype)


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 0 where `visible` and -inf elsewhere."""
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, float("-inf"))


def _lasts(lens: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(lens, device=device).cumsum(0) - 1


def _mask(begin: int, n: int, device: torch.device) -> Tensor | None:
    """(n, begin + n), both rounded up, true where n tokens behind `begin` others may look.

    None if it is causal.
    """
    if not begin:
        return None
    visible = torch.ones(rounded(n), rounded(begin + n), dtype=torch.bool, device=device)
    return visible.tril(begin)
