"""Imports point down only: the rule of the design, read from the files."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import voicetextblender

ROOT = Path(voicetextblender.__file__).parent
GROUND = {
    "config",
    "settings",
    "chat",
    "audio",
    "text",
    "batch",
    "progress",
    "seeding",
    "page",
    "cache",
    "parquet",
    "speech",
}
BELOW = GROUND | {"prompt", "__version__"}
MAY_IMPORT = {
    **{module: set() for module in GROUND},
    "config": {"settings"},
    "audio": {"cache", "parquet"},  # what tars and Parquet hold is indexed as conversations are
    "speech": {"audio"},
    "prompt": {"chat"},
    "data": BELOW | {"data"},
    "model": BELOW | {"model"},
    "synth": BELOW | {"synth", "model.parts", "data.records"},  # where parts and clips lie
    "train": BELOW | {"data", "model", "train"},
    "eval": BELOW | {"data", "model", "train", "eval", "synth"},  # voices for twins, a recogniser
    "serve": BELOW | {"model", "serve", "data.records"},
    "export": BELOW | {"model", "eval"},  # the card quotes the run's scores
}
LIGHT = tuple(f"voicetextblender.{name}" for name in ("config", "serve.config", "chat", "text"))


def imported(path):
    """Yield what a file imports of ours, as `data.records`, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("voicetextblender.") and not name.endswith(".__version__"):
                yield name.removeprefix("voicetextblender.")


def owner(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(ROOT.rglob("*.py")) if owner(path) in MAY_IMPORT],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_imports_point_down(path):
    allowed = MAY_IMPORT[owner(path)]
    up = [
        name
        for name in imported(path)
        if not any(name == base or name.startswith(f"{base}.") for base in allowed)
    ]
    assert up == []


def modules_after(imports):
    code = f"import sys, {', '.join(imports)}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_settings_and_records_are_read_without_torch():
    assert not modules_after(LIGHT) & {"torch", "transformers"}


def test_the_command_line_imports_late():
    assert not modules_after(["voicetextblender.cli"]) & {"torch", "transformers", "pandas", "av"}
