"""Single values of Parquet files, read without loading the file."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pyarrow import ChunkedArray
    from pyarrow.parquet import ParquetFile


def parquet_rows(path: Path) -> int:
    """Return the number of rows. Raises ValueError if it is no Parquet file."""
    return _file(path, path.stat().st_mtime_ns).metadata.num_rows


def parquet_value(path: Path, column: str, row: int) -> bytes:
    """Return what stands in a column: text, bytes, or the bytes of a Hugging Face audio column.

    Rows that follow each other are read together. Raises ValueError if there is no such value.
    """
    mtime_ns = path.stat().st_mtime_ns
    ends = _group_ends(path, mtime_ns)
    if not 0 <= row < ends[-1]:
        raise ValueError(f"{path}: has {ends[-1]} rows, so no row {row}; correct the number")
    group = int(np.searchsorted(ends, row, "right"))
    value = _column(path, mtime_ns, column, group)[
        row - int(ends[group - 1] if group else 0)
    ].as_py()
    if isinstance(value, dict):
        value = value.get("bytes")
    if isinstance(value, str):
        value = value.encode()
    if not isinstance(value, bytes):
        raise ValueError(
            f"{path}: column '{column}' holds no text and no bytes in row {row}, "
            f"but {type(value).__name__}; name another column"
        )
    return value


@lru_cache(maxsize=64)
def _file(path: Path, mtime_ns: int) -> "ParquetFile":
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError:
        raise ValueError(
            f"{path}: the 'pyarrow' package, which reads it, is not installed; "
            f"run: pip install 'voicetextblender[data]'"
        ) from None
    try:
        return ParquetFile(path, memory_map=True)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: is no Parquet file ({error}); write it again") from None


@lru_cache(maxsize=64)
def _group_ends(path: Path, mtime_ns: int) -> np.ndarray:
    metadata = _file(path, mtime_ns).metadata
    return np.cumsum(
        [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] or [0]
    )


@lru_cache(maxsize=8)
def _column(path: Path, mtime_ns: int, column: str, group: int) -> "ChunkedArray":
    """Return a column of one row group: the unit in which Parquet is compressed."""
    file = _file(path, mtime_ns)
    if column not in file.schema_arrow.names:
        raise ValueError(
            f"{path}: has no column '{column}', but {', '.join(file.schema_arrow.names)}"
        )
    return file.read_row_group(group, [column]).column(0)
