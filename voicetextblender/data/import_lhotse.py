"""Lhotse: a CutSet (`cuts.jsonl.gz`), or a Shar folder (`cuts.*.jsonl.gz` beside tars).

Each supervision becomes an utterance: the slice of the recording that it covers.
"""

from collections.abc import Iterator, Mapping
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

_SLACK_S = 0.05  # by so much a supervision may reach out of its cut: manifests are rounded


def import_lhotse(source: Path, out: Path, given: Given = NOTHING_GIVEN) -> ImportReport:
    """Import a cuts file, whose recordings stay where they are, or a Shar folder.

    Raises ValueError if the source is neither, or has nothing to import.
    """
    with Conversations(out, given) as conversations:
        for path, members in _shards(source):
            for cut in json_lines(path, conversations):
                with conversations.counting():
                    recording = _recording(cut, path.parent, members)
                    conversations.add_each(
                        _supervisions(cut),
                        lambda s, cut=cut, recording=recording: _utterance(s, cut, recording),
                    )
        return report(source, conversations)


def _shards(source: Path) -> Iterator[tuple[Path, Mapping[str, str] | None]]:
    """Yield each file of cuts, and for Shar the clip of each cut by the cut's id."""
    if source.is_file():
        yield source, None
        return
    cuts = sorted(source.glob("cuts.*.jsonl*"))
    if not cuts:
        raise ValueError(
            f"{source}: is neither a file of cuts nor a Shar folder with cuts.*.jsonl.gz; make "
            f"cuts of recordings and supervisions with 'lhotse cut simple'"
        )
    for path in cuts:
        tar = path.with_name(f"recording.{path.name.split('.')[1]}.tar")
        if not tar.is_file():
            raise ValueError(f"{tar}: there is no such file beside {path.name}; copy it there")
        clips = [name for name in tar_members(tar) if not name.endswith((".json", ".nodata"))]
        # Lhotse names a member by its cut, whose id may have dots.
        yield path, {name.rpartition(".")[0]: f"{tar.absolute()}#{name}" for name in clips}


def _recording(cut: Json, folder: Path, members: Mapping[str, str] | None) -> str:
    """Return the path of the cut's recording. Raises UnusableEntry if there is no one file."""
    cut = _single(cut)
    recording = cut.get("recording")
    if not isinstance(recording, dict):
        raise UnusableEntry("cut without a recording")
    if members is not None:
        clip = members.get(word(cut.get("id")) or "")
        if clip is None:
            raise UnusableEntry("cut is not in the tar")
        return clip
    for transform in recording.get("transforms") or []:
        if transform.get("name") != "Resample":  # which loading does anyhow
            raise UnusableEntry(f"recording changed on the fly ({transform.get('name')})")
    sources = recording.get("sources") or []
    if len(sources) != 1 or sources[0].get("type") != "file":
        kinds = " and ".join(sorted({str(s.get("type")) for s in sources})) or "nothing"
        raise UnusableEntry(f"recording is not one file, but {kinds}")
    return find_audio(sources[0]["source"], folder)


def _supervisions(cut: Json) -> list[Json]:
    supervisions = _single(cut).get("supervisions")
    if not isinstance(supervisions, list) or not supervisions:
        raise UnusableEntry("no transcript")
    return supervisions


def _utterance(supervision: Json, cut: Json, recording: str) -> Utterance:
    cut = _single(cut)
    # A Shar member is the cut alone, so the cut begins at 0 in it, and its channels are its own.
    is_member = ".tar#" in recording
    if not is_member and _channels(supervision) < _channels(cut.get("recording"), "channel_ids"):
        raise UnusableEntry("one of several channels")
    begin = supervision.get("start", 0.0)
    if not isinstance(begin, int | float):
        raise UnusableEntry("'start' is not a number of seconds")
    length = seconds(cut.get("duration"), "duration")
    end = begin + seconds(supervision.get("duration"), "duration")
    if begin < -_SLACK_S or end > length + _SLACK_S:
        raise UnusableEntry("supervision reaches out of its cut")
    begin, end = max(begin, 0.0), min(end, length)
    offset = 0.0 if is_member else seconds(cut.get("start"), "start")
    text = word(supervision.get("text"))
    clip = Audio(recording, round(offset + begin, 6), round(end - begin, 6), text)
    custom = supervision.get("custom")
    meta = {**(people(custom) if isinstance(custom, dict) else {}), **people(supervision)}
    id = word(supervision.get("id")) or word(cut.get("id")) or "cut"
    return Utterance(id, clip, word(supervision.get("language")), meta=meta)


def _channels(of: object, key: str = "channel") -> set[int]:
    """Return the channels of a supervision, or of a recording."""
    channels = of.get(key, 0) if isinstance(of, dict) else 0
    return set(channels) if isinstance(channels, list) else {channels}


def _single(cut: Json) -> Json:
    """Return the cut, or that in a MixedCut which is only padded. Raises UnusableEntry."""
    tracks = cut.get("tracks")
    if not isinstance(tracks, list):
        return cut
    cuts = [track["cut"] for track in tracks if track["cut"].get("type") != "PaddingCut"]
    if len(cuts) != 1:
        raise UnusableEntry("mix of several recordings")
    return cuts[0]
