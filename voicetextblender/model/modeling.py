"""The speech language model: encoder, adapter, splice, LLM.

Shapes: N tokens of all conversations (audio positions included), F feature frames, M mel bins,
A audio embeddings, E width of the LLM, V size of its vocabulary.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    Cache,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from voicetextblender.config import LoraConfig as LoraSettings
from voicetextblender.config import ModelConfig
from voicetextblender.model.adapter import (
    ConformerAdapter,
    Lens,
    MlpAdapter,
    build_adapter,
    match_scale,
)
from voicetextblender.model.attention import PACKED, packing_of
from voicetextblender.model.configuration import SpeechLMConfig
from voicetextblender.model.encoder import (
    SpeechEncoder,
    encoder_from_config,
    encoder_from_pretrained,
)
from voicetextblender.model.parts import quietly, resolve
from voicetextblender.model.splice import audio_mask, splice

LORA = "vtb"
"""PEFT's name for our low-rank updates."""


class SpeechLM(PreTrainedModel):
    """A causal language model that also reads audio embeddings.

    With no audio and with `voice_off()`, its logits are bit-identical to the LLM's own.
    """

    config_class = SpeechLMConfig
    config: SpeechLMConfig
    encoder: SpeechEncoder
    adapter: ConformerAdapter | MlpAdapter
    llm: PreTrainedModel
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: SpeechLMConfig) -> None:
        """Build with random weights; `from_parts` and `from_pretrained` load real ones."""
        super().__init__(config)
        llm = AutoModelForCausalLM.from_config(config.text_config, attn_implementation=PACKED)
        self._assemble(llm, encoder_from_config(config.audio_config))
        self.post_init()

    @classmethod
    def from_parts(
        cls, settings: ModelConfig, audio_token_id: int, dtype: torch.dtype = torch.bfloat16
    ) -> "SpeechLM":
        """Join a pretrained encoder and LLM, both in `dtype`, through a new adapter in float32.

        Raises ValueError for a part that is not known or not supported.
        """
        llm_path, encoder_path = str(resolve(settings.llm)), str(resolve(settings.encoder))
        config = SpeechLMConfig(
            settings=settings.model_dump(),
            text_config=AutoConfig.from_pretrained(llm_path),
            audio_config=AutoConfig.from_pretrained(encoder_path),
            audio_token_id=audio_token_id,
        )
        # Else the saved model would name folders of the machine that it was trained on.
        config.text_config._name_or_path = settings.llm
        config.audio_config._name_or_path = settings.encoder
        model = cls.__new__(cls)
        PreTrainedModel.__init__(model, config)
        with quietly():
            llm = AutoModelForCausalLM.from_pretrained(
                llm_path, dtype=dtype, attn_implementation=PACKED
            )
            encoder = encoder_from_pretrained(encoder_path, dtype)
        model._assemble(llm, encoder)
        # Some LLMs (Gemma) scale what they read from the table, so the text itself is asked.
        match_scale(model.adapter, model._some_text())
        return model

    def _assemble(self, llm: PreTrainedModel, encoder: SpeechEncoder) -> None:
        """Put the parts together, add the low-rank updates, and freeze what is not trained."""
        settings = self.config.model
        self.encoder = encoder.requires_grad_(settings.train.encoder == "full")
        self.llm = llm.requires_grad_(False)
        if settings.train.encoder == "full":
            self.encoder.float()  # its statistics too, not only its parameters
        self.adapter = build_adapter(
            **settings.adapter.model_dump(),
            encoder_width=self.encoder.width,
            llm_width=self.table.shape[1],
        )
        if settings.train.llm == "lora":
            _add_lora(self.llm, settings.lora, settings.llm)
        if settings.train.encoder == "lora":
            _add_lora(self.encoder, settings.lora, settings.encoder)
        for parameter in self.parameters():
            if parameter.requires_grad:  # what is trained keeps a float32 master
                parameter.data = parameter.data.float()
        # By name, because training may freeze a part for some steps (train.learn).
        self._trained = frozenset(n for n, p in self.named_parameters() if p.requires_grad)

    @property
    def table(self) -> Tensor:
        """The LLM's embedding table, (V, E)."""
        embeddings = self.llm.get_input_embeddings()
        assert isinstance(embeddings, nn.Embedding)
        return embeddings.weight

    @cached_property
    def ctc_scale(self) -> float:
        """What brings products of audio embeddings, as first drawn, and the table to variance 1."""
        with torch.no_grad():
            rows, text = self.table[::8].float(), self._some_text().float()
        rms = [part.pow(2).mean().sqrt().item() for part in (rows, text)]
        return 1 / (rms[0] * rms[1] * math.sqrt(self.table.shape[1]))

    def _some_text(self) -> Tensor:
        """Embeddings of many tokens, at the scale at which the LLM reads them."""
        return self.llm.get_input_embeddings()(torch.arange(0, len(self.table), 8).to(self.device))

    def embed_audio(self, features: Tensor, clip_lens: Lens) -> tuple[Tensor, Lens]:
        """Map (F, M) features of packed clips to (A, E) embeddings, and to each clip's number."""
        return self.adapt(*self.encode(features, clip_lens))

    def encode(self, features: Tensor, clip_lens: Lens) -> tuple[Tensor, Lens]:
        """Map (F, M) features of packed clips to encoder frames, and to each clip's number."""
        return self.encoder(features.to(self._dtype_of(self.encoder)), clip_lens)

    def adapt(self, frames: Tensor, frame_lens: Lens) -> tuple[Tensor, Lens]:
        """Map the encoder's frames to (A, E) embeddings, and to each clip's number."""
        return self.adapter(frames.to(self._dtype_of(self.adapter)), frame_lens)

    def num_embeddings(self, clip_lens: Lens) -> Lens:
        """Return how many embeddings clips of so many feature frames become."""
        per_embedding = self.encoder.subsampling * self.adapter.stack
        return tuple(-(-n // per_embedding) for n in clip_lens)

    def embed(self, input_ids: Tensor, audio: Tensor) -> Tensor:
        """Map (N,) tokens and (A, E) audio embeddings to (N, E): the one embedding path.

        An LLM that scales its embeddings (Gemma) does so here, to text; audio starts at that scale.
        """
        text = self.llm.get_input_embeddings()(input_ids)
        return splice(text, audio, audio_mask(input_ids, self.config.audio_token_id))

    def decode(
        self,
        embeds: Tensor,
        position_ids: Tensor,
        seq_lens: Lens | None,
        cache: Cache | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Map (B, N, E) embeddings to the LLM's last hidden states, (B, N, E).

        With `seq_lens`, B is 1 and the row is packed; without it, `mask` is a 4D mask or None.
        """
        packing = {} if seq_lens is None else packing_of(seq_lens, embeds.device)
        return self.llm.get_decoder()(
            inputs_embeds=embeds,
            position_ids=position_ids,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
            **packing,
        ).last_hidden_state

    def project(self, hidden: Tensor) -> Tensor:
        """Map (..., E) hidden states to (..., V) logits, as the LLM's own head does."""
        head = self.llm.get_output_embeddings()
        assert head is not None
        logits = head(hidden)
        softcap = self.config.text_config.to_dict().get("final_logit_softcapping")
        return logits if softcap is None else torch.tanh(logits / softcap) * softcap

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        input_features: Tensor | None = None,
        clip_lens: Lens = (),
        seq_lens: Lens | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Return logits (B, N, V) for token rows (B, N), and the mean loss when `labels` are given.

        Rows padded in the usual way take a 2D `attention_mask` (B, N); a packed row takes
        `seq_lens` and `position_ids`. `labels` are transformers': unshifted, -100 for not scored.
        """
        if seq_lens is None:
            keep = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            keep = keep.bool()
            seq_lens = tuple(keep.sum(1).tolist())
            row = input_ids[keep]
            positions = torch.cat([torch.arange(n, device=row.device) for n in seq_lens])
        else:
            keep = torch.ones_like(input_ids, dtype=torch.bool)
            row, positions = input_ids[keep], _given(position_ids)[keep]
        audio = (
            self.table.new_zeros(0, self.table.shape[1])
            if input_features is None
            else self.embed_audio(input_features, clip_lens)[0]
        )
        hidden = self.decode(self.embed(row, audio)[None], positions[None], seq_lens)
        packed = self.project(hidden)[0]
        logits = packed.new_zeros(*input_ids.shape, packed.shape[-1])
        logits[keep] = packed
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten()
            )
        return CausalLMOutputWithPast(
            loss=cast("torch.FloatTensor | None", loss), logits=cast(torch.FloatTensor, logits)
        )

    def train(self, mode: bool = True) -> "SpeechLM":
        """Set training mode; a frozen encoder stays as it is in use (dropout, batch statistics)."""
        super().train(mode)
        if self.config.model.train.encoder == "frozen":
            self.encoder.eval()
        return self

    def compile_layers(self) -> None:
        """Compile the encoder's and the LLM's layers, for training on a GPU.

        Layers of a kind share what is compiled, so it takes a minute however many there are.
        """
        # Grown to what there is of each layer: with gradient and without, voice on and off.
        torch._dynamo.config.recompile_limit = 32  # pyright: ignore[reportPrivateImportUsage]
        for stack in (self.llm.get_decoder(), self.encoder.encoder):
            for layer in cast(nn.ModuleList, stack.layers):
                layer.compile(fullgraph=True)

    @contextmanager
    def voice_off(self) -> Iterator[None]:
        """Switch the LLM's low-rank updates off: the model is then the base LLM, bit for bit."""
        layers = [m for m in self.llm.modules() if isinstance(m, BaseTunerLayer)]
        on = [layer for layer in layers if not layer.disable_adapters]
        # Not layer.enable_adapters(): it also thaws the updates, which may be frozen for some steps
        # (train.learn) or sharded.
        for layer in on:
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer in on:
                layer._disable_adapters = False

    def trained_parts(self) -> dict[str, list[nn.Parameter]]:
        """Return what is trained, by part: `adapter`, `lora`, `encoder` or `encoder_lora`."""
        of_encoder = "encoder_lora" if self.config.model.train.encoder == "lora" else "encoder"
        named = {"adapter": "adapter", "llm": "lora", "encoder": of_encoder}
        parts: dict[str, list[nn.Parameter]] = {part: [] for part in named.values()}
        for name, parameter in self.named_parameters():
            if name in self._trained:
                parts[named[name.partition(".")[0]]].append(parameter)
        return {part: parameters for part, parameters in parts.items() if parameters}

    def trained_state(self) -> dict[str, Tensor]:
        """Return what is trained, by name; a trained encoder's buffers with it."""
        state = {n: p.data for n, p in self.named_parameters() if n in self._trained}
        if self.config.model.train.encoder != "frozen":
            state |= {n: b for n, b in self.named_buffers() if n.startswith("encoder.")}
        return state

    def save_pretrained(
        self,
        save_directory: str | Path,
        state_dict: dict[str, Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write `config.json`, what was trained, and the LLM's LoRA in PEFT's own format.

        `state_dict` is written instead of `trained_state()`: averaged or gathered weights.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.config.architectures = [type(self).__name__]
        if self.config.is_whole:
            return super().save_pretrained(folder, **kwargs)
        self.config.save_pretrained(folder)
        state = self.trained_state() if state_dict is None else state_dict
        save_file(_outside_llm(state), folder / "model.safetensors", metadata={"format": "pt"})
        if self.config.model.train.llm == "lora":
            (folder / "lora").mkdir(exist_ok=True)
            save_file(
                self._lora_tensors(state),
                folder / "lora/adapter_model.safetensors",
                metadata={"format": "pt"},
            )
            self.llm.peft_config[LORA].save_pretrained(str(folder / "lora"))

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *args: Any,
        dtype: torch.dtype = torch.bfloat16,
        **kwargs: Any,
    ) -> "SpeechLM":
        """Load a folder that `save_pretrained` wrote, all in `dtype`, for use.

        Its encoder and LLM are found by name, unless the folder is whole and holds them too.

        Raises ValueError if the folder is no checkpoint, or if a tensor is missing or left over.
        """
        folder = Path(pretrained_model_name_or_path)
        if not any(folder.glob("model*.safetensors")):
            raise ValueError(
                f"{folder}: no model here (no model.safetensors); "
                f"name the folder of a checkpoint, such as runs/demo/model"
            )
        config = SpeechLMConfig.from_pretrained(folder)
        if config.is_whole:
            return cls._whole(folder, config, dtype)
        model = cls.from_parts(config.model, config.audio_token_id, dtype)
        model.config.ctc_decoding = config.ctc_decoding
        model.load_trained(folder)
        # Not model.to(dtype): it would round the rotary frequencies, which stay float32 in use.
        for tensor in model.state_dict(keep_vars=True).values():
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype)
        return model.eval()

    @classmethod
    def _whole(cls, folder: Path, config: SpeechLMConfig, dtype: torch.dtype) -> "SpeechLM":
        """Load a folder that holds all weights, strictly. Raises ValueError."""
        with quietly():
            loaded: Any = super().from_pretrained(
                folder, config=config, dtype=dtype, output_loading_info=True
            )
        model, told = loaded
        for how in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if odd := sorted(map(str, told[how])):
                raise ValueError(
                    f"{folder}: its weights are not those of its config.json "
                    f"({how.replace('_', ' ')}: '{odd[0]}'); export the model again"
                )
        return model.eval()

    def load_trained(self, folder: Path) -> None:
        """Read back what `save_pretrained` wrote, strictly. Raises ValueError."""
        state = self.trained_state()
        _copy(folder / "model.safetensors", _outside_llm(state))
        if self.config.model.train.llm == "lora":
            _copy(folder / "lora/adapter_model.safetensors", self._lora_tensors(state))

    def _lora_tensors(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The LLM's low-rank updates, under PEFT's names."""
        own = {n.removeprefix("llm."): t for n, t in state.items() if n.startswith("llm.")}
        named = get_peft_model_state_dict(
            self.llm, own, adapter_name=LORA, save_embedding_layers=False
        )
        return {f"base_model.model.{name}": tensor for name, tensor in named.items()}

    @staticmethod
    def _dtype_of(part: nn.Module) -> torch.dtype:
        return next(part.parameters()).dtype


def _add_lora(part: nn.Module, settings: LoraSettings, base: str) -> None:
    """Put PEFT's low-rank updates on every linear layer of `part`, but not on an LLM's head."""
    head = part.get_output_embeddings() if isinstance(part, PreTrainedModel) else None
    targets = [
        name
        for name, module in part.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    ]
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=sorted({name.rpartition(".")[2] for name in targets}),
        base_model_name_or_path=base,
        task_type="CAUSAL_LM" if head is not None else None,
        inference_mode=False,
    )
    inject_adapter_in_model(config, part, adapter_name=LORA)


def _outside_llm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("llm.")}


def _copy(path: Path, tensors: dict[str, Tensor]) -> None:
    """Fill `tensors` from a file that must hold just these. Raises ValueError."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file, so the checkpoint is not whole; take another")
    stored = load_file(path)
    shapes = [{name: t.shape for name, t in own.items()} for own in (stored, tensors)]
    if odd := sorted(name for name, _ in shapes[0].items() ^ shapes[1].items()):
        raise ValueError(
            f"{path} does not fit the settings of the model: '{odd[0]}' is missing, left over or "
            f"of another shape; load it with the settings that it was trained with"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(stored[name])


def _given(position_ids: Tensor | None) -> Tensor:
    if position_ids is None:
        raise ValueError("a packed row (seq_lens) needs position_ids that restart at each sequence")
    return position_ids


AutoModel.register(SpeechLMConfig, SpeechLM)
AutoModelForCausalLM.register(SpeechLMConfig, SpeechLM)
