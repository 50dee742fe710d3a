"""Our scores beside the reference tools', on the same files.

python benchmarks/scores.py LIBRISPEECH.jsonl.gz GSM8K.jsonl.gz

The first holds a model's outputs on LibriSpeech test-clean (`text`, `model_output`), the second is
GSM8K's own example_model_solutions.jsonl with verdicts.
"""

import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jiwer

from voicetextblender.chat import Conversation, assistant, user
from voicetextblender.data.records import Records
from voicetextblender.eval.metrics import estimate
from voicetextblender.eval.normalisers import normaliser
from voicetextblender.eval.predict import Prediction
from voicetextblender.eval.scorers import Answers, last_number, scorer
from voicetextblender.eval.suite import reference

AST = Path(__file__).parent.parent / "data/asterisk/ast-test.jsonl"


def main() -> None:
    """Print ours and theirs."""
    librispeech, gsm8k = [
        [json.loads(line) for line in gzip.decompress(Path(path).read_bytes()).splitlines()]
        for path in sys.argv[1:]
    ]
    words(librispeech)
    numbers(gsm8k)
    translations()


def words(rows: list[dict]) -> None:
    """Compare word errors with jiwer's on Whisper-normalised text."""
    said, heard = [row["text"] for row in rows], [row["model_output"] for row in rows]
    metrics = scorer("wer")(answered(said, heard, "whisper-english"))
    counts = metrics[0].sums.sum(0).astype(int).tolist()
    plain = normaliser("whisper-english")
    theirs = jiwer.process_words(list(map(plain, said)), list(map(plain, heard)))
    print(f"{len(rows)} clips, ours: WER {estimate(metrics[0]).value:.6f}, S D I {counts[:3]}")
    print(
        f"{len(rows)} clips, jiwer: WER {theirs.wer:.6f}, S D I "
        f"{[theirs.substitutions, theirs.deletions, theirs.insertions]}"
    )


def numbers(rows: list[dict]) -> None:
    """Compare verdicts on four models' solutions with those in the file."""
    models = [key for key, value in rows[0].items() if isinstance(value, dict)]
    for model in models:
        right = [last_number(r[model]["solution"]) == last_number(r["ground_truth"]) for r in rows]
        theirs = [r[model]["is_correct"] for r in rows]
        same = sum(a == b for a, b in zip(right, theirs, strict=True))
        print(f"{model}: ours {sum(right)} right, theirs {sum(theirs)}, same {same} of {len(rows)}")


def translations() -> None:
    """Compare BLEU and chrF with sacrebleu's own command line; every second word is left out."""
    records = Records(str(AST))
    said = [reference(records[place]) for place in range(len(records))]
    heard = [" ".join(text.split()[:1] + text.split()[1::2]) for text in said]
    for metric in scorer("translation")(answered(said, heard)):
        print(f"ours {metric.name}: {100 * estimate(metric).value:.4f} ({metric.scored_with})")
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("said", "heard")]
        for path, texts in zip(paths, (said, heard), strict=True):
            path.write_text("\n".join(texts) + "\n")
        command = ["-m", "sacrebleu", paths[0], "-i", paths[1], "-m", "bleu", "chrf", "-w", "4"]
        run = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
        print("sacrebleu:", [(row["name"], row["score"]) for row in json.loads(run.stdout)])


def answered(said: Sequence[str], heard: Sequence[str], kind: str = "basic") -> Answers:
    """Return answers to items of these references."""
    items = [Conversation(str(n), (user("?"), assistant(text))) for n, text in enumerate(said)]
    found = [Prediction(item.id, answer=text) for item, text in zip(items, heard, strict=True)]
    return Answers(items, found, kind)


if __name__ == "__main__":
    main()
