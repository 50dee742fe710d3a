"""The round trip: what a voice has said is recognised again, and kept if the words are the same."""

import io
import json
import secrets
from collections.abc import Sequence
from functools import cache
from typing import Protocol

import numpy as np
import soundfile

from voicetextblender.audio import SAMPLE_RATE
from voicetextblender.model.parts import quietly, resolve
from voicetextblender.synth.remote import is_url, parse_service, post
from voicetextblender.text import english_forms, normalise

_WINDOW_S = 30.0  # what Whisper hears at once
_LONGEST_ANSWER = 200  # tokens of Whisper's: more than 30 s of fast speech


class Recogniser(Protocol):
    """Anything that can write down speech."""

    def recognise(self, clips: Sequence[np.ndarray], lang: str | None) -> list[str]:
        """Return the words of clips (S,), float32 at SAMPLE_RATE; without `lang` it is guessed."""
        ...


class WhisperRecogniser:
    """Whisper, greedy and in bfloat16, told the language; a batch in one go."""

    def __init__(self, part: str = "whisper-base") -> None:
        import torch
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        folder = resolve(part)
        self._processor = WhisperProcessor.from_pretrained(folder)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with quietly():
            self._model = WhisperForConditionalGeneration.from_pretrained(
                folder, dtype=torch.bfloat16
            )
        self._model.generation_config.update(
            max_length=_LONGEST_ANSWER, do_sample=False, num_beams=1
        )
        torch.nn.Module.to(self._model.eval(), self._device)

    def recognise(self, clips: Sequence[np.ndarray], lang: str | None) -> list[str]:
        """Return the words of clips (S,), float32 at SAMPLE_RATE; without `lang` it is guessed.

        Raises ValueError for a language that it does not know.
        """
        config = self._model.generation_config.to_dict()
        known = [token.strip("<|>") for token in config["lang_to_id"]]
        if lang is not None and lang not in known:
            raise ValueError(f"'{lang}' is no language that Whisper knows; use {', '.join(known)}")
        long = [len(clip) > _WINDOW_S * SAMPLE_RATE for clip in clips]
        if any(long):  # those are read window by window, each by itself
            return [
                self._read([clip], lang, is_long)[0]
                for clip, is_long in zip(clips, long, strict=True)
            ]
        return self._read(clips, lang, False)

    def _read(self, clips: Sequence[np.ndarray], lang: str | None, is_long: bool) -> list[str]:
        import torch

        inputs = self._processor.feature_extractor(
            list(clips),
            sampling_rate=SAMPLE_RATE,
            truncation=not is_long,
            padding="longest" if is_long else "max_length",
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self._device, torch.bfloat16)
        with torch.inference_mode(), quietly():
            ids = self._model.generate(
                inputs.input_features,
                attention_mask=inputs.attention_mask,
                language=lang,
                task="transcribe",
                return_timestamps=is_long,
            )
        texts = self._processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]


class RemoteRecogniser:
    """A service with /v1/audio/transcriptions: `http://host/v1#MODEL`."""

    def __init__(self, name: str) -> None:
        self._service = parse_service(name, "model")

    def recognise(self, clips: Sequence[np.ndarray], lang: str | None) -> list[str]:
        """Return the words of clips (S,), asked one by one. Raises ValueError."""
        return [self._ask(clip, lang) for clip in clips]

    def _ask(self, clip: np.ndarray, lang: str | None) -> str:
        url, border = f"{self._service.base}/audio/transcriptions", secrets.token_hex(16)
        file = io.BytesIO()
        soundfile.write(file, clip, SAMPLE_RATE, format="WAV", subtype="PCM_16")
        language = {} if lang is None else {"language": lang}
        fields = {"model": self._service.asked, **language, "response_format": "json"}
        part = f"--{border}\r\nContent-Disposition: form-data; name="
        head = "".join(f'{part}"{name}"\r\n\r\n{value}\r\n' for name, value in fields.items())
        head += f'{part}"file"; filename="clip.wav"\r\nContent-Type: audio/wav\r\n\r\n'
        body = head.encode() + file.getvalue() + f"\r\n--{border}--\r\n".encode()
        answer = post(url, body, f"multipart/form-data; boundary={border}")
        try:
            heard = json.loads(answer)["text"]
        except (ValueError, KeyError, TypeError):
            heard = None
        if not isinstance(heard, str):
            raise ValueError(f"{url}: answered {answer[:80]!r}; expected JSON with a 'text'")
        return heard.strip()


@cache
def load_recogniser(name: str) -> Recogniser:
    """Return a recogniser, loaded once per process: a Whisper part or folder, or a service's URL.

    Raises ValueError if there is none of that name.
    """
    return RemoteRecogniser(name) if is_url(name) else WhisperRecogniser(name)


def misheard(
    clips: Sequence[np.ndarray], texts: Sequence[str], recogniser: str, lang: str, max_wer: float
) -> list[str | None]:
    """Return what is wrong with each clip of which more than `max_wer` is heard otherwise."""
    heard = load_recogniser(recogniser).recognise(clips, lang) if clips else []
    wrong: list[str | None] = []
    for text, words in zip(texts, heard, strict=True):
        share = word_error(text, words, lang)
        is_wrong = share > max_wer
        wrong.append(
            f"{share:.0%} of the words of {text!r}, heard as {words!r}" if is_wrong else None
        )
    return wrong


def word_error(reference: str, hypothesis: str, lang: str = "en") -> float:
    """Return the share of the reference's words that were heard otherwise; above 1 is possible.

    Case and punctuation do not count, nor, in English, do contractions and whether numbers are
    words or digits.
    """
    from jiwer import process_words

    wanted, heard = (_comparable(text, lang) for text in (reference, hypothesis))
    if not wanted:
        return float(bool(heard))
    return float(process_words(wanted, heard).wer)


def _comparable(text: str, lang: str) -> str:
    if lang != "en":
        return normalise(text)
    words = english_forms()(text.replace("’", "'")).split()
    return " ".join(word for word in words if any(map(str.isalnum, word)))
