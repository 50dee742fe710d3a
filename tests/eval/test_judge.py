import json
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from voicetextblender.chat import Conversation, assistant, user
from voicetextblender.data.records import write_lines
from voicetextblender.eval.judge import (
    _GRADE,
    _GRADED,
    DIGEST,
    Case,
    LocalJudge,
    Verdict,
    _chat,
    preferences,
    verdicts,
)
from voicetextblender.eval.metrics import estimate
from voicetextblender.eval.predict import Prediction, predictions_file, write_predictions
from voicetextblender.eval.report import write_report
from voicetextblender.eval.scorers import Answers, compare, scorer
from voicetextblender.eval.scores import score_folder
from voicetextblender.eval.suite import EvalSet, Suite, write_items
from voicetextblender.synth.writers import load_writer

CASES = [Case("1 + 1?", "2", "2"), Case("The capital of France?", "Paris", "Rome, I think")]
PAIRS = [Case("1 + 1?", "2", "2", "3"), Case("1 + 1?", "2", "3", "2"), Case("?", "2", "5", "2")]


@pytest.fixture
def service(monkeypatch):
    """A judge on this machine: `says` maps a prompt to what it writes, or to a status code."""

    class Service(BaseHTTPRequestHandler):
        prompts: list[str] = []

        @staticmethod
        def says(prompt):
            if "Answer 1: " in prompt:  # it likes 2, but prefers whatever stands first to 5
                return json.dumps({"better": 1 if "1: 2" in prompt or "5" in prompt else 2})
            correct = int("Right answer: 2" in prompt)
            return json.dumps({"correct": correct, "redundancy": 9 - 8 * correct})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert [m["role"] for m in body["messages"][:3]] == ["system", "user", "assistant"]
            Service.prompts.append(body["messages"][-1]["content"])
            assert body["temperature"] == 0
            said = Service.says(Service.prompts[-1])
            self.send_response(said if isinstance(said, int) else 200)
            self.end_headers()
            choice = {"message": {"content": said}, "finish_reason": "stop"}
            self.wfile.write(json.dumps({"choices": [choice]}).encode())

        def log_message(self, *_):
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("voicetextblender.synth.remote._FIRST_WAIT_S", 0.001)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    Service.url = f"http://127.0.0.1:{server.server_port}/v1#judge"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield Service
    server.shutdown()
    server.server_close()
    load_writer.cache_clear()


def test_a_service_judges_and_is_never_asked_the_same_twice(service, tmp_path):
    first = verdicts(service.url, CASES, tmp_path)
    assert [(v.correct, v.redundancy) for v in first] == [(1, 1), (0, 9)]
    assert verdicts(service.url, CASES[::-1], tmp_path) == first[::-1]
    assert len(service.prompts) == 2
    assert "Given answer: Rome, I think" in service.prompts[0] + service.prompts[1]


def test_an_answer_that_cannot_be_judged_is_counted_and_not_scored(service, tmp_path):
    says = service.says
    service.says = lambda prompt: "I would rather not." if "Rome" in prompt else says(prompt)
    items = [Conversation(c.question, (user(c.question), assistant(c.reference))) for c in CASES]
    found = [Prediction(i.id, answer=c.answer) for i, c in zip(items, CASES, strict=True)]
    metrics = scorer("judge")(Answers(items, found, judge=service.url, cache=tmp_path))
    values = {m.name: estimate(m).value for m in metrics}
    assert values == {"correct": 1.0, "redundancy": 1.0, "unjudged": 0.5}
    assert metrics[0].scored_with == f"judge {service.url}, prompt {DIGEST}"


def test_judging_that_was_stopped_goes_on_where_it_was(monkeypatch, tmp_path):
    class FakeJudge:
        asked = 0

        def judge(self, chats, form):
            self.asked += len(chats)
            if self.asked == 2:
                raise KeyboardInterrupt
            return [form(correct=1, redundancy=1)] * len(chats)

    monkeypatch.setattr("voicetextblender.eval.judge._AT_ONCE", 1)
    for judge, ends in (
        (FakeJudge(), pytest.raises(KeyboardInterrupt)),
        (FakeJudge(), ExitStack()),
    ):
        monkeypatch.setattr("voicetextblender.eval.judge.load_judge", lambda name, of=judge: of)
        with ends:
            verdicts("fake", CASES, tmp_path)
    assert judge.asked == 1


