"""The recipe that makes sentences of a dictionary."""

import gzip
import random
import sys
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "recipes/data"
LICENCE = "  1 This software and database is being provided to you, the LICENSEE, by  \n"
NOUNS = """\
13883885 25 n 01 hexagon 0 001 @ 13866144 n 0000 | a six-sided polygon  
08944818 15 n 02 Norway 0 Norge 0 001 @ 08178547 n 0000 | (geography) a country in Europe; "Norway \
has many fjords"  
00001740 03 n 01 entity 0 000 | that which is perceived to have its own distinct existence  
"""  # noqa: W291


@pytest.fixture
def dictionary(monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    for name in ("dictionary", "sentences"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import dictionary  # pyright: ignore[reportMissingImports]

    return dictionary


@pytest.fixture
def wordnet(tmp_path) -> Path:
    (tmp_path / "data.noun").write_text(LICENCE + NOUNS)
    for kind in ("verb", "adj", "adv"):
        (tmp_path / f"data.{kind}").write_text(LICENCE)
    return tmp_path


def test_definitions_and_examples_become_sentences_to_speak(dictionary, wordnet):
    said = [[*s.sentences(random.Random(1))] for s in dictionary.senses(wordnet)]
    assert said[0][0] == "A hexagon is a six-sided polygon."
    assert said[1][:2] == ["Norway has many fjords.", "Norway is a country in Europe."]
    norway = [*dictionary.senses(wordnet)][1]
    assert "Norway" in norway.asked(random.Random(0)) and norway.asked(random.Random(0))[-1] == "?"


def test_what_a_test_set_says_is_left_out(dictionary, wordnet, tmp_path):
    (tmp_path / "test.txt").write_text("Norway is a country in Europe.\n")
    out = tmp_path / "out.txt.gz"
    dictionary.main(wordnet, out, tmp_path / "test.txt")
    lines = gzip.decompress(out.read_bytes()).decode().splitlines()
    assert "Norway has many fjords." in lines and "A hexagon is a six-sided polygon." in lines
    assert "Norway is a country in Europe." not in lines


def test_a_sentence_whose_tokens_are_all_heard_is_not_spoken_again(dictionary):
    assert dictionary.covering(["A dog barks."] * 9) == ["A dog barks."] * dictionary.WANTED


def test_without_wordnet_the_error_says_what_to_install(dictionary, tmp_path):
    with pytest.raises(SystemExit, match="apt-get install wordnet-base"):
        dictionary.main(tmp_path, tmp_path / "out.gz")
