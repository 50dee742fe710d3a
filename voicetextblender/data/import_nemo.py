"""NeMo manifests: JSON lines, with audio in files or in tars (`audio_0.tar`, `audio_1.tar`, …)."""

import re
from pathlib import Path

from voicetextblender.chat import Audio
from voicetextblender.data.importing import (
    NOTHING_GIVEN,
    Conversations,
    Given,
    ImportReport,
    Json,
    UnusableEntry,
    Utterance,
    find_audio,
    json_lines,
    people,
    report,
    seconds,
    tar_members,
    word,
)


def import_nemo(source: Path, out: Path, given: Given = NOTHING_GIVEN) -> ImportReport:
    """Import a manifest, or a tarred folder by its `tarred_audio_manifest.json`.

    In entries of Canary that translate, `text` is the translation. Raises ValueError if there is no
    manifest, no `audio_filepath` or `text` in it, or a tar is missing.
    """
    path = source / "tarred_audio_manifest.json" if source.is_dir() else source
    if not path.is_file():
        raise ValueError(f"{path}: there is no such manifest; name a NeMo manifest's file")
    tars: dict[str, set[str]] = {}
    keys: set[str] = set()

    def utterance(entry: Json) -> Utterance:
        keys.update(entry)
        name, shard = word(entry.get("audio_filepath")), word(entry.get("shard_id"))
        if name is None:
            raise UnusableEntry("no 'audio_filepath'")
        if shard is None:
            return _utterance(entry, find_audio(name, path.parent))
        tar = _tar(path.parent, shard)
        members = tars.setdefault(str(tar), set()) or set(tar_members(tar))
        tars[str(tar)] = members
        return _utterance(entry, f"{tar}#{_member(name, members)}")

    with Conversations(out, given) as conversations:
        conversations.add_each(json_lines(path, conversations), utterance)
        for key in ("audio_filepath", "text"):
            if keys and key not in keys:
                raise ValueError(
                    f"{path}: no entry has '{key}', but {', '.join(sorted(keys))}; "
                    f"name a NeMo manifest with transcripts"
                )
        return report(source, conversations)


def _utterance(entry: Json, audio: str) -> Utterance:
    start = 0.0 if entry.get("offset") is None else seconds(entry["offset"], "offset")
    duration = entry.get("duration")
    duration = None if duration is None else seconds(duration, "duration")
    text = word(entry.get("text"))
    lang = word(entry.get("source_lang")) or word(entry.get("lang"))
    target = word(entry.get("target_lang")) or lang
    id = Path(audio.rpartition("#")[2]).stem
    if start:
        id = f"{id}-{start:g}"
    if lang and target != lang:
        return Utterance(id, Audio(audio, start, duration), lang, text, target, people(entry))
    return Utterance(id, Audio(audio, start, duration, text), lang, meta=people(entry))


def _tar(folder: Path, shard: str) -> Path:
    """Return the shard's tar, beside the manifest or, for a manifest of one shard, above it."""
    for base in (folder, folder.parent):
        if (base / f"audio_{shard}.tar").is_file():
            return (base / f"audio_{shard}.tar").absolute()
    raise ValueError(f"{folder}/audio_{shard}.tar: there is no such tar; copy it there")


def _member(name: str, members: set[str]) -> str:
    """Return the member of an entry: slices of one file share it, and are named name-sub1, …."""
    for member in (name, re.sub(r"-sub\d+(?=(\.\w+)?$)", "", name)):
        if member in members:
            return member
    raise UnusableEntry("not in the tar")
