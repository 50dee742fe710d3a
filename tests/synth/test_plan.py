import json
from dataclasses import dataclass, field

import pytest

from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.synth.plan import estimate, in_groups, run
from voicetextblender.synth.shards import Dropped, Made


@dataclass(frozen=True)
class FakePlan:
    """Items of three seconds and eight tokens; every tenth cannot be made."""

    num_items: int = 200
    tries: list = field(default_factory=list, repr=False)

    def __call__(self, items):
        self.tries.append(list(items))
        for item in items:
            if item % 10 == 0:
                yield Dropped(item, "fake", "out of luck", f"{item} is round")
                continue
            clip = Audio("a.wav", duration=3.0, text="x")
            turns = (user("Say it again.", clip), assistant(f"Said {item % 50:3} times."))
            yield Made(Conversation(f"fake-{item:06d}", turns, meta={"writer": "fake"}))


def test_an_estimate_is_a_few_items_times_the_rest():
    plan = FakePlan()
    told = estimate(plan, workers=2, num_tried=100)
    assert told.num_items == 200 and len(plan.tries[-1]) == 100
    assert told.dropped_share == 0.0  # it tries 1, 3, 5 and so on
    assert told.audio_h == pytest.approx(200 * 3 / 3600)
    assert told.num_tokens == pytest.approx(200 * 7, rel=0.05)
    assert "200 items, of which 0% may be dropped: 0.17 h of audio, about 14" in str(told)


def test_items_that_fail_are_tried_again_and_stand_in_order_with_their_last_reason():
    tried = []

    def attempt(items, number):
        tried.append((list(items), number))
        for item in items:
            is_made = item % 2 or number
            made = Made(Conversation(f"x-{item}", (user("a"),)))
            yield item, made if is_made and item else Dropped(item, "x", f"try {number}", "")

    results = list(in_groups(range(5), 3, attempt))
    assert tried == [([0, 1, 2], 0), ([0, 2], 1), ([3, 4], 0), ([4], 1)]
    assert [isinstance(result, Made) for result in results] == [False, True, True, True, True]
    assert results[0].reason == "try 1"


def _kind(conversation):
    return conversation.messages[-1].text


def test_what_was_said_before_is_dropped_whatever_shard_it_is_in_and_only_once(tmp_path):
    for _ in range(2):  # doing it again changes nothing
        list(run(FakePlan(), tmp_path, max_drop=1, per_shard=30, same=_kind))
        told = json.loads((tmp_path / "report.json").read_text())
        counts = {drop["reason"]: drop["count"] for drop in told["dropped"]}
        assert counts == {"out of luck": 20, "said before": 180 - 45}
        assert told["made"] == {"fake": 45}
        lines = [
            line for p in sorted(tmp_path.glob("*.jsonl")) for line in p.read_text().splitlines()
        ]
        assert [json.loads(line)["id"] for line in lines][:2] == ["fake-000001", "fake-000002"]
        assert len(lines) == 45 and len(list(tmp_path.glob("*.jsonl"))) == 2
    assert not list(tmp_path.glob("*.tar"))  # no clips were made


def test_a_killed_pass_over_what_was_said_before_is_done_again(tmp_path):
    list(run(FakePlan(), tmp_path, max_drop=1, per_shard=30))
    before = {p.name: p.read_bytes() for p in tmp_path.glob("*.jsonl")}
    list(run(FakePlan(), tmp_path, max_drop=1, per_shard=30, same=_kind))
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    for name, data in before.items():  # killed after the reports, before the conversations
        (tmp_path / name).write_bytes(data)
    list(run(FakePlan(), tmp_path, max_drop=1, per_shard=30, same=_kind))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == after
