import pytest

from lit_pref.data.formats import read_pairs
from lit_pref.data.pair_files import write_pairs
from lit_pref.types import PreferencePair

PAIRS = [
    PreferencePair("p\n", "good", "bad", margin=0.5, chosen_ids=(5, 0), rejected_ids=(6, 7, 0)),
    PreferencePair("q", "schön", "  bad\n"),
]


def test_written_pairs_are_read_back(tmp_path):
    write_pairs(tmp_path / "pairs.parquet", PAIRS)
    assert read_pairs(tmp_path / "pairs.parquet").pairs == PAIRS


def test_conversations_are_refused(tmp_path):
    turns = ({"role": "user", "content": "hi"},)
    with pytest.raises(TypeError, match="only pairs of plain text"):
        write_pairs(tmp_path / "pairs.parquet", [PreferencePair(turns, turns, turns)])
    assert not list(tmp_path.iterdir())