def test_an_answer_is_preferred_only_where_both_orders_agree(service, tmp_path):
    found = preferences(service.url, PAIRS, tmp_path)
    assert found == [1, -1, 0]
    assert len(service.prompts) == 6 - 2  # the second pair is the first one in the other order
    assert preferences(service.url, PAIRS, tmp_path) == found
    assert len(service.prompts) == 4


def test_a_pair_of_which_one_order_cannot_be_judged_counts_for_nothing(service, tmp_path):
    says = service.says
    service.says = lambda prompt: "Both!" if "Answer 1: 5" in prompt else says(prompt)
    items = [
        Conversation(str(n), (user(c.question), assistant(c.reference)))
        for n, c in enumerate(PAIRS)
    ]
    ours, theirs = (
        Answers(
            items,
            [Prediction(i.id, answer=a) for i, a in zip(items, said, strict=True)],
            judge=service.url,
            cache=tmp_path,
        )
        for said in ([c.answer for c in PAIRS], [c.other for c in PAIRS])
    )
    preferred, neither = compare(ours, theirs)
    assert preferred.sums.tolist() == [[1, 1], [-1, 1], [0, 0]]
    assert neither.sums.tolist() == [[0, 1], [0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            "nonsense",
            "said nothing that can be read of 2 answers; it must write JSON with correct",
        ),
        ('{"correct": 7, "redundancy": 0}', "said nothing that can be read of 2 answers"),
        (503, "answered 503"),
    ],
)
def test_a_judge_that_is_down_or_talks_nonsense_is_an_error(service, said, message):
    service.says = lambda prompt: said
    with pytest.raises(ValueError, match=message):
        verdicts(service.url, CASES, None)


def test_without_a_judge_nothing_is_judged():
    with pytest.raises(ValueError, match="the scorer 'judge' needs a judge; name one in the suite"):
        scorer("judge")(Answers([], []))


def test_a_local_judge_always_has_a_verdict_and_always_the_same(parts):
    chats = [_chat(_GRADE, _GRADED, case) for case in CASES]
    judge = LocalJudge(str(parts / "llama"))
    found = judge.judge(chats, Verdict)
    assert all(v.correct in (0, 1) and 1 <= v.redundancy <= 9 for v in found)
    # What one case left in its memory of the prompt does not change the next.
    assert judge.judge(chats[::-1], Verdict) == found[::-1]
    assert LocalJudge(str(parts / "llama")).judge(chats[1:], Verdict) == found[1:]


def test_ours_is_compared_with_every_other_system_in_results_and_report(service, tmp_path):
    of = EvalSet(name="open", path=str(tmp_path / "q.jsonl"), speech="synthetic", scorer="judge")
    items = [
        Conversation(str(n), (user(c.question), assistant(c.reference)))
        for n, c in enumerate(PAIRS)
    ]
    write_lines(tmp_path / "q.jsonl", items)
    write_items(of, tmp_path / "out")
    for system, said in (("ours", [c.answer for c in PAIRS]), ("base", [c.other for c in PAIRS])):
        found = [Prediction(i.id, answer=a) for i, a in zip(items, said, strict=True)]
        write_predictions(predictions_file(tmp_path / "out", system, "open"), found)
    suite = Suite(name="mine", sets=(of,), judge=service.url)
    (tmp_path / "out/suite.yaml").write_text(yaml.safe_dump(suite.model_dump(mode="json")))
    scores = score_folder(tmp_path / "out")
    found = {s.metric: s for s in scores if (s.system, s.against) == ("ours", "base")}
    assert (found["preferred"].value, found["neither"].value) == (0.0, 1 / 3)
    assert "each order once" in found["preferred"].scored_with
    assert not any(s.against == "ours" and s.metric == "preferred" for s in scores)
    asked = len(service.prompts)
    assert score_folder(tmp_path / "out") == scores and len(service.prompts) == asked
    assert "preferred, net" in write_report(tmp_path / "out").read_text()
