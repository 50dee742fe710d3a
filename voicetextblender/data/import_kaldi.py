"""Kaldi data directories: wav.scp, text, and, where there are, segments, utt2spk and others."""

import shlex
from pathlib import Path

from voicetextblender.chat import Audio
from voicetextblender.data.importing import (
    NOTHING_GIVEN,
    Conversations,
    Given,
    ImportReport,
    UnusableEntry,
    Utterance,
    find_audio,
    report,
)

_GENDERS = {"f": "female", "m": "male"}


def import_kaldi(source: Path, out: Path, given: Given = NOTHING_GIVEN) -> ImportReport:
    """Import a data directory; with `segments`, clips are slices of the recordings.

    Of the commands that wav.scp may hold instead of files, only `flac -cds FILE |` is understood.
    Raises ValueError if wav.scp or text is missing, or nothing can be imported.
    """
    for name in ("wav.scp", "text"):
        if not (source / name).is_file():
            raise ValueError(
                f"{source}: no '{name}' here; name a Kaldi data directory with recordings "
                f"(wav.scp) and transcripts (text)"
            )
    texts, recordings = _table(source / "text"), _table(source / "wav.scp")
    segments = _table(source / "segments")
    speakers, langs = _table(source / "utt2spk"), _table(source / "utt2lang")
    genders = _table(source / "utt2gender"), _table(source / "spk2gender")

    def utterance(key: str) -> Utterance:
        if key not in texts:
            raise UnusableEntry("no transcript")
        recording, start, duration = key, 0.0, None
        if segments:
            recording, start, duration = _segment(segments.get(key, ""))
        if recording not in recordings:
            raise UnusableEntry("no recording")
        audio = find_audio(_file(recordings[recording]), source)
        speaker = speakers.get(key, "")
        gender = genders[0].get(key, "") or genders[1].get(speaker, "")
        meta = {"speaker": speaker, "gender": _GENDERS.get(gender.lower(), gender)}
        meta = {name: value for name, value in meta.items() if value}
        return Utterance(key, Audio(audio, start, duration, texts[key]), langs.get(key), meta=meta)

    with Conversations(out, given) as conversations:
        conversations.add_each(dict.fromkeys([*(segments or recordings), *texts]), utterance)
        return report(source, conversations)


def _table(path: Path) -> dict[str, str]:
    """Return what follows the first word of each line, by that word; nothing without a file."""
    if not path.is_file():
        return {}
    lines = path.read_text("utf-8").splitlines()
    pairs = (line.split(maxsplit=1) for line in lines if line.strip())
    return {pair[0]: pair[1].strip() if len(pair) > 1 else "" for pair in pairs}


def _segment(line: str) -> tuple[str, float, float | None]:
    """Return recording, start and duration in seconds; an end of -1 is that of the recording."""
    match line.split():
        case []:
            raise UnusableEntry("no segment")
        case [recording, start, end, *channel]:
            if channel:
                raise UnusableEntry("one of several channels")
            try:
                begin_s, end_s = float(start), float(end)
            except ValueError:
                raise UnusableEntry("segment without times") from None
            return recording, begin_s, None if end_s == -1 else round(end_s - begin_s, 6)
    raise UnusableEntry("segment without times")


def _file(wav: str) -> str:
    """Return the file of an entry of wav.scp. Raises UnusableEntry for a command or an archive."""
    if wav.endswith("|"):
        match shlex.split(wav.removesuffix("|")):
            case ["flac", *options, path] if set("".join(options)) <= set("-cds"):
                return path
            case [command, *_]:
                raise UnusableEntry(f"wav.scp has a command ({command}), not a file")
    head, _, offset = wav.rpartition(":")
    if head and offset.isdigit():
        raise UnusableEntry("wav.scp has an archive, not a file")
    return wav
