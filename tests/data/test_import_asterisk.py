"""The Asterisk importer, on packages of a few tones that the tests make."""

import gzip
from pathlib import Path

import av
import numpy as np
import pytest

from voicetextblender import audio
from voicetextblender.chat import Conversation, parse_line
from voicetextblender.data.asterisk import read_listing
from voicetextblender.data.import_asterisk import import_asterisk

LISTINGS = {
    "en": """\
; Core Asterisk Sounds in English

beep: [this is a simple beep tone]
digits/1: one
letters/a: a
silence/1: (1 second of silence)
vm-login: Comedian Mail.  Mailbox?
vm-next: Press 6 to play the next message.
vm-nobody: Nobody recorded this.
""",
    "it": """\
; Core Asterisk Sounds in Italian
letters/a: a
vm-login: Posta vocale. Casella di posta?
vm-next: Premere 6 per ascoltare il messaggio successivo.
vm-prev: Premere 4 per il messaggio precedente
""",
}


@pytest.fixture
def packages(tmp_path) -> Path:
    """Two installed languages, under a folder that is as /usr/share."""
    share = tmp_path / "share"
    for lang, listing in LISTINGS.items():
        doc = share / "doc" / f"asterisk-core-sounds-{lang}"
        doc.mkdir(parents=True)
        with gzip.open(doc / f"core-sounds-{lang}.txt.gz", "wt", encoding="utf-8") as file:
            file.write(listing)
        keys = [line.partition(":")[0] for line in listing.splitlines() if ": " in line]
        for key in {*keys, "vm-unlisted"} - {"vm-nobody"}:
            write_g722(share / "asterisk/sounds" / lang / f"{key}.g722", seconds=0.3)
    return share


