"""Importing corpora: every kind of source by its name, with the function that imports it."""

from collections.abc import Callable, Mapping
from pathlib import Path

from voicetextblender.data.import_asterisk import INSTALLED, import_asterisk
from voicetextblender.data.import_folder import import_folder
from voicetextblender.data.import_hf import import_hf
from voicetextblender.data.import_kaldi import import_kaldi
from voicetextblender.data.import_lhotse import import_lhotse
from voicetextblender.data.import_messages import import_messages
from voicetextblender.data.import_nemo import import_nemo
from voicetextblender.data.import_suites import import_airbench, import_voicebench
from voicetextblender.data.import_tables import import_commonvoice, import_ljspeech
from voicetextblender.data.importing import NOTHING_GIVEN, Given, ImportReport

IMPORTERS: Mapping[str, Callable[[Path, Path, Given], ImportReport]] = {
    "hf": import_hf,
    "lhotse": import_lhotse,
    "nemo": import_nemo,
    "kaldi": import_kaldi,
    "commonvoice": import_commonvoice,
    "ljspeech": import_ljspeech,
    "messages": import_messages,
    "folder": import_folder,
    "voicebench": import_voicebench,
    "airbench": import_airbench,
    "asterisk": import_asterisk,
}


def import_corpus(
    kind: str, source: Path | None, out: Path | None, given: Given = NOTHING_GIVEN
) -> ImportReport:
    """Make conversations in the folder `out`; asterisk alone needs no source.

    Raises ValueError for an unknown kind, or a source that is missing or not to be imported.
    """
    if kind not in IMPORTERS:
        raise ValueError(f"'{kind}' is no kind of source; known: {', '.join(IMPORTERS)}")
    if kind == "asterisk":
        source = source or INSTALLED
    if source is None or out is None:
        raise ValueError(
            f"importing '{kind}' needs a folder to write and, unless it is asterisk, a source; "
            f"run: vtb data import KIND SOURCE --out DIR"
        )
    if not source.exists():
        raise ValueError(f"{source}: there is no such file or folder; check the path")
    return IMPORTERS[kind](source, out, given)
