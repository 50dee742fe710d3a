"""What a model hears without its LLM: word error rates of greedy CTC.

    python benchmarks/heard.py models/nano runs/nano-cpu/model --sets data/eval/read-english.jsonl

Prints a row for each set and a column for each model, in percent, by Whisper's English normaliser.
"""

import argparse
from pathlib import Path

from jiwer import wer

from voicetextblender.cli.common import load_model
from voicetextblender.data.records import Records, load_clips
from voicetextblender.model.heard import heard
from voicetextblender.text import english_forms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--sets", nargs="+", required=True)
    parser.add_argument("--limit", type=int, default=60)
    args = parser.parse_args()
    models = [load_model(folder) for folder in args.models]
    print("| set | " + " | ".join(map(str, args.models)) + " |")
    print("| --- " * (1 + len(models)) + "|")
    for path in args.sets:
        records = Records(path)
        asked = [records[number] for number in range(min(args.limit, len(records)))]
        said = [" ".join(clip.text or "" for clip in c.clips) for c in asked]
        rates = []
        for model, processor in models:
            found = [" ".join(heard(model, processor, load_clips(c))) for c in asked]
            reference, hypothesis = (list(map(english_forms(), t)) for t in (said, found))
            rates.append(100 * wer(reference, hypothesis))
        print(f"| {Path(path).stem} | " + " | ".join(f"{rate:.1f}" for rate in rates) + " |")


if __name__ == "__main__":
    main()
