"""The server under load: clients that stream answers to spoken questions, all at once.

    python benchmarks/serve.py --model models/nano
    python benchmarks/serve.py --tokens 96 --ask "Tell a long story about it."      long answers
    python benchmarks/serve.py --requests 8 --tokens 8 --disconnects 40     a minute, to try it

Starts `vtb serve` twice, with and without continuous batching, and lets 1, 8 and 32 clients ask by
turns, nothing remembered between questions; then one asks after five seconds of speech, and others
break off at random, while the memory is watched. Prints tables for docs/results/serving.md.
"""

import argparse
import base64
import http.client
import json
import math
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from voicetextblender.audio import probe_duration

CLIPS = sorted(Path("data/asterisk/clips/en").glob("*.opus"))
QUESTION_S = 5.0
PORT = 8077


@contextmanager
def server(model: Path, *settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `vtb serve` until the block ends."""
    command = [sys.executable, "-m", "voicetextblender.cli", "serve", "--model", str(model)]
    process = subprocess.Popen([*command, f"port={PORT}", *settings], stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            try:
                get("/health")
                break
            except OSError:
                time.sleep(0.2)
        yield process
    finally:
        process.terminate()
        process.wait()


def get(path: str) -> str:
    """Return what the server answers."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=5)
    connection.request("GET", path)
    return connection.getresponse().read().decode()


def ask(
    clip: Path, tokens: int, text: str, break_off: float = math.inf
) -> tuple[float, float, int] | None:
    """Stream an answer; return seconds to its first text and to its end, and its events.

    None if the server was busy or if the client broke off after that share of the events.
    """
    data = base64.b64encode(clip.read_bytes()).decode()
    parts = [
        {"type": "text", "text": text},
        {"type": "input_audio", "input_audio": {"data": data, "format": "opus"}},
    ]
    body = {"messages": [{"role": "user", "content": parts}], "max_tokens": tokens, "stream": True}
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=300)
    began = time.perf_counter()
    kind = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), kind)
    response = connection.getresponse()
    if response.status != 200:
        response.read()
        return None
    first, num = 0.0, 0
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        num += 1
        if num == 2:  # the one before only opens the answer
            first = time.perf_counter() - began
        if num > break_off * tokens:
            connection.close()
            return None
    return first or time.perf_counter() - began, time.perf_counter() - began, num


def load(clients: int, requests: int, tokens: int, text: str) -> str:
    """Let `clients` ask `requests` questions in all; return a row of the table."""
    waiting = list(range(requests))
    seen: list[tuple[float, float, int]] = []

    def client() -> None:
        while waiting:
            if answered := ask(CLIPS[waiting.pop() % len(CLIPS)], tokens, text):
                seen.append(answered)

    began = time.perf_counter()
    together(client, clients)
    seconds = time.perf_counter() - began
    firsts, ends = sorted(s[0] for s in seen), sorted(s[1] for s in seen)
    times = [f"{at(of, 0.5):.2f}, {at(of, 0.99):.2f}" for of in (firsts, ends)]
    rates = f"{len(seen) / seconds:.2f} | {sum(s[2] for s in seen) / seconds:.0f}"
    return f"{clients} | {rates} | {' | '.join(times)} |"


def after_a_question(clips: list[Path], tokens: int, text: str) -> None:
    """Ask with each of the clips, one after the other, and print when the first word came."""
    firsts = sorted(seen[0] for clip in clips if (seen := ask(clip, tokens, text)))
    words = f"{at(firsts, 0.5):.2f} s, at most {firsts[-1]:.2f} s"
    print(f"\nFirst text after {QUESTION_S:.0f} s of speech, {len(firsts)} clips: p50 {words}")


def near(seconds: float, num: int) -> list[Path]:
    """Return the recordings of that length, or nearly so."""
    every = [*CLIPS, *Path("data/eval/clips").glob("LJ*.opus")]
    return sorted(every, key=lambda clip: abs(probe_duration(clip) - seconds))[:num]


def at(values: list[float], share: float) -> float:
    """Return a quantile of sorted values."""
    return values[min(len(values) - 1, int(share * len(values)))]


def memory_mb(process: subprocess.Popen[bytes]) -> float:
    """Return the resident memory of a process."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def disconnects(process: subprocess.Popen[bytes], requests: int, tokens: int, text: str) -> None:
    """Break off `requests` answers at random and print the memory on the way."""
    chance = random.Random(0)
    print("\n| requests that break off at random | the server's memory |\n| --- | --- |")
    print(f"| 0 | {memory_mb(process):.0f} MB |")
    for part in range(5):
        jobs = [chance.random() * 1.5 for _ in range(requests // 5)]

        def client(jobs: list[float] = jobs) -> None:
            while jobs:
                ask(chance.choice(CLIPS), tokens, text, jobs.pop())

        together(client, 16)
        print(f"| {(part + 1) * requests // 5} | {memory_mb(process):.0f} MB |", flush=True)
    time.sleep(2)
    names = ("vtb_requests_running", "vtb_requests_waiting", "vtb_answers_")
    left = [line for line in get("/metrics").splitlines() if line.startswith(names)]
    print("\nWhat is left: " + ", ".join(left))


def together(client: Callable[[], None], num: int) -> None:
    """Run so many clients at once, to their end."""
    threads = [threading.Thread(target=client) for _ in range(num)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/nano"))
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--ask", default="Transcribe the content to English.", metavar="TEXT")
    parser.add_argument("--captions", action="store_true", help="Have each clip captioned first.")
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--disconnects", type=int, default=2000)
    parser.add_argument("--precision", default="model")
    args = parser.parse_args()
    settings = [f"engine.precision={args.precision}", "engine.prefix_tokens=0"]
    settings.append(f"engine.captions={str(args.captions).lower()}")
    print(f"Answers of {args.tokens} tokens at most; seconds are p50, p99.\n")
    print("| server | clients | requests/s | events/s | first text, s | whole answer, s |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    for name, running in (("one at a time", 1), ("continuous batching", 16)):
        with server(args.model, *settings, f"engine.max_running={running}") as process:
            load(4, 8, args.tokens, args.ask)  # warm
            for clients in (1, 8, 32):
                print(
                    f"| {name} | {load(clients, args.requests, args.tokens, args.ask)}", flush=True
                )
            if running > 1:
                after_a_question(near(QUESTION_S, 8), args.tokens, args.ask)
            if running > 1 and args.disconnects:
                disconnects(process, args.disconnects, args.tokens // 2, args.ask)


if __name__ == "__main__":
    main()
