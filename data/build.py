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
from collections.abc import Iterable, Sequence
from pathlib import Path

from voicetextblender.chat import Conversation, parse_line, to_line

HERE = Path(__file__).parent
NUM_CLIPS = {"en": 70, "es": 30, "fr": 25, "it": 25}
# Prompts that are pieces of a sentence, by the end of their key and of their English text.
PIECES = r".*-(in|out|out-0|extended)|(conf(bridge)?-(has|oth|part|user)|dir-[flu]|is-|spy-|to-).*"
PIECE_KEY = re.compile(PIECES + "|vm-(is|the).*")
PIECE_END = "as at currently exactly for from is lasts number person than to"

NUM_TRAIN, NUM_HELD_OUT = 6000, 60
NUM_SENTENCES = {4: 800, 5: 1800, 6: 2700, 7: 1100, 8: 90}  # words: sentences at most
PLAIN = re.compile(r"[A-Z][A-Za-z]*('[a-z]+)?(,? [A-Za-z]+('[a-z]+)?)*[.?!]")
PROFANE = "arse ass bastard bitch crap damn fuck hell naked rape sex shit"
CLEAN = re.compile(r"(?!.* '[ A-Z])[A-Z][ -;=?-Z^-~–]* \.")  # no <unk>, brackets, quotations


