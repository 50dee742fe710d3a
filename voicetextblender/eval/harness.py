"""lm-eval: the text benchmarks that everybody quotes, on the LLM inside our model.

lm-eval's own Hugging Face class runs our LLM, voice on or off, so a number of ours with the voice
off is the number that the base LLM gets. `local_task` lets lm-eval read a benchmark's published
files where no model hub can be reached: `ARC-Challenge-{Dev,Test}.jsonl`, `gsm8k.test.jsonl`,
`ifeval.en.jsonl` (each may be packed by gzip), `mmlu.tar.gz` (`mmlu/test/SUBJECT_test.csv`) and
`bbh.tar.gz` (`bbh/bbh/TASK.json`).
"""

import csv
import gzip
import io
import json
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from voicetextblender.model.configuration import SpeechLMConfig
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.parts import resolve
from voicetextblender.model.processing import SpeechLMProcessor

try:
    import lm_eval.tasks
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
except ImportError:
    raise ValueError(
        "lm-eval comes with the extra 'eval': pip install 'voicetextblender[eval]'"
    ) from None

Row = Mapping[str, object]
Numbers = dict[str, dict[str, float]]
"""lm-eval's numbers, by task and metric."""
Report = Callable[[float, str], None]


@register_model("vtb")
class SpeechHarness(HFLM):
    """The LLM of a trained model, as lm-eval knows models: `pretrained=FOLDER,voice=off`."""

    def __init__(
        self,
        pretrained: str | Path | SpeechLM,
        voice: str = "on",
        tokenizer: Any = None,
        batch_size: int | str = 8,
        **kwargs: Any,
    ) -> None:
        """Take a model or a folder of one. Its LLM is lm-eval's for good: it packs rows no more."""
        if not isinstance(pretrained, SpeechLM):
            tokenizer = SpeechLMProcessor.from_pretrained(pretrained).tokenizer
            pretrained = SpeechLM.from_pretrained(pretrained)
        if voice not in ("on", "off"):
            raise ValueError(f"voice is '{voice}'; it must be on or off")
        self._voice = nullcontext() if voice == "on" else pretrained.voice_off()
        self._voice.__enter__()
        # lm-eval pads its batches, which transformers' own attention knows how to mask.
        pretrained.llm.set_attn_implementation("sdpa")
        kwargs |= {"device": str(pretrained.device), "tokenizer": tokenizer}
        build: Any = super().__init__  # lm-eval's decorator hides what it takes
        build(pretrained.llm, batch_size=batch_size, **kwargs)


def compare(
    folder: Path,
    tasks: Sequence[str],
    data: Path | None,
    out: Path,
    limit: int | None = None,
    report: Report | None = None,
) -> dict[str, Numbers]:
    """Run lm-eval's tasks on the LLM afresh, and on a trained model with its voice off and on.

    Writes `out/lm-eval.json` and returns it. Raises ValueError for a task that is not there.
    """
    llm = resolve(SpeechLMConfig.from_pretrained(folder).model.llm)
    plain: Any = HFLM
    ours: Any = SpeechHarness
    models: dict[str, Callable[[], LM]] = {
        "llm": lambda: plain(str(llm), dtype="bfloat16", batch_size=8, device=_device()),
        "base": lambda: ours(folder, "off"),
        "ours": lambda: ours(folder, "on"),
    }
    if report is not None:
        report(0.0, "tasks")
    catalogue = read_catalogue(tasks, data)
    asked = list(tasks)
    if data is not None:
        asked = [local_task(task, catalogue, data, out / "lm-eval") for task in tasks]
    found: dict[str, Numbers] = {}
    for place, (name, load) in enumerate(models.items()):
        if report is not None:
            report(place / len(models), name)
        found[name] = run_tasks(load(), asked, catalogue, limit)
    written = {"lm_eval": version("lm_eval"), "limit": limit, "numbers": found}
    out.mkdir(parents=True, exist_ok=True)
    (out / "lm-eval.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    return found


def run_tasks(
    lm: LM, tasks: Sequence[str], catalogue: TaskManager, limit: int | None = None
) -> Numbers:
    """Run tasks, by lm-eval's names or their files; return its numbers by task and metric.

    Raises ValueError for a task that lm-eval does not have.
    """
    try:
        found: Any = simple_evaluate(
            lm, tasks=list(tasks), limit=limit, bootstrap_iters=0, task_manager=catalogue
        )
    except KeyError as error:
        raise ValueError(f"lm-eval: {error.args[0]}") from None
    return {
        task: {
            key.removesuffix(",none"): float(value)
            for key, value in results.items()
            if isinstance(value, int | float) and "stderr" not in key and key != "sample_len"
        }
        for task, results in found["results"].items()
    }


def read_catalogue(tasks: Sequence[str], data: Path | None) -> TaskManager:
    """Read which tasks lm-eval has; to read them all, 13,000 files, takes it a minute or more."""
    if data is None or not all(map(_benchmark, tasks)):
        return TaskManager()
    home = Path(lm_eval.tasks.__file__).parent
    folders: list[str | Path] = [home / name for name in ("arc", "gsm8k", "ifeval", "mmlu", "bbh")]
    return TaskManager(include_path=folders, include_defaults=False)


def local_task(task: str, catalogue: TaskManager, data: Path, work: Path) -> str:
    """Return an lm-eval task that reads the benchmark's published files in `data`.

    They are written to `work` as the hub has them; a task that is not known here is left as it is.
    """
    read = _benchmark(task)
    if read is None:
        return task
    known = catalogue.task_index
    if task not in known:
        raise ValueError(
            f"'{task}' is no task of lm-eval {version('lm_eval')}; see lm_eval ls tasks"
        )
    files = {}
    for split, rows in read(data, task).items():
        path = work / f"{task}.{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        files[split] = str(path)
    local: dict[str, Any] = {
        "include": str(known[task].yaml_path),
        "task": task,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files},
    }
    for key, split in (("training_split", "train"), ("validation_split", "validation")):
        if split not in files:
            local[key] = None
    if task == "gsm8k":  # the items that it shows as examples are not in the test's file
        local |= {"num_fewshot": 0, "fewshot_split": "test"}
    path = work / f"{task}.yaml"
    path.write_text(yaml.safe_dump(local), encoding="utf-8")
    return str(path)


