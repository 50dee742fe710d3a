from collections.abc import Callable, Iterator

import pytest

from voicetextblender.serve.config import EngineConfig
from voicetextblender.serve.engine import Engine


@pytest.fixture
def start(build, processor) -> Iterator[Callable[..., Engine]]:
    """Start an engine with a tiny model: `start(max_running=2)`; it is closed after the test."""
    engines = []

    def engine(llm: str = "llama", **settings) -> Engine:
        engines.append(Engine(build(llm), processor, EngineConfig(**settings), "tiny"))
        return engines[-1]

    yield engine
    for one in engines:
        one.close(5)
        assert not one._thread.is_alive()