def build_clips(imported: Path, rng: random.Random) -> None:
    """Choose sentences, a fifth of them for the test, and write clips and conversations."""
    asr = {lang: read(imported / f"asr-{lang}.jsonl") for lang in NUM_CLIPS}
    ast = {lang: read(imported / f"ast-{lang}-en.jsonl") for lang in NUM_CLIPS if lang != "en"}
    words = {lang: {key: words_of(asr[lang][key]) for key in asr[lang]} for lang in asr}
    chosen: dict[str, list[str]] = {lang: [] for lang in NUM_CLIPS}
    for key in rng.sample(sorted(asr["en"]), len(asr["en"])):
        langs = [lang for lang in NUM_CLIPS if key in asr[lang]]
        others = set().union(*chosen.values())
        if PIECE_KEY.fullmatch(key) or words["en"][key][-1] in PIECE_END.split():
            continue
        # A sentence that is much like a chosen one, in any language, adds little and may leak.
        if any(
            overlap(words[lang][key], words[lang][other]) > 0.5
            for lang in langs
            for other in others & words[lang].keys()
        ):
            continue
        for lang in langs:
            has_length = 1 <= (asr[lang][key].clips[0].duration or 0) <= 15
            if has_length and len(words[lang][key]) >= 4 and len(chosen[lang]) < NUM_CLIPS[lang]:
                chosen[lang].append(key)
    keys = sorted(set().union(*chosen.values()))
    test = set(rng.sample(keys, len(keys) // 5))
    parts: dict[str, list[str]] = {"train": [], "test": [], "ast-train": [], "ast-test": []}
    shutil.rmtree(HERE / "asterisk" / "clips", ignore_errors=True)
    for lang, of_lang in chosen.items():
        for key in sorted(of_lang):
            part = "test" if key in test else "train"
            parts[part].append(to_line(asr[lang][key]))
            if lang != "en" and key in ast[lang]:
                parts[f"ast-{part}"].append(to_line(ast[lang][key]))
            clip = asr[lang][key].clips[0].audio
            (HERE / "asterisk" / clip).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(imported / clip, HERE / "asterisk" / clip)
    for part, lines in parts.items():
        write(HERE / "asterisk" / f"{part}.jsonl", lines)


def read(path: Path) -> dict[str, Conversation]:
    """Return the conversations of a file by the key of their clip."""
    lines = path.read_text("utf-8").splitlines()
    conversations = [parse_line(line, f"{path.name}:{n}") for n, line in enumerate(lines, 1)]
    return {c.clips[0].audio.split("/", 2)[2].removesuffix(".opus"): c for c in conversations}


def words_of(conversation: Conversation) -> list[str]:
    return re.findall(r"[^\W\d_]+", (conversation.clips[0].text or "").lower())


def overlap(one: Sequence[str], other: Sequence[str]) -> float:
    return len({*one} & {*other}) / len({*one, *other})


def build_sentences(paths: Iterable[Path], rng: random.Random) -> None:
    """Choose everyday sentences of common words, few of them with the same beginning."""
    sentences: dict[tuple[str, ...], str] = {}
    for line in "".join(gzip.decompress(path.read_bytes()).decode() for path in paths).splitlines():
        sentence = line.split("\t")[0].strip()
        sentences.setdefault(tuple(re.findall(r"[a-z']+", sentence.lower())), sentence)
    frequency = Counter(word for words in sentences for word in words)
    inside = " ".join(re.sub(r"^\S+", "", sentence) for sentence in sentences.values())
    common = Counter(re.findall(r"\b[a-z]+", inside))
    capital = Counter(word.lower() for word in re.findall(r"\b[A-Z][a-z]+", inside))
    names = {word for word in capital if capital[word] > common[word]}
    unwanted = names.union(PROFANE.split())
    room, begun, chosen = dict(NUM_SENTENCES), Counter[tuple[str, ...]](), []
    # The rarest word decides: the more common it is, the earlier a sentence is taken.
    for words in sorted(sentences, key=lambda words: (-min(frequency[w] for w in words), words)):
        if not PLAIN.fullmatch(sentences[words]) or not unwanted.isdisjoint(words):
            continue
        if room.get(len(words)) and begun[words[:2]] < 30 and begun[words[:3]] < 3:
            begun.update((words[:2], words[:3]))
            room[len(words)] -= 1
            chosen.append(words)
    rng.shuffle(chosen)
    held_out = [words for words in chosen if len(words) > 4][:NUM_HELD_OUT]
    train = [words for words in chosen if all(overlap(words, other) <= 0.6 for other in held_out)]
    write(HERE / "text" / "held-out.en.txt", [sentences[words] for words in held_out])
    lines = "".join(sentences[words] + "\n" for words in train[:NUM_TRAIN])
    # No time stamp, so that the same sentences make the same file.
    (HERE / "text" / "sentences.en.txt.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))


def build_prose(path: Path, rng: random.Random) -> None:
    """Choose about 12 kB of encyclopedia: from each article its longest run of clean sentences."""
    chosen: list[str] = []
    for article in re.split(r"\n = [^=\n]+ = \n", gzip.decompress(path.read_bytes()).decode()):
        runs = [""]
        for sentence in re.split(r"(?<= \.) |\n", article):
            is_clean = CLEAN.fullmatch(sentence.strip()) and sentence.count('"') % 2 == 0
            runs = [*runs[:-1], f"{runs[-1]} {sentence.strip()}"] if is_clean else [*runs, ""]
        longest = max(runs, key=len)
        if longest.count(" .") > 2:
            chosen.append(detokenised(longest[: longest.rindex(" .", 0, 900) + 2]))
    rng.shuffle(chosen)
    while sum(map(len, chosen)) > 12_000:
        chosen.pop()
    write(HERE / "text" / "perplexity.en.txt", chosen)


def detokenised(text: str) -> str:
    """Undo WikiText's spacing: `a 6 @-@ foot " wall " , he said .` becomes plain prose."""
    text = re.sub(r'" ([^"]*) "', r'"\1"', re.sub(r" @([-,.])@ ", r"\1", text))
    text = re.sub(r" ([.,;:?!)%]|'(s|t|m|d|re|ll|ve)\b)|(?<=[($]) ", r"\1", text)
    return re.sub(r"(?<=\d) – (?=\d)", "–", text).strip()


def write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    imported, texts = map(Path, sys.argv[1:])
    build_clips(imported, random.Random(0))
    build_sentences(sorted(texts.glob("tatoeba.en-*.tsv.gz")), random.Random(0))
    build_prose(texts / "wikitext2-a.txt.gz", random.Random(0))