def _arc(data: Path, task: str) -> Mapping[str, Sequence[Row]]:
    return {
        split: [
            {
                "id": row["id"],
                "question": row["question"]["stem"],
                "choices": {
                    key: [choice[key] for choice in row["question"]["choices"]]
                    for key in ("text", "label")
                },
                "answerKey": row["answerKey"],
            }
            for row in _lines(data / f"ARC-Challenge-{name}.jsonl")
        ]
        for split, name in (("validation", "Dev"), ("test", "Test"))
    }


def _gsm8k(data: Path, task: str) -> Mapping[str, Sequence[Row]]:
    return {"test": _lines(data / "gsm8k.test.jsonl")}


def _ifeval(data: Path, task: str) -> Mapping[str, Sequence[Row]]:
    rows = _lines(data / "ifeval.en.jsonl")
    return {
        "train": [
            row
            | {"instruction_id_list": [i.removeprefix("en:") for i in row["instruction_id_list"]]}
            for row in rows
        ]
    }


def _mmlu(data: Path, task: str) -> Mapping[str, Sequence[Row]]:
    subject = task.removeprefix("mmlu_")
    found = {}
    for split in ("dev", "test"):
        table = _member(data / "mmlu.tar.gz", f"mmlu/{split}/{subject}_{split}.csv")
        found[split] = [
            {"question": row[0], "choices": row[1:5], "answer": int(row[5])}
            for row in list(csv.reader(io.StringIO(table)))[1:]
        ]
    return found


def _bbh(data: Path, task: str) -> Mapping[str, Sequence[Row]]:
    name = re.sub("^bbh_(zeroshot|fewshot|cot_zeroshot|cot_fewshot)_", "", task)
    return {"test": json.loads(_member(data / "bbh.tar.gz", f"bbh/bbh/{name}.json"))["examples"]}


_BENCHMARKS: dict[str, Callable[[Path, str], Mapping[str, Sequence[Row]]]] = {
    "arc_challenge": _arc,
    "gsm8k": _gsm8k,
    "ifeval": _ifeval,
    "mmlu_": _mmlu,
    "bbh_": _bbh,
}


def _benchmark(task: str) -> Callable[[Path, str], Mapping[str, Sequence[Row]]] | None:
    return next((read for name, read in _BENCHMARKS.items() if task.startswith(name)), None)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _lines(path: Path) -> list[dict]:
    if path.is_file():
        data = path.read_bytes()
    else:
        data = gzip.decompress(_there(path.with_name(f"{path.name}.gz")).read_bytes())
    return [json.loads(line) for line in data.decode("utf-8").splitlines()]


def _member(path: Path, name: str) -> str:
    with tarfile.open(_there(path)) as archive:
        try:
            file = archive.extractfile(name)
        except KeyError:
            raise ValueError(f"{path}: no {name} in it; check the task's name") from None
        assert file is not None
        return file.read().decode("utf-8")


def _there(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; name the folder of the benchmarks with --data")
    return path
