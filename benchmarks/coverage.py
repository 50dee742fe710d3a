"""How often training data says the tokens of a test set: CTC cannot spell what it has not heard.

    python benchmarks/coverage.py --test data/eval/read-english.jsonl data/eval/questions.jsonl \
        --train 'runs/data/speech-en/[be]*/*.jsonl' --and 'runs/data/speech-en/d*/*.jsonl'

Prints, for each test set, the share of its tokens that are said fewer than 1, 3, 10 and 30 times in
the clips of the training data, before and after more of it is added.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from transformers import AutoTokenizer

from voicetextblender.data.records import Records
from voicetextblender.model.parts import resolve

FEWER_THAN = (1, 3, 10, 30)


def said(pattern: str) -> Iterator[str]:
    """Yield what is said in the clips, or, where none has words, typed in the first turn."""
    records = Records(pattern)
    for conversation in (records[number] for number in range(len(records))):
        texts = [clip.text for clip in conversation.clips if clip.text]
        yield from texts or [conversation.messages[0].text]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--test", nargs="+", required=True)
    parser.add_argument("--train", nargs="+", required=True)
    parser.add_argument("--and", dest="more", nargs="+", default=[])
    parser.add_argument("--tokenizer", default="smollm2-135m")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(resolve(args.tokenizer))

    def count(patterns: Sequence[str]) -> Counter[int]:
        texts = [text for pattern in patterns for text in said(pattern)]
        return Counter(token for ids in tokenizer(texts)["input_ids"] for token in ids)

    before = count(args.train)
    after = before + count(args.more) if args.more else before
    print("| test set | training data | " + " | ".join(f"< {n}" for n in FEWER_THAN) + " |")
    print("| --- " * (2 + len(FEWER_THAN)) + "|")
    for path in args.test:
        tokens = count([path])
        for heard in (before, after) if args.more else (before,):
            seldom = [
                sum(number for token, number in tokens.items() if heard[token] < fewest)
                for fewest in FEWER_THAN
            ]
            shares = " | ".join(f"{number / tokens.total():.1%}" for number in seldom)
            print(f"| {Path(path).stem} | {heard.total():,} tokens | {shares} |")


if __name__ == "__main__":
    main()
