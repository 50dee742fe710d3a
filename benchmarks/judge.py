"""How far judges agree with 60 answers that were labelled by hand (data/eval/judged.jsonl).

python benchmarks/judge.py smollm2-135m qwen2.5-0.5b http://localhost:8000/v1#MODEL
"""

import sys
from pathlib import Path

import numpy as np

from voicetextblender.data.records import Records
from voicetextblender.eval.judge import DIGEST, Case, verdicts
from voicetextblender.eval.suite import asked_in_writing, reference

LABELLED = Path(__file__).parent.parent / "data/eval/judged.jsonl"


def main() -> None:
    """Print accuracy, Cohen's kappa, and the rank correlation of redundancy, for each judge."""
    records = Records(str(LABELLED))
    items = [records[place] for place in range(len(records))]
    cases = [Case(asked_in_writing(i), reference(i), str(i.meta["answer"])) for i in items]
    right = np.array([i.meta["correct"] for i in items], dtype=float)
    redundant = np.array([i.meta["redundancy"] for i in items], dtype=float)
    print(f"{len(items)} answers, {right.mean():.0%} right, prompt {DIGEST}")
    for name in sys.argv[1:]:
        found = verdicts(name, cases, None)
        read = np.array([one is not None for one in found])
        said = np.array([one.correct if one else np.nan for one in found])[read]
        length = np.array([one.redundancy if one else np.nan for one in found])[read]
        agreed, expected = np.mean(said == right[read]), chance(said, right[read])
        kappa = (agreed - expected) / (1 - expected)
        print(
            f"{name}: {read.sum()} judged; correctness agrees in {agreed:.0%}, kappa {kappa:.2f}, "
            f"says right {said.mean():.0%}; redundancy rank correlation "
            f"{rank_correlation(length, redundant[read]):.2f}"
        )


def chance(one: np.ndarray, other: np.ndarray) -> float:
    """Return how often two judges agree that judge without looking, as often right as these."""
    return one.mean() * other.mean() + (1 - one.mean()) * (1 - other.mean())


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return Spearman's rank correlation; 0 where one of them always says the same."""
    ranks = [np.array([(x < v).sum() + (x == v).sum() / 2 for v in x]) for x in (one, other)]
    if not all(rank.std() for rank in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


if __name__ == "__main__":
    main()
