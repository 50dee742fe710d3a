"""How far judges agree with 60 answers that were labelled by hand (data/eval/judged.jsonl).

python benchmarks/judge.py qwen2.5-0.5b qwen2.5-1.5b http://localhost:8000/v1#MODEL

What was judged is kept in runs/judged, so a run that was stopped goes on.
"""

import sys
import time
from itertools import product
from pathlib import Path

import numpy as np

from voicetextblender.data.records import Records
from voicetextblender.eval.judge import DIGEST, Case, preferences, verdicts
from voicetextblender.eval.suite import asked_in_writing, reference

ROOT = Path(__file__).parent.parent
LABELLED, KEPT = ROOT / "data/eval/judged.jsonl", ROOT / "runs/judged"


def main() -> None:
    """Print accuracy, Cohen's kappa, the rank correlation of redundancy, and of pairs the share."""
    items = [*Records(str(LABELLED))]
    cases = [Case(asked_in_writing(i), reference(i), str(i.meta["answer"])) for i in items]
    right = np.array([i.meta["correct"] for i in items], dtype=float)
    redundant = np.array([i.meta["redundancy"] for i in items], dtype=float)
    pairs = [
        Case(good.question, good.reference, good.answer, bad.answer)
        for (good, is_right), (bad, is_other) in product(zip(cases, right, strict=True), repeat=2)
        if good.question == bad.question and is_right and not is_other
    ]
    print(
        f"{len(items)} answers, {right.mean():.0%} right; {len(pairs)} pairs; prompt {DIGEST}",
        flush=True,
    )
    for name in sys.argv[1:]:
        began = time.perf_counter()
        found = verdicts(name, cases, KEPT)
        read = np.array([one is not None for one in found])
        said = np.array([one.correct for one in found if one])
        length = np.array([one.redundancy for one in found if one])
        agreed, expected = np.mean(said == right[read]), chance(said, right[read])
        kappa = (agreed - expected) / (1 - expected)
        print(
            f"{name}: {read.sum()} judged; correctness agrees in {agreed:.0%}, kappa {kappa:.2f}, "
            f"says right {said.mean():.0%}; redundancy rank correlation "
            f"{rank_correlation(length, redundant[read]):.2f}"
        )
        wrong = [i.id for i, one, of in zip(items, found, right, strict=True)
                 if one and one.correct != of]  # fmt: skip
        print(f"  judged otherwise than by hand: {' '.join(wrong)}")
        preferred = [one for one in preferences(name, pairs, KEPT) if one is not None]
        shares = [f"{preferred.count(n) / len(preferred):.0%}" for n in (1, -1, 0)]
        print(
            f"  {len(preferred)} pairs of a right and a wrong answer, in both orders: prefers the "
            f"right one in {shares[0]}, the wrong one in {shares[1]}, the order decides "
            f"{shares[2]}; {time.perf_counter() - began:.0f} s",
            flush=True,
        )


def chance(one: np.ndarray, other: np.ndarray) -> float:
    """Return how often two judges agree that judge without looking, as often right as these."""
    return one.mean() * other.mean() + (1 - one.mean()) * (1 - other.mean())


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return Spearman's rank correlation; 0 where one of them always says the same."""
    ranks = [np.array([(x < v).sum() + (x == v).sum() / 2 for v in x]) for x in (one, other)]
    if not all(rank.std() for rank in ranks):
        return 0.0
    return float(np.corrcoef(np.stack(ranks))[0, 1])


if __name__ == "__main__":
    main()
