"""The user's cache: where what was made once is found again, and arrays that index large files."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

LARGE = 16 << 20
"""Bytes from which on a file's index is kept on disk; a smaller one is as soon made anew."""


def cache_folder(name: str) -> Path:
    """Return a folder below $VTB_CACHE, else below the user's cache folder; it need not exist."""
    if chosen := os.environ.get("VTB_CACHE"):
        return Path(chosen).expanduser() / name
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "voicetextblender" / name


def index_of(path: Path, make: Callable[[Path], np.ndarray]) -> np.ndarray:
    """Return `make(path)`, made once: that of a large file is mapped from the cache, not loaded.

    A file that changed has another time or size, and so another index.
    """
    status = path.stat()
    return _index(path.absolute(), status.st_mtime_ns, status.st_size, make)


@lru_cache(maxsize=4096)
def _index(path: Path, mtime_ns: int, size: int, make: Callable[[Path], np.ndarray]) -> np.ndarray:
    if size < LARGE:
        return make(path)
    key = repr((str(path), mtime_ns, size, make.__qualname__)).encode()
    place = cache_folder("index") / f"{hashlib.sha256(key).hexdigest()[:32]}.npy"
    if not place.is_file():
        made = make(path)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as draft:
                np.save(draft, made)
            os.replace(draft.name, place)  # whole or not at all, whoever else writes it too
        except OSError:
            return made  # a cache that cannot be written costs time, not the run
    return np.load(place, mmap_mode="r")
