"""Benchmarks are run by hand, on machines that tests are not run on: here they run small."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_gpu_benchmark_measures_one_shape_when_another_fails(monkeypatch, capsys):
    gpu = load("gpu")
    broken = gpu.SHAPES["tiny"] | {"adapter": {"width": 16, "heads": 2, "stack": "many"}}
    monkeypatch.setitem(gpu.SHAPES, "3b", broken)
    words = "--shapes 3b tiny --device cpu --tokens 256 --steps 1 --no-compile"
    gpu.main(words.split())
    *_, failed, done = capsys.readouterr().out.splitlines()
    assert failed.startswith("3b") and "failed: ValidationError" in failed
    assert done.startswith("tiny") and done.endswith("GB")


def test_the_gpu_benchmark_does_not_begin_what_it_has_no_time_for(capsys):
    load("gpu").main(["--shapes", "tiny", "--device", "cpu", "--seconds", "0"])
    assert "not begun" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda p: p.name)
def test_a_benchmark_finds_what_it_imports(path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))  # as it is for a script
    load(path.stem)
