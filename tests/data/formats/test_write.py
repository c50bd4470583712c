"""Pairs that are written are read back: text, conversations, sampled tokens, and whose tokens they are."""

import pytest

from lit_pref.data.formats.pairs import read_pairs
from lit_pref.data.formats.write import stated_vocabulary, write_pairs
from lit_pref.data.tokens.cache import PairSource, token_store
from lit_pref.data.tokens.encoding import vocabulary_fingerprint
from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.models import EMBEDDED_FOLDER, load_tokenizer
from lit_pref.types import PreferencePair

PAIRS = [
    PreferencePair("p\n", "good", "bad", margin=0.5, chosen_ids=(5, 0), rejected_ids=(6, 7, 0)),
    PreferencePair("q", "schön", "  bad\n"),
]
QUESTION = ({"role": "system", "content": "brief"}, {"role": "user", "content": "hi"})


def answer(text):
    return ({"role": "assistant", "content": text},)


CONVERSATIONS = [
    PreferencePair(QUESTION, answer("good"), answer("bad"), chosen_ids=(5, 0), rejected_ids=(6, 0)),
    PreferencePair(QUESTION[1:], answer("schön"), answer("bad")),
]


@pytest.mark.parametrize("pairs", [PAIRS, CONVERSATIONS], ids=["text", "conversations"])
def test_written_pairs_are_read_back(tmp_path, pairs):
    write_pairs(tmp_path / "pairs.parquet", pairs, "a vocabulary")
    assert read_pairs(tmp_path / "pairs.parquet").records == pairs


def test_text_and_conversations_are_not_mixed(tmp_path):
    with pytest.raises(TypeError, match="pairs of plain text or of conversations, got both"):
        write_pairs(tmp_path / "pairs.parquet", [PAIRS[0], CONVERSATIONS[0]])
    assert not list(tmp_path.iterdir())


def test_a_file_states_whose_tokens_it_holds(tmp_path):
    file = tmp_path / "pairs.parquet"
    write_pairs(file, PAIRS)
    assert stated_vocabulary(file) is None
    write_pairs(file, PAIRS, "a vocabulary")
    assert stated_vocabulary(file) == "a vocabulary"
    assert stated_vocabulary(tmp_path / "pairs.jsonl") is None


def test_tokens_of_another_vocabulary_are_made_again_from_the_text(tmp_path):
    tokenizer = load_tokenizer(str(EMBEDDED_FOLDER / "tokenizer"))
    larger = load_tokenizer(str(EMBEDDED_FOLDER / "tokenizer"))
    larger.add_tokens(["return x"])
    assert vocabulary_fingerprint(tokenizer) != vocabulary_fingerprint(larger)
    # tokens that the text alone would not give
    pair = PreferencePair("p", "good", "bad", chosen_ids=(5, 0), rejected_ids=(6, 7, 0))
    completions = {}
    for name, vocabulary in (("own", tokenizer), ("other", larger)):
        write_pairs(tmp_path / f"{name}.parquet", [pair], vocabulary_fingerprint(vocabulary))
        source = PairSource(str(tmp_path / f"{name}.parquet"), "train", None, LengthLimits(), "error")
        (tree,) = token_store(source, tokenizer, tmp_path / "cache").trees()
        completions[name] = tree.completion_ids
    assert completions["own"] == ((5, 0), (6, 7, 0))
    texts = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in ("good", "bad")]
    assert completions["other"] == tuple(map(tuple, texts))
