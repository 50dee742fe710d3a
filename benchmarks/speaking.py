"""How fast text is spoken, end to end: `python benchmarks/speaking.py TEXT [VOICE…]`.

For each voice, alone and with conditions, 200 clips of up to 30 s are made with two processes:
synthesis, resampling, FLAC, tar and JSONL. Times real time is by the clock, and for one second of
processor time, which on a machine with other work is the steadier number; CPU use is processor time
over both cores' time.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

from voicetextblender.synth.asr import SpokenSentences, speak
from voicetextblender.synth.sources import read_sentences
from voicetextblender.synth.speakers import Speakers

WORKERS = 2
CLIPS = 200


def processor_s() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, kinds))


def main(text: str, *voices: str) -> None:
    sentences = read_sentences(Path(text))
    print("| voice | conditions | audio | x real time | x real time a core | CPU use |")
    print("| --- | --- | --- | --- | --- | --- |")
    for voice in voices or ("hibari", "flite:slt", "flite:kal16"):
        for augment in (0.0, 1.0):
            spoken = SpokenSentences(
                sentences,
                Speakers((voice,), augment=augment),
                longest_s=30,
                clips=CLIPS,
                per_shard=10,
            )
            with tempfile.TemporaryDirectory() as folder:
                begun, busy = time.perf_counter(), processor_s()
                for _ in speak(spoken, Path(folder), WORKERS):
                    pass
                wall_s, cpu_s = time.perf_counter() - begun, processor_s() - busy
                tars = sum(path.stat().st_size for path in Path(folder).glob("*.tar"))
                assert tars, "nothing was made"
                audio_s = sum(seconds(path) for path in Path(folder).glob("*.jsonl"))
            print(
                f"| {voice} | {'yes' if augment else 'no'} | {audio_s / 3600:.2f} h "
                f"| {audio_s / wall_s:.0f} | {audio_s / cpu_s:.0f} "
                f"| {cpu_s / wall_s / WORKERS:.0%} |",
                flush=True,
            )


def seconds(path: Path) -> float:
    from voicetextblender.data.records import Records

    records = Records(str(path))
    return sum(clip.duration or 0.0 for n in range(len(records)) for clip in records[n].clips)


if __name__ == "__main__":
    main(*sys.argv[1:])
