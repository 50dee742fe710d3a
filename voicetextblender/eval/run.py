"""An evaluation: ask every set of every system, score the answers, write the report.

OUT/suite.yaml                      what was asked
OUT/items/SET.jsonl                 the items
OUT/predictions/SYSTEM/SET.jsonl    the answers
OUT/results.json, OUT/report.html   the scores
"""

from collections.abc import Callable, Collection
from pathlib import Path

import yaml

from voicetextblender.eval.predict import positions, predict
from voicetextblender.eval.report import write_report
from voicetextblender.eval.scorers import scorer
from voicetextblender.eval.scores import Score, score_folder
from voicetextblender.eval.suite import Suite, write_items
from voicetextblender.eval.systems import asked_of, systems
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.processing import SpeechLMProcessor

Report = Callable[[float, str], None]
"""Is told the share that is done, 0 to 1, and what is being done."""


def evaluate(
    model: SpeechLM,
    processor: SpeechLMProcessor,
    suite: Suite,
    out: Path,
    *,
    only: Collection[str] | None = None,
    report: Report | None = None,
) -> list[Score]:
    """Ask a suite of our model and of what it is compared with; write all of it to `out`.

    `only` names the systems that are asked, where not all are wanted. Raises ValueError for a suite
    that will not do, before anything is asked.
    """
    known = systems(model, processor, suite.asr)
    if unknown := sorted(set(only or ()) - known.keys()):
        raise ValueError(f"'{unknown[0]}' is no system; use {', '.join(known)}")
    out.mkdir(parents=True, exist_ok=True)
    asked = []
    for of in suite.sets:
        scorer(of.scorer)
        if report is not None:
            report(0.0, f"making {of.name}")
        items = write_items(of, out)
        for name in asked_of(of, only):
            if name not in known:
                raise ValueError(f"set '{of.name}': '{name}' is no system; use {', '.join(known)}")
            asked.append((known[name], of, sum(map(positions, items))))
    (out / "suite.yaml").write_text(
        yaml.safe_dump(suite.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        encoding="utf-8",
    )
    total, done = sum(size for *_, size in asked), 0.0
    for system, of, _ in asked:

        def advance(size: float, words: str = f"{of.name}, {system.name}") -> None:
            nonlocal done
            done += size
            if report is not None:
                report(done / total, words)

        predict(system, of, out, suite.tokens_per_batch, advance)
    scores = score_folder(out)
    write_report(out)
    return scores
