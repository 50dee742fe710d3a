"""lm-eval itself runs here, on the tasks' published form but a few made-up items."""

import gzip
import json
import tarfile

import pytest

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.slow

from voicetextblender.eval.harness import compare, local_task, read_catalogue  # noqa: E402


@pytest.fixture
def data(tmp_path):
    """ARC and GSM8K as they are published, of three items each."""
    items = [
        {
            "id": f"q{n}",
            "question": {
                "stem": f"How many are {n} and {n}?",
                "choices": [{"text": str(n + k), "label": "ABC"[k]} for k in range(3)],
            },
            "answerKey": "B",
        }
        for n in range(3)
    ]
    for name in ("Dev", "Test"):
        text = "\n".join(map(json.dumps, items))
        (tmp_path / f"ARC-Challenge-{name}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    sums = [{"question": f"{n} + 1?", "answer": f"#### {n + 1}"} for n in range(3)]
    (tmp_path / "gsm8k.test.jsonl").write_text("\n".join(map(json.dumps, sums)))
    return tmp_path


@pytest.mark.filterwarnings("ignore")
def test_with_the_voice_off_lm_eval_finds_the_base_llms_numbers(
    build, processor, data, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    folder = tmp_path / "model"
    build().save_pretrained(folder)
    processor.save_pretrained(folder)
    found = compare(folder, ["arc_challenge", "gsm8k"], data, tmp_path / "out")
    assert found["llm"] == found["base"]
    assert found["llm"]["arc_challenge"].keys() >= {"acc", "acc_norm"}
    assert "exact_match,strict-match" in found["ours"]["gsm8k"]
    assert json.loads((tmp_path / "out/lm-eval.json").read_text())["numbers"] == found


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    return read_catalogue(["gsm8k"], tmp_path_factory.mktemp("benchmarks"))


def test_a_task_that_is_not_known_here_is_left_to_lm_eval(catalogue, tmp_path):
    assert local_task("hellaswag", catalogue, tmp_path, tmp_path) == "hellaswag"


def test_a_benchmark_whose_file_is_not_there_is_named(catalogue, tmp_path):
    with pytest.raises(ValueError, match=r"gsm8k.test.jsonl.gz: no such file; name the folder"):
        local_task("gsm8k", catalogue, tmp_path, tmp_path)


def test_a_task_that_lm_eval_does_not_have_is_refused(catalogue, tmp_path):
    with pytest.raises(ValueError, match="'mmlu_alchemy' is no task of lm-eval"):
        local_task("mmlu_alchemy", catalogue, tmp_path, tmp_path)


def test_a_benchmark_in_a_packed_folder_is_found_by_its_own_name(catalogue, tmp_path):
    with tarfile.open(tmp_path / "mmlu.tar.gz", "w:gz"):
        pass
    with pytest.raises(ValueError, match="no mmlu/dev/anatomy_dev.csv in it; check the task's"):
        local_task("mmlu_anatomy", catalogue, tmp_path, tmp_path)
