import json
from collections import Counter

import numpy as np
import pytest

from voicetextblender.data.records import Records
from voicetextblender.data.sources import Source, divide


@pytest.fixture
def source(tmp_path):
    """80 German and 10 Irish conversations: ASR, but for 20 German translations."""
    files = {
        "a.jsonl": [("de", "asr")] * 60,
        "b.jsonl": [("de", "ast")] * 20 + [("ga", "asr")] * 10,
    }
    for name, kinds in files.items():
        lines = [
            json.dumps(
                {"id": f"{name}-{n}", "lang": lang, "task": task}
                | {"messages": [{"role": "user", "content": "hi"}]}
            )
            for n, (lang, task) in enumerate(kinds)
        ]
        (tmp_path / name).write_text("\n".join(lines))
    return Source("speech", Records(str(tmp_path / "*.jsonl")), weight=3.0, epochs=2.0)


def shares(parts):
    return {part.kind: part.weight / 3.0 for part in parts}


def test_a_source_that_is_not_divided_is_itself(source):
    assert divide(source, (), 0.5) == [source]


@pytest.mark.parametrize("by", [("file",), ("lang",), ("task",), ("lang", "task")])
def test_the_parts_hold_every_conversation_once_and_share_the_weight(source, by):
    parts = divide(source, by, 0.3)
    ids = Counter(part[n].id for part in parts for n in range(len(part)))
    assert len(ids) == 90 and set(ids.values()) == {1}
    assert sum(part.weight for part in parts) == pytest.approx(3.0)
    for part in parts:
        assert (part.name, part.epochs) == ("speech", 2.0)
        assert len({(part[n].lang, part[n].task) for n in range(len(part))}) <= 2


def test_temperature_one_keeps_the_shares_of_the_data_and_zero_makes_kinds_equal(source):
    assert shares(divide(source, ("lang",), 1.0)) == pytest.approx({"de": 80 / 90, "ga": 10 / 90})
    assert shares(divide(source, ("lang",), 0.0)) == pytest.approx({"de": 0.5, "ga": 0.5})
    half = shares(divide(source, ("file",), 0.5))
    assert half["a.jsonl"] / half["b.jsonl"] == pytest.approx(np.sqrt(60 / 30))


def test_each_level_is_shared_among_its_own_kinds(source):
    found = shares(divide(source, ("lang", "task"), 0.0))
    assert found == pytest.approx({"de asr": 0.25, "de ast": 0.25, "ga asr": 0.5})


def test_a_line_that_is_no_json_is_a_kind_of_its_own_until_it_is_drawn(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": "x", "lang": "de", "messages": 1}\n{oops\n[1]')
    parts = divide(Source("s", Records(str(tmp_path / "a.jsonl"))), ("lang",), 1.0)
    assert [(part.kind, len(part)) for part in parts] == [("", 2), ("de", 1)]
    with pytest.raises(ValueError, match="a.jsonl:2: not JSON"):
        parts[0][0]
