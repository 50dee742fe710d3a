"""Rebuild the data set in this folder: `python data/build.py IMPORTED TEXTS`.

IMPORTED is what `vtb data import asterisk` wrote; TEXTS holds `tatoeba.en-*.tsv.gz` and
`wikitext2-a.txt.gz`. The same input gives the same files.
"""

import gzip
import random
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from voicetextblender.chat import Conversation, parse_line, to_line

HERE = Path(__file__).parent
NUM_CLIPS = {"en": 70, "es": 30, "fr": 25, "it": 25}
FRAGMENT = re.compile(r".*-(in|out|out-0|extended)$|conf-(has|user|other)|dir-(first|last|using)")

NUM_TRAIN, NUM_HELD_OUT = 6000, 60
NUM_SENTENCES = {4: 800, 5: 1800, 6: 2700, 7: 1100, 8: 90}  # words: sentences at most
PLAIN = re.compile(r"[A-Z][A-Za-z]*('[a-z]+)?(,? [A-Za-z]+('[a-z]+)?)*[.?!]")
PROFANE = set(re.findall(r"\w+", "arse ass bastard bitch crap damn fuck hell naked rape sex shit"))
CLEAN = re.compile(
    r"(?!.* '[ A-Z])[A-Z][ -;=?-Z^-~–]* \."
)  # no "<unk>", no brackets, no foreign letters


def main(imported: Path, texts: Path) -> None:
    build_clips(imported, random.Random(0))
    build_sentences(texts, random.Random(0))
    build_prose(texts / "wikitext2-a.txt.gz", random.Random(0))


