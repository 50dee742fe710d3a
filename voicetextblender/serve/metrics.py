"""What a server has done, in the text form that Prometheus reads."""

import time
from bisect import bisect_left
from collections import Counter
from itertools import accumulate

from voicetextblender.serve.engine import Engine
from voicetextblender.serve.guard import App, Message, Receive, Scope, Send

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Bounds of the histogram's buckets."""


class Measure:
    """Counts every request to a route, from its first byte to its last."""

    def __init__(self, app: App, metrics: "Metrics") -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            route = scope["path"] if scope.get("route") else "none"
            self.metrics.count(route, status, time.monotonic() - began)


class Metrics:
    """Counts requests by route and status, and how long they took."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.requests: Counter[tuple[str, int]] = Counter()
        self.buckets = [0] * (len(SECONDS) + 1)
        self.seconds = 0.0

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self.requests[route, status] += 1
        self.buckets[bisect_left(SECONDS, seconds)] += 1
        self.seconds += seconds

    def __str__(self) -> str:
        """Return the metrics as text."""
        stats, engine = self.engine.stats, self.engine
        lines = _one("vtb_requests_running", "gauge", "Answers that grow", engine.num_running)
        lines += _one("vtb_requests_waiting", "gauge", "Requests in the queue", engine.num_waiting)
        for name, words, value in (
            ("answers_finished", "Answers that ended", stats.finished),
            ("answers_cancelled", "Answers that were given up", stats.cancelled),
            ("answers_late", "Answers that ran out of time", stats.late),
            ("answers_failed", "Answers that the engine could not end", stats.failed),
            ("requests_refused", "Requests that found the queue full", stats.refused),
            ("prompt_tokens", "Tokens of questions, audio positions included", stats.prompt_tokens),
            ("reused_tokens", "Tokens of questions that were read before", stats.reused_tokens),
            ("answer_tokens", "Tokens of answers", stats.new_tokens),
            ("steps", "Steps of the model", stats.steps),
        ):
            lines += _one(f"vtb_{name}_total", "counter", words, value)
        lines += [
            "# HELP vtb_http_requests_total Requests",
            "# TYPE vtb_http_requests_total counter",
        ]
        for (route, status), value in sorted(self.requests.items()):
            lines.append(f'vtb_http_requests_total{{route="{route}",status="{status}"}} {value}')
        name = "vtb_http_request_seconds"
        lines += [f"# HELP {name} Time to the end of an answer", f"# TYPE {name} histogram"]
        totals = list(accumulate(self.buckets))
        for bound, total in zip((*SECONDS, "+Inf"), totals, strict=True):
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        lines += [f"{name}_sum {self.seconds:.6f}", f"{name}_count {totals[-1]}"]
        return "\n".join(lines) + "\n"


def _one(name: str, kind: str, words: str, value: float) -> list[str]:
    return [f"# HELP {name} {words}", f"# TYPE {name} {kind}", f"{name} {value}"]
