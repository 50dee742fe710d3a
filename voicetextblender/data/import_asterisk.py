"""Asterisk: the telephone prompts of Debian packages, encoded to clips, with translations."""

import gzip
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from voicetextblender import audio
from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.data.asterisk import NO_TRANSLATION, read_listing
from voicetextblender.data.importing import NOTHING_GIVEN, Given, ImportReport
from voicetextblender.data.records import write_lines
from voicetextblender.text import transcribe_instruction, translate_instruction

INSTALLED = Path("/usr/share")

# Speaker and licence, as the packages' copyright file has them; one person speaks en and es.
_ASTERISK_VOICES = {
    "en": ("allison-smith", "CC-BY-SA-3.0"),
    "es": ("allison-smith", "CC-BY-SA-3.0"),
    "fr": ("june-wallack", "CC-BY-SA-3.0"),
    "it": ("carlo-flora", "CC-BY-3.0"),
    "ru": ("ivrvoice-ru", "CC-BY-3.0"),
}


def import_asterisk(
    source: Path,
    out: Path,
    given: Given = NOTHING_GIVEN,
    languages: Sequence[str] = (),
) -> ImportReport:
    """Import the telephone prompts of Debian's `asterisk-core-sounds-XX-g722`.

    The source is the folder that has `asterisk/sounds` and `doc` in it: INSTALLED, unless copied.
    Without `languages`, those are taken that are there.

    Writes `clips/XX/key.opus`, `asr-XX.jsonl`, and, as the same key in two languages is a
    translation, `ast-XX-en.jsonl` and `ast-en-XX.jsonl`. Raises ValueError for another language,
    FileNotFoundError if a package is not installed.
    """
    sounds, docs = source / "asterisk/sounds", source / "doc"
    dropped: Counter[str] = Counter()
    clips: dict[str, dict[str, Audio]] = {}
    there = [lang for lang in _ASTERISK_VOICES if _asterisk_recordings(sounds / lang)]
    chosen = [given.lang] if given.lang else languages or there or ["en"]
    for lang in chosen:
        if lang not in _ASTERISK_VOICES:
            raise ValueError(
                f"the asterisk importer knows no language '{lang}'; "
                f"use some of {', '.join(_ASTERISK_VOICES)}"
            )
        texts, left_out = read_listing(_asterisk_listing(lang, docs), lang)
        recordings = _asterisk_recordings(sounds / lang)
        if not recordings:
            raise FileNotFoundError(
                f"{sounds / lang}: no recordings of the '{lang}' prompts; run "
                f"`apt-get install asterisk-core-sounds-{lang}-g722`"
            )
        clips[lang] = _asterisk_clips(lang, texts, recordings, out)
        dropped.update(
            left_out.get(key, "no text") for key in recordings.keys() - clips[lang].keys()
        )
        dropped["no recording"] += len(texts.keys() - recordings.keys())
        asr = [_asterisk_conversation(key, lang, clip) for key, clip in clips[lang].items()]
        write_lines(out / f"asr-{lang}.jsonl", asr)
    for lang in chosen:
        if lang == "en" or "en" not in clips:
            continue
        for spoken, target in ((lang, "en"), ("en", lang)):
            ast = [
                _asterisk_conversation(key, spoken, clip, target, clips[target][key].text)
                for key, clip in clips[spoken].items()
                if key in clips[target] and not NO_TRANSLATION.match(key)
            ]
            write_lines(out / f"ast-{spoken}-{target}.jsonl", ast)
    durations = [clip.duration or 0.0 for of_lang in clips.values() for clip in of_lang.values()]
    return ImportReport(len(durations), sum(durations) / 3600, dict(sorted((+dropped).items())))


def _asterisk_listing(lang: str, docs: Path) -> list[str]:
    path = docs / f"asterisk-core-sounds-{lang}" / f"core-sounds-{lang}.txt.gz"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no listing of the '{lang}' prompts; run "
            f"`apt-get install asterisk-core-sounds-{lang}`, and where dpkg leaves out "
            f"/usr/share/doc, as in slim containers, let it keep this file"
        )
    with gzip.open(path, "rt", encoding="utf-8-sig") as file:
        return file.readlines()


def _asterisk_recordings(folder: Path) -> dict[str, Path]:
    """Return the G.722 files of a language by their key, which may have a folder in it."""
    paths = sorted(folder.rglob("*.g722"))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}


def _asterisk_clips(
    lang: str, texts: Mapping[str, str], recordings: Mapping[str, Path], out: Path
) -> dict[str, Audio]:
    """Encode the recordings that have a text."""
    clips: dict[str, Audio] = {}
    for key in sorted(texts.keys() & recordings.keys()):
        samples = audio.load(recordings[key])
        name = f"clips/{lang}/{key}.opus"
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        audio.save(out / name, samples)
        duration = round(samples.size / audio.SAMPLE_RATE, 3)
        clips[key] = Audio(name, duration=duration, text=texts[key])
    return clips


def _asterisk_conversation(
    key: str, lang: str, clip: Audio, target: str | None = None, answer: str | None = None
) -> Conversation:
    """Ask for the clip's transcript, or, given a target language and its text, a translation."""
    speaker, license = _ASTERISK_VOICES[lang]
    meta = {"speaker": speaker, "license": license, "source": f"asterisk-core-sounds-{lang} 1.6.1"}
    name = key.replace("/", "-")
    if target is None or answer is None:
        turns = (user(transcribe_instruction(lang), clip), assistant(clip.text or ""))
        return Conversation(f"asterisk-{lang}-{name}", turns, "asr", lang, meta)
    turns = (user(translate_instruction(lang, target), clip), assistant(answer))
    meta["target_lang"] = target
    return Conversation(f"asterisk-{lang}-{target}-{name}", turns, "ast", lang, meta)
