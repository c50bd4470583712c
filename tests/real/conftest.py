"""Pretrained chat models, where they are: `LIT_PREF_REAL_MODELS` names a folder with them."""

import os
from pathlib import Path

import pytest

VARIABLE = "LIT_PREF_REAL_MODELS"
MODELS = {"smollm2": "SmolLM2-135M-Instruct", "qwen2.5-coder-0.5b": "Qwen2.5-Coder-0.5B-Instruct"}


def found(stem: str, gguf: bool = False) -> str:
    """The model's folder, or its .gguf file. Skips where there is none."""
    home = Path(os.environ.get(VARIABLE, "/nowhere"))
    for path in sorted(home.glob("*")) if home.is_dir() else ():
        right = path.suffix == ".gguf" and path.is_file() if gguf else (path / "config.json").is_file()
        if right and path.name.lower().startswith(stem):
            return str(path)
    kind = f"a .gguf file {stem}*.gguf" if gguf else f"a transformers folder {stem}*"
    pytest.skip(f"{VARIABLE} names no folder with {kind} of {MODELS[stem]}")


@pytest.fixture(scope="session")
def smollm2() -> str:
    return found("smollm2")


@pytest.fixture(scope="session")
def qwen() -> str:
    return found("qwen2.5-coder-0.5b")


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return found(request.param)


@pytest.fixture
def gguf_file() -> str:
    return found("smollm2", gguf=True)


@pytest.fixture(autouse=True)
def _nothing_is_uploaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
