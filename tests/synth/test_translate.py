import json

import pytest

from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.synth.plan import run
from voicetextblender.synth.translate import Translations

SAID = ("The cat is on the table.", "The dog is in the garden.", "The man is at the door.")
GERMAN = {
    "The cat": "Die Katze ist auf dem Tisch.",
    "The dog": "The dog is in the garden.",
    "The man": "Der Mann ist an der Tür. " * 4,
}


def test_recordings_are_translated_and_what_is_no_translation_is_counted(tmp_path, llm):
    def reply(messages):
        order, said = messages[-1]["content"].split("\n\n")
        assert order == "Translate from English to German. Write the translation only."
        return GERMAN[said[:7]]

    llm.reply = reply
    clips = tuple(
        Conversation(f"c{n}", (user("?", Audio("a.wav", text=said)), assistant(said)), "asr", "en")
        for n, said in enumerate(SAID)
    )
    list(run(Translations(clips, llm.name, "de", "varied"), tmp_path, max_drop=1))
    (line,) = (tmp_path / "shard-00000.jsonl").read_text().splitlines()
    made = json.loads(line)
    assert made["task"] == "ast" and made["meta"]["target_lang"] == "de"
    assert made["messages"][1]["content"] in (GERMAN["The cat"], "die katze ist auf dem tisch")
    told = json.loads((tmp_path / "report.json").read_text())
    assert {(drop["by"], drop["reason"]) for drop in told["dropped"]} == {
        ("en-de", "not translated"),
        ("en-de", "translated at another length"),
    }


def test_a_language_without_a_name_is_refused():
    with pytest.raises(ValueError, match="language 'xx' has no name here"):
        Translations((), "smollm2-135m", "xx")
