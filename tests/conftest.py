"""What every test finds: a cache folder and a seed of its own, and a tiny policy on the disk."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_cache_and_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_PREF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # so that what seed_everything sets is put back


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tests.tiny import saved, tiny_llama  # here, as most tests need no torch

    return saved(tmp_path_factory.mktemp("policy") / "model", tiny_llama())
