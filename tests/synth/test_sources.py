import gzip
import json
import os

import pytest

from voicetextblender.chat import Audio, Conversation, assistant, to_line, user
from voicetextblender.data.records import Records
from voicetextblender.synth.sources import read_chats, read_clips, read_pairs, read_sentences

SAID = "We saw three old cats here."


def write(path, *conversations):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(to_line(conversation) + "\n" for conversation in conversations))
    return str(path)


def spoken(id, text, audio="shards/0.tar#0.flac"):
    return Conversation(id, (user("Write:", Audio(audio, 1.5, 2.0, text)), assistant("Ok.")), "asr")


def test_sentences_are_read_plain_or_gzipped_and_an_empty_file_is_refused(tmp_path):
    plain, zipped, empty = (tmp_path / name for name in ("a.txt", "a.txt.gz", "b.txt"))
    plain.write_text("One.\n\n  Two.  \n")
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    empty.write_text("\n \n")
    assert read_sentences(plain) == read_sentences(zipped) == ("One.", "Two.")
    with pytest.raises(ValueError, match=r"b\.txt: no sentences in it; write one on each line"):
        read_sentences(empty)


def test_pairs_have_the_spoken_side_first_and_once(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("I am here.\tIch bin da.\tx\nI am here!\tDa bin ich.\nHi.\tHallo.\n")
    assert read_pairs(path) == (("I am here.", "Ich bin da."),)
    assert len(read_pairs(path, spoken=1)) == 2
    with pytest.raises(ValueError, match="no pair whose sentence has 9 words"):
        read_pairs(path, least_words=9)
    path.write_text("One column\n")
    with pytest.raises(ValueError, match=r"pairs\.tsv:1: expected a sentence, a tab and its"):
        read_pairs(path)


def test_clips_are_read_once_each_and_found_again_from_the_new_folder(tmp_path):
    path = write(tmp_path / "in" / "a.jsonl", spoken("a", SAID), spoken("b", SAID.upper()))
    out = tmp_path / "out"
    (clip,) = read_clips(path, out)
    assert (clip.id, clip.clips[0].start, clip.clips[0].text) == ("a", 1.5, SAID)
    again = Records(write(out / "b.jsonl", clip))[0].clips[0].audio
    assert os.path.normpath(again) == str(tmp_path / "in/shards/0.tar#0.flac")


def test_a_source_without_transcripts_or_with_few_words_is_refused(tmp_path):
    path = write(tmp_path / "a.jsonl", spoken("a", None))
    with pytest.raises(ValueError, match="with the 'text' of its clip; .* import the recordings"):
        read_clips(path, tmp_path)
    path = write(tmp_path / "a.jsonl", spoken("a", "Too short."))
    with pytest.raises(ValueError, match="no conversation with one clip of 6 words or more"):
        read_clips(path, tmp_path)


def test_chats_are_those_without_audio_each_once(tmp_path):
    chat = Conversation("c", (user("Hello?"), assistant("Yes.")))
    twice = Conversation("d", chat.messages)
    path = write(tmp_path / "a.jsonl", spoken("a", SAID), chat, twice)
    assert [found.id for found in read_chats(path)] == ["c"]
    path = write(tmp_path / "b.jsonl", spoken("a", SAID))
    with pytest.raises(ValueError, match="no conversation without audio that begins with a user"):
        read_chats(path)
    (tmp_path / "c.jsonl").write_text(json.dumps({"id": "x"}))
    with pytest.raises(ValueError, match="c.jsonl:1: conversation 'x': 'messages' must be"):
        read_chats(str(tmp_path / "c.jsonl"))
