"""Where the hub does not answer, the datasets library is not let ask it, and may again afterwards."""

import datasets
import pytest
from huggingface_hub import constants

from lit_pref.machine.hub import data_sets_within_reach


def test_a_hub_out_of_reach_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    # A port of this machine where nobody listens.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    before = datasets.config.HF_HUB_OFFLINE
    with data_sets_within_reach() as reached:
        assert not reached and constants.HF_HUB_OFFLINE and datasets.config.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE and before == datasets.config.HF_HUB_OFFLINE


def test_a_proxy_is_left_to_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "http://127.0.0.1:9"})
    with data_sets_within_reach() as reached:
        assert reached and not constants.HF_HUB_OFFLINE