def build_clips(imported: Path, rng: random.Random) -> None:
    """Choose sentences, a fifth of them for the test, and write clips and conversations."""
    asr = {lang: read(imported / f"asr-{lang}.jsonl") for lang in NUM_CLIPS}
    chosen = {lang: [] for lang in NUM_CLIPS}
    english: list[set[str]] = []
    for key in rng.sample(sorted(asr["en"]), len(asr["en"])):
        words = set(words_of(asr["en"][key]))
        takers = [lang for lang in NUM_CLIPS if key in asr[lang] and is_good(key, asr[lang][key])]
        takers = [lang for lang in takers if len(chosen[lang]) < NUM_CLIPS[lang]]
        if takers and not any(overlap(words, other) > 0.5 for other in english):
            english.append(words)
            for lang in takers:
                chosen[lang].append(key)
    keys = sorted(set().union(*chosen.values()))
    test = set(rng.sample(keys, len(keys) // 5))
    shutil.rmtree(HERE / "asterisk" / "clips", ignore_errors=True)
    for lang, of_lang in chosen.items():
        for key in of_lang:
            target = HERE / "asterisk" / asr[lang][key].clips[0].audio
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(imported / asr[lang][key].clips[0].audio, target)
    ast = {lang: read(imported / f"ast-{lang}-en.jsonl") for lang in NUM_CLIPS if lang != "en"}
    for prefix, source in (("", asr), ("ast-", ast)):
        for part, is_test in (("train", False), ("test", True)):
            write(
                HERE / "asterisk" / f"{prefix}{part}.jsonl",
                [
                    to_line(source[lang][key])
                    for lang in source
                    for key in sorted(chosen[lang])
                    if (key in test) == is_test and key in source[lang]
                ],
            )


def is_good(key: str, conversation: Conversation) -> bool:
    """Whether a prompt is a sentence of a length to learn from, not a piece of one."""
    seconds = conversation.clips[0].duration or 0.0
    return 1 <= seconds <= 15 and len(words_of(conversation)) >= 4 and not FRAGMENT.match(key)


def read(path: Path) -> dict[str, Conversation]:
    """Return the conversations of a file by the key of their clip."""
    lines = path.read_text("utf-8").splitlines()
    conversations = [parse_line(line, f"{path.name}:{n}") for n, line in enumerate(lines, 1)]
    return {c.clips[0].audio.split("/", 2)[2].removesuffix(".opus"): c for c in conversations}


def words_of(conversation: Conversation) -> list[str]:
    return re.findall(r"[^\W\d_]+", (conversation.clips[0].text or "").lower())


def overlap(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


def build_sentences(texts: Path, rng: random.Random) -> None:
    """Choose everyday sentences of common words, few of them with the same beginning."""
    sentences: dict[tuple[str, ...], str] = {}
    for path in sorted(texts.glob("tatoeba.en-*.tsv.gz")):
        for line in gzip.decompress(path.read_bytes()).decode().splitlines():
            sentence = line.split("\t")[0].strip()
            sentences.setdefault(tuple(re.findall(r"[a-z']+", sentence.lower())), sentence)
    frequency = Counter(word for words in sentences for word in words)
    inside = " ".join(re.sub(r"^\S+", "", sentence) for sentence in sentences.values())
    common = Counter(re.findall(r"\b[a-z]+", inside))
    capital = Counter(word.lower() for word in re.findall(r"\b[A-Z][a-z]+", inside))
    names = {word for word in capital if capital[word] > common[word]}
    room, begun, chosen = dict(NUM_SENTENCES), Counter[tuple[str, ...]](), []
    # The rarest word decides: the more common it is, the earlier a sentence is taken.
    for words in sorted(sentences, key=lambda words: (-min(frequency[w] for w in words), words)):
        is_bad = not PLAIN.fullmatch(sentences[words]) or not PROFANE.isdisjoint(words)
        if is_bad or not names.isdisjoint(words) or not room.get(len(words)):
            continue
        if begun[words[:2]] < 30 and begun[words[:3]] < 3:
            begun.update((words[:2], words[:3]))
            room[len(words)] -= 1
            chosen.append(words)
    rng.shuffle(chosen)
    held_out = [words for words in chosen if len(words) > 4][:NUM_HELD_OUT]
    apart = [words for words in chosen if all(overlap(set(words), set(h)) <= 0.6 for h in held_out)]
    write(HERE / "text" / "held-out.en.txt", [sentences[words] for words in held_out])
    lines = "".join(sentences[words] + "\n" for words in apart[:NUM_TRAIN])
    # No time stamp, so that the same sentences make the same file.
    (HERE / "text" / "sentences.en.txt.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))


def build_prose(path: Path, rng: random.Random) -> None:
    """Choose about 12 kB of encyclopedia: from each article its longest run of clean sentences."""
    text = gzip.decompress(path.read_bytes()).decode()
    chosen: list[str] = []
    for article in re.split(r"\n = [^=\n]+ = \n", text):
        runs = [""]
        for paragraph in article.splitlines():
            runs.append("")
            for sentence in re.split(r"(?<= \.) ", paragraph.strip()):
                if CLEAN.fullmatch(sentence) and sentence.count('"') % 2 == 0:
                    runs[-1] += f" {sentence}"
                else:
                    runs.append("")
        longest = max(runs, key=len)
        if longest.count(" .") > 2:
            chosen.append(detokenised(longest[: longest.rindex(" .", 0, 900) + 2]))
    rng.shuffle(chosen)
    while sum(map(len, chosen)) > 12_000:
        chosen.pop()
    write(HERE / "text" / "perplexity.en.txt", chosen)


def detokenised(text: str) -> str:
    """Undo WikiText's spacing: `a 6 @-@ foot " wall " , he said .` becomes plain prose."""
    text = re.sub(r" @([-,.])@ ", r"\1", text)
    text = re.sub(r'" ([^"]*) "', r'"\1"', text)
    text = re.sub(r" ([.,;:?!)%]|'s\b|'t\b)|(?<=[($]) ", r"\1", text)
    return re.sub(r"(?<=\d) – (?=\d)", "–", text).strip()


def write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
