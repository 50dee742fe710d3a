"""A folder of recordings, each with what is said in it in a .txt beside it."""

from pathlib import Path

from voicetextblender.chat import Audio
from voicetextblender.data.importing import (
    NOTHING_GIVEN,
    Conversations,
    Given,
    ImportReport,
    UnusableEntry,
    Utterance,
    report,
)

_SUFFIXES = {
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".webm", ".mp4", ".wma"),
    *(".aiff", ".aif", ".g722"),
}


def import_folder(source: Path, out: Path, given: Given = NOTHING_GIVEN) -> ImportReport:
    """Import the recordings in a folder and in those below it; `a.wav` is said in `a.txt`.

    Raises ValueError if it is no folder, or has nothing to import.
    """
    if not source.is_dir():
        raise ValueError(f"{source}: is no folder; name one with recordings and .txt files in it")
    files = sorted(path for path in source.absolute().rglob("*") if path.is_file())
    recordings = [path for path in files if path.suffix.lower() in _SUFFIXES]
    transcribed = {path.with_suffix("") for path in recordings}

    def utterance(path: Path) -> Utterance:
        transcript = path.with_suffix(".txt")
        if not transcript.is_file():
            raise UnusableEntry("no .txt beside it")
        id = path.relative_to(source.absolute()).with_suffix("").as_posix().replace("/", "-")
        return Utterance(id, Audio(str(path), text=_read(transcript)))

    with Conversations(out, given) as conversations:
        conversations.add_each(recordings, utterance)
        for path in files:
            if path.suffix == ".txt" and path.with_suffix("") not in transcribed:
                conversations.drop("no recording beside the .txt")
        return report(source, conversations)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise UnusableEntry(".txt is not UTF-8") from None
