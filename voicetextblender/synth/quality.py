"""What may be wrong with a text that a language model wrote: each check is a function of texts."""

import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cache
from typing import TYPE_CHECKING

from voicetextblender.model.parts import resolve
from voicetextblender.text import normalise

if TYPE_CHECKING:
    from torch import Tensor

_SIMILAR = "all-minilm-l6-v2"
# The words that a text of some length in a language cannot do without, and others do not have.
_COMMON = {
    "de": "der die das und ist nicht ich sie ein eine zu mit den auf für von es wir er im dem",
    "en": "the and is of to in it you that was for on are with he she this have not be a i my do",
    "es": "el la los que de y en un una es no por con para se su lo más las del",
    "fr": "le la les et est de des un une je que pas pour dans il elle vous ce qui du",
    "it": "il che di e la un una è non per con sono si mi gli della del lo ha nel",
    "nl": "de het een en van is dat niet ik op te met voor zijn er aan ook je",
    "pt": "o a os que de e um uma é não para com se em do da por mais na no",
}
_EMPTY = """about after also been before being could does doing from have having here into just like
made make many more most much must only other over said same should some such than that their them
then there these they this those very were what when where which while whom whose will with would
your speaker recording mention mentioned according text transcript passage"""
_COMMON_WORDS = {lang: frozenset(words.split()) for lang, words in _COMMON.items()}
_EMPTY_WORDS = frozenset(_EMPTY.split())
_SCRIPTS = {  # ISO 639-1 codes of languages that are written in another script than Latin
    r"[\u0400-\u04ff]": "ru uk",
    r"[\u0370-\u03ff]": "el",
    r"[\u0600-\u06ff]": "ar",
    r"[\u0900-\u097f]": "hi",
    r"[\u0e00-\u0e7f]": "th",
    r"[\uac00-\ud7a3]": "ko",
    r"[\u3040-\u30ff\u4e00-\u9fff]": "ja zh",
}


def repeats_itself(text: str) -> bool:
    """Tell whether a text runs in circles: a phrase of four words thrice, or a line again."""
    words = normalise(text).split()
    phrases = Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
    lines = Counter(line.strip().lower() for line in text.splitlines() if len(line.split()) > 2)
    return max(phrases.values(), default=0) > 2 or max(lines.values(), default=0) > 1


def is_written_in(text: str, lang: str) -> bool:
    """Tell whether a text may be in a language: its script is right, and its common words are.

    A text in which little speaks for another language may be in any.
    """
    letters = sum(map(str.isalpha, text))
    for script, langs in _SCRIPTS.items():
        num_in_script = len(re.findall(script, text))
        if lang in langs.split():
            return num_in_script > letters / 3
        if num_in_script > letters / 20:
            return False
    words = Counter(normalise(text).split())
    counts = {each: sum(words[word] for word in common) for each, common in _COMMON_WORDS.items()}
    return lang not in counts or max(counts.values()) < counts[lang] + 2


def copies(text: str, context: str) -> bool:
    """Tell whether a text is little else than a long stretch of its context."""
    written, given = normalise(text).split(), normalise(context).split()
    match = SequenceMatcher(None, written, given, autojunk=False).find_longest_match()
    return match.size >= max(8, 0.6 * len(given))


def content_words(text: str) -> set[str]:
    """Return the words that carry meaning, as far as their length and the common ones tell."""
    return {
        word.removesuffix("'s")
        for word in normalise(text).split()
        if (len(word) > 3 or any(map(str.isdigit, word))) and word not in _EMPTY_WORDS
    }


def agreement(texts: Sequence[str], others: Sequence[str]) -> list[float]:
    """Return how alike the texts are that stand at the same place, up to 1 for the same meaning.

    It is the cosine of MiniLM's sentence embeddings where that part is installed, and else the F1
    of the words.
    """
    if not texts:
        return []
    try:
        one, other = (_embeddings()(some) for some in (texts, others))
    except ValueError:
        return [_word_f1(text, other) for text, other in zip(texts, others, strict=True)]
    return (one * other).sum(-1).tolist()


class _Embeddings:
    """MiniLM as sentence-transformers uses it: the mean over tokens, of length 1."""

    def __init__(self) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        folder = resolve(_SIMILAR)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def __call__(self, texts: Sequence[str]) -> "Tensor":
        """Return (B, 384) float32."""
        import torch

        inputs = self._tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            hidden = self._model(**inputs).last_hidden_state
        is_real = inputs.attention_mask.unsqueeze(-1)
        return torch.nn.functional.normalize((hidden * is_real).sum(1) / is_real.sum(1), dim=-1)


@cache
def _embeddings() -> _Embeddings:
    return _Embeddings()


def _word_f1(text: str, other: str) -> float:
    one, two = (Counter(normalise(each).split()) for each in (text, other))
    num_shared = (one & two).total()
    return 2 * num_shared / max(1, one.total() + two.total())
