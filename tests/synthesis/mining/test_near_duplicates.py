"""MinHash bands against the true Jaccard similarity, and snippets seen, whichever way they are split."""

import random

import numpy as np
import pytest

from lit_pref.syntax.words import is_word, word_hash, words
from lit_pref.synthesis.mining.near_duplicates import MinHashBands, SeenSnippets

BANDS = MinHashBands(shingle=5, bands=5, rows=8)


def keys_of(*codes, bands=BANDS):
    source = "\n".join(codes).encode()
    places, start = [], 0
    for code in codes:
        places.append((start, start + len(code.encode())))
        start += len(code.encode()) + 1
    return bands.keys(words(source), places, codes)


def text(count, seed):
    chosen = random.Random(seed)
    return " ".join(f"w{chosen.randrange(10**9)}" for _ in range(count))


def test_words_are_found_with_their_places():
    source = "a_1 = ü + $x.yy(0)".encode()
    found = words(source)
    pieces = [source[start:end].decode() for start, end in zip(found.starts, found.ends, strict=True)]
    assert pieces == ["a_1", "ü", "$x", "yy", "0"]
    assert found.hashes.tolist() == list(map(word_hash, pieces)) and all(map(is_word, pieces)) and not is_word("a-b")
    assert len(words(b"").hashes) == len(words(b" ").hashes) == 0


def test_word_hashes_differ_by_length_and_by_either_end():
    names = ["a", "aa", "aaaaaaaa", "aaaaaaaaa", "abcdefgh", "abcdefghi", "xbcdefghi", "abcdefghabcdefgh", "ü"]
    assert len(set(map(word_hash, names))) == len(names)
    # 18 bytes, of which the middle two are in neither the first nor the last eight: taken for the same, as it says
    assert word_hash("abcdefgh12abcdefgh") == word_hash("abcdefgh34abcdefgh")
    with pytest.raises(ValueError, match="expected one word, got 'a b'"):
        word_hash("a b")


def test_a_run_is_known_by_its_words_whatever_stands_between_them():
    one, other = words(b"a b(c) d").run_hashes(3), words(b"a, b\n  c;d").run_hashes(3)
    assert len(one) == 2 and (one == other).all()
    assert one[0] != words(b"b a c").run_hashes(3)[0]
    assert len(words(b"a b").run_hashes(3)) == 0


def test_keys_do_not_depend_on_what_else_is_in_the_file():
    one, other = text(60, 0), text(60, 1)
    alone, together = keys_of(one), keys_of(other, one)
    assert (alone[0] == together[1]).all() and not set(alone[0]) & set(together[0])


@pytest.mark.parametrize("similarity", [0.5, 0.8, 0.95])
def test_bands_agree_as_often_as_they_must(similarity):
    # 104 words have 100 runs of five; without the last k words 100 - k of them are left: s = 1 - k/100.
    cut = round(100 * (1 - similarity))
    trials = 400
    agreeing = 0
    for seed in range(trials):
        whole = text(104, seed)
        shorter = " ".join(whole.split()[: 104 - cut])
        first, second = keys_of(whole, shorter)
        agreeing += bool(set(first[1:]) & set(second[1:]))
    expected = 1 - (1 - similarity**8) ** 5  # 2%, 60%, 100%
    deviation = (expected * (1 - expected) / trials) ** 0.5
    assert abs(agreeing / trials - expected) <= 4 * deviation + 0.005


def test_what_is_too_short_for_a_shingle_is_known_word_for_word():
    seen = SeenSnippets()
    keys = keys_of("a b c d", "a b c e", "a b c d", "a  b c d")
    assert seen.add(keys) == [None, None, "duplicate", None]


def test_duplicates_near_duplicates_and_new_ones():
    whole = text(104, 0)
    near = whole.replace(whole.split()[50], "changed")  # five of 100 runs differ: s = 95/105 = 0.9
    assert SeenSnippets().add(keys_of(whole, near, whole, text(104, 1))) == [None, "near-duplicate", "duplicate", None]
    alone = MinHashBands(shingle=5, bands=0, rows=8)  # word for word
    assert SeenSnippets().add(keys_of(whole, near, whole, bands=alone)) == [None, None, "duplicate"]


@pytest.mark.parametrize("in_memory", [0, 40, 10**6])
@pytest.mark.parametrize("batch", [1, 7, 200])
def test_the_answers_do_not_depend_on_batches_nor_on_what_lies_on_disk(in_memory, batch):
    chosen = random.Random(0)
    rows = [[chosen.randrange(-(2**63), 2**63) for _ in range(6)] for _ in range(120)]
    rows += [[row[0] + 1, *row[1:3], *(chosen.randrange(2**62) for _ in range(3))] for row in rows[::3]] + rows[::5]
    chosen.shuffle(rows)
    expected, kept = [], set()
    for row in rows:  # what the class promises, in plain Python
        verdict = "duplicate" if row[0] in kept else "near-duplicate" if kept & set(row) else None
        kept |= set() if verdict else set(row)
        expected.append(verdict)
    seen = SeenSnippets(in_memory)
    keys = np.array(rows, np.int64)
    answers = [verdict for start in range(0, len(keys), batch) for verdict in seen.add(keys[start : start + batch])]
    seen.close()
    assert answers == expected and {None, "duplicate", "near-duplicate"} == set(expected)
