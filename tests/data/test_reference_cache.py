import torch

from lit_pref.data.reference_cache import ReferenceCache, default_cache_folder

KEY = ("weights", "data", "32-true")
VALUES = torch.tensor([[-1.5, -2.0], [-3.25, -0.5]])


def test_what_was_saved_is_found_under_its_key_alone(tmp_path):
    cache = ReferenceCache(tmp_path)
    assert cache.load(KEY, rows=2) is None
    cache.save(KEY, VALUES)
    assert torch.equal(cache.load(KEY, rows=2), VALUES)
    assert cache.load(("other weights", *KEY[1:]), rows=2) is None
    assert cache.load(KEY, rows=3) is None


def test_a_file_that_was_cut_short_is_no_hit(tmp_path):
    cache = ReferenceCache(tmp_path)
    path = cache.save(KEY, VALUES)
    path.write_bytes(path.read_bytes()[:-4])
    assert cache.load(KEY, rows=2) is None
    cache.save(KEY, VALUES)
    assert torch.equal(cache.load(KEY, rows=2), VALUES)


def test_nothing_temporary_is_left(tmp_path):
    path = ReferenceCache(tmp_path).save(KEY, VALUES)
    assert list(path.parent.iterdir()) == [path]


def test_writing_to_a_hit_leaves_the_file_alone(tmp_path):
    cache = ReferenceCache(tmp_path)
    cache.save(KEY, VALUES)
    cache.load(KEY, rows=2).zero_()
    assert torch.equal(cache.load(KEY, rows=2), VALUES)


def test_the_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_PREF_CACHE", str(tmp_path / "mine"))
    assert default_cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("LIT_PREF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_folder() == tmp_path / "xdg" / "lit_pref"