def write_g722(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 8000 * np.sin(np.arange(round(16_000 * seconds)) / 10)
    with av.open(str(path), "w", format="g722") as out:
        stream = out.add_stream("g722", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone.astype(np.int16)[None], "s16", "mono")
        frame.sample_rate = 16_000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def read(path: Path) -> dict[str, Conversation]:
    lines = path.read_text("utf-8").splitlines()
    return {c.id: c for c in (parse_line(line, path.name) for line in lines)}


def corrected(text: str, lang: str, key: str = "key") -> str:
    return read_listing([f"{key}: {text}\n"], lang)[0][key]


def test_prompts_become_transcription_conversations(packages, tmp_path):
    import_asterisk(packages, tmp_path / "out", languages=["en"])
    conversations = read(tmp_path / "out" / "asr-en.jsonl")
    assert list(conversations) == [
        "asterisk-en-digits-1",
        "asterisk-en-letters-a",
        "asterisk-en-vm-login",
        "asterisk-en-vm-next",
    ]
    prompt = conversations["asterisk-en-vm-next"]
    assert (prompt.task, prompt.lang) == ("asr", "en")
    assert prompt.meta["speaker"] == "allison-smith" and prompt.meta["license"] == "CC-BY-SA-3.0"
    instruction, clip = prompt.messages[0].parts
    assert instruction.text.startswith("Transcribe the content to English")
    assert clip == prompt.clips[0] and clip.audio == "clips/en/vm-next.opus"
    assert clip.text == "Press six to play the next message." == prompt.messages[1].parts[0].text
    assert clip.duration == pytest.approx(0.3, abs=0.01)


def test_every_clip_is_where_its_conversation_says_and_as_long(packages, tmp_path):
    out = tmp_path / "out"
    report = import_asterisk(packages, out, languages=["en", "it"])
    clips = [c.clips[0] for lang in LISTINGS for c in read(out / f"asr-{lang}.jsonl").values()]
    for clip in clips:
        assert audio.load(out / clip.audio).size == round(clip.duration * audio.SAMPLE_RATE)
    assert report.kept == len(clips)
    assert report.hours == pytest.approx(sum(clip.duration for clip in clips) / 3600)


def test_the_same_key_in_two_languages_is_a_translation_both_ways(packages, tmp_path):
    import_asterisk(packages, tmp_path / "out", languages=["it", "en"])
    to_english = read(tmp_path / "out" / "ast-it-en.jsonl")
    to_italian = read(tmp_path / "out" / "ast-en-it.jsonl")
    assert list(to_english) == ["asterisk-it-en-vm-login", "asterisk-it-en-vm-next"]  # no letters
    assert list(to_italian) == ["asterisk-en-it-vm-login", "asterisk-en-it-vm-next"]
    prompt = to_english["asterisk-it-en-vm-next"]
    assert (prompt.task, prompt.lang, prompt.meta["target_lang"]) == ("ast", "it", "en")
    assert prompt.messages[0].parts[0].text.startswith("Translate the Italian content to English")
    assert prompt.clips[0].audio == "clips/it/vm-next.opus"
    assert prompt.messages[1].parts[0].text == "Press six to play the next message."


def test_what_is_left_out_is_counted_by_reason(packages, tmp_path):
    report = import_asterisk(packages, tmp_path / "out", languages=["en"])
    assert report.dropped == {
        "tone or noise": 1,
        "silence": 1,
        "no text": 1,  # vm-unlisted
        "no recording": 1,  # vm-nobody
    }


def test_a_language_that_is_not_installed_says_what_to_install(packages, tmp_path):
    with pytest.raises(FileNotFoundError, match="apt-get install asterisk-core-sounds-fr`, and"):
        import_asterisk(packages, tmp_path / "out", languages=["fr"])
    for clip in sorted((packages / "asterisk/sounds/it").rglob("*.g722")):
        clip.unlink()
    with pytest.raises(FileNotFoundError, match="no recordings of the 'it' prompts; run `apt-get"):
        import_asterisk(packages, tmp_path / "out", languages=["it"])


def test_without_a_choice_the_installed_languages_are_taken(packages, tmp_path):
    import_asterisk(packages, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").glob("asr-*")} == {
        "asr-en.jsonl",
        "asr-it.jsonl",
    }
    with pytest.raises(FileNotFoundError, match="apt-get install asterisk-core-sounds-en`"):
        import_asterisk(tmp_path / "nothing", tmp_path / "none")


def test_an_unknown_language_is_refused(packages, tmp_path):
    with pytest.raises(ValueError, match="knows no language 'sv'; use some of en, es, fr, it, ru"):
        import_asterisk(packages, tmp_path / "out", languages=["sv"])


@pytest.mark.parametrize(
    ("lang", "text", "right"),
    [
        ("en", "press 0 for help", "Press zero for help."),
        ("en", "...to leave the conference...", "To leave the conference."),
        ("en", 'a polite "don\'t call" menu', "A polite don't call menu."),
        ("en", "at [@]", "At."),
        ("en", "Leave a message. (simple tone sound plays)", "Leave a message."),
        ("es", "Marque 7 para borrar", "Marque número siete para borrar."),
        ("es", "En que carpeta desea guardar ?", "¿En qué carpeta desea guardar?"),
        ("es", "La extension esta ocupada", "La extensión está ocupada."),
        ("fr", "Veuillez composez 5.Pour quitter, 1", "Veuillez composer cinq. Pour quitter, un."),
        ("it", "Il numero ? rimosso, non si pu? usare.", "Il numero è rimosso, non si può usare."),
        ("it", "eliminato vm-then-pound: poi premere cancelletto", "Eliminato."),
        ("ru", "... что бы выйти из меню.", "Чтобы выйти из меню."),
    ],
)  # fmt: skip
def test_listed_texts_become_plain_sentences(lang, text, right):
    assert corrected(text, lang) == right


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("silence/3: (3 seconds of silence)", "silence"),
        ("tt-monkeys: [sound of monkeys screaming]", "tone or noise"),
        ("confbridge-join: un suono di beep ascendente", "tone or noise"),
        ("dir-welcome:", "no text"),
        ("vm-msgsaved: Il [suo] messaggio è stato salvato.", "words in brackets"),
        ("demo-instruct: Dial 500 now.", "number or sign not spelt out"),
        ("dictate/both_help: press * to toggle pause", "number or sign not spelt out"),
    ],
)
def test_lines_that_are_no_speech_or_uncertain_are_left_out(line, reason):
    texts, left_out = read_listing([line], "it")
    assert texts == {} and left_out == {line.partition(":")[0]: reason}


def test_what_was_recorded_otherwise_than_written_is_left_out():
    _, left_out = read_listing(["vm-options: Marque 1 para grabar sus mensajes."], "es")
    assert left_out == {"vm-options": "recording says otherwise"}


def test_of_a_key_listed_twice_the_first_text_counts():
    texts, _ = read_listing(["digits/0: cero", "digits/0: diez"], "es")
    assert texts == {"digits/0": "Cero."}


def test_a_key_may_limit_a_correction():
    assert (
        corrected("Marque 7 para borrar", "es", "vm-delete")
        == "Marque el número siete para borrar."
    )
