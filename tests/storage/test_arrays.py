"""ArrayCache: what was saved is found under its key alone, and a file that is not what was saved is none."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_pref.errors import UserError
from lit_pref.storage.arrays import ArrayCache, default_cache_folder, keep_in_memory

KEY = ("weights", "data", "32-true")
VALUES = torch.tensor([[-1.5, -2.0], [-3.25, -0.5]])
SHAPE = (2, 2)


@pytest.fixture
def cache(tmp_path: Path) -> ArrayCache:
    return ArrayCache(tmp_path, "reference")


def test_what_was_saved_is_found_under_its_key_alone(cache):
    assert cache.load(KEY, SHAPE) is None
    cache.save(KEY, VALUES)
    assert torch.equal(cache.load(KEY, SHAPE), VALUES)
    assert cache.load(("other weights", *KEY[1:]), SHAPE) is None


def damaged(cache, shape=SHAPE):
    """Whether a file is no hit and is told."""
    told = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("builtins.print", lambda line, **_: told.append(line))
        found = cache.load(KEY, shape)
    return found is None and told == [f"{cache.path(KEY)}: is damaged or not what its name says; made again"]


@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (1, 2), (4,), (4, 1), (2, 2, 1)])
def test_another_shape_is_no_hit(cache, shape):
    cache.save(KEY, VALUES)
    assert damaged(cache, shape) and not damaged(cache, shape)  # told once: it is removed


@pytest.mark.parametrize("values", [torch.tensor([3.0, -1.0, 2.5]), torch.zeros(0, 2)], ids=["one axis", "no row"])
def test_any_shape_is_kept(cache, values):
    cache.save(KEY, values)
    assert torch.equal(cache.load(KEY, tuple(values.shape)), values)


def test_numpy_reads_the_file(cache):
    assert np.array_equal(np.load(cache.save(KEY, VALUES)), VALUES.numpy())


# --- files that are not what was saved --------------------------------------------------------------------------------


def test_a_file_cut_anywhere_is_no_hit_and_is_made_again(cache):
    path = cache.save(KEY, VALUES)
    whole = path.read_bytes()
    assert len(whole) == 128 + 16 + 16  # numpy's header, four values, the checksum
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert damaged(cache), length
    cache.save(KEY, VALUES)
    assert torch.equal(cache.load(KEY, SHAPE), VALUES)


def test_any_altered_byte_is_no_hit(cache):
    path = cache.save(KEY, VALUES)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert damaged(cache), place
    path.write_bytes(whole + b"\0")
    assert damaged(cache)


def test_a_whole_array_without_checksum_is_no_hit(cache):
    path = cache.save(KEY, VALUES)
    np.save(path, VALUES.numpy())  # what earlier versions kept
    assert damaged(cache)


def test_a_file_under_the_name_of_another_key_is_no_hit(cache):
    other = ("other weights", *KEY[1:])
    cache.save(KEY, VALUES).rename(cache.path(other))
    assert cache.load(other, SHAPE) is None


def test_a_folder_or_a_link_in_the_place_of_the_file_makes_room(cache):
    path = cache.path(KEY)
    (path / "more").mkdir(parents=True)
    assert damaged(cache)
    path.symlink_to(path.parent / "nowhere")
    assert damaged(cache)
    cache.save(KEY, VALUES)
    assert torch.equal(cache.load(KEY, SHAPE), VALUES)


# --- reading and writing at once --------------------------------------------------------------------------------------


def test_nothing_temporary_is_left(cache):
    path = cache.save(KEY, VALUES)
    assert list(path.parent.iterdir()) == [path]


def test_writing_to_a_hit_leaves_the_file_alone(cache):
    cache.save(KEY, VALUES)
    cache.load(KEY, SHAPE).zero_()
    assert torch.equal(cache.load(KEY, SHAPE), VALUES)


def test_a_hit_outlives_the_file(cache):
    path = cache.save(KEY, VALUES)
    found = cache.load(KEY, SHAPE)
    cache.save(KEY, VALUES + 1)  # another run makes it again
    path.unlink()
    assert torch.equal(found, VALUES)


WRITER = """
import sys
from pathlib import Path
import torch
from lit_pref.storage.arrays import ArrayCache
cache, key = ArrayCache(Path(sys.argv[1]), "reference"), ("weights", "data")
for _ in range(60):
    cache.save(key, torch.full((20_000, 2), float(sys.argv[2])))
"""


def test_processes_that_write_at_once_leave_whole_files(tmp_path):
    cache, seen = ArrayCache(tmp_path, "reference"), []
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(value)]) for value in (1, 2)]
    while any(writer.poll() is None for writer in writers):
        found = cache.load(("weights", "data"), (20_000, 2))
        seen.append(None if found is None else (float(found.min()), float(found.max())))
        time.sleep(0.001)
    assert [writer.returncode for writer in writers] == [0, 0]
    first = next(index for index, value in enumerate(seen) if value is not None)
    assert set(seen[first:]) <= {(1.0, 1.0), (2.0, 2.0)}  # never half a file, never none again
    assert [path.suffix for path in (tmp_path / "reference").iterdir()] == [".npy"]


# --- a folder that cannot be written ----------------------------------------------------------------------------------


def refuse(number: int):
    def refused(*_, **__):
        raise OSError(number, os.strerror(number))

    return refused


def full_disk(cache: ArrayCache, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(os, "fsync", refuse(errno.ENOSPC))
    return "No space left on device"


def read_only(cache: ArrayCache, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(Path, "open", refuse(errno.EROFS))
    monkeypatch.setattr(Path, "unlink", refuse(errno.EROFS))  # as Linux answers, also where there is no such file
    return "Read-only file system"


def no_rename(cache: ArrayCache, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(Path, "replace", refuse(errno.EACCES))
    return "Permission denied"


def a_file_above(cache: ArrayCache, monkeypatch: pytest.MonkeyPatch) -> str:
    cache.root.rmdir()
    cache.root.write_text("no folder")
    return "Not a directory"


@pytest.mark.parametrize("trouble", [full_disk, read_only, no_rename, a_file_above])
def test_where_it_cannot_write_one_line_says_so(cache, trouble, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        reason = trouble(cache, patched)
        assert cache.save(KEY, VALUES) is None
        assert cache.load(KEY, SHAPE) is None
        cache.save(KEY, VALUES)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{cache.root}: the cache cannot be written ({reason}): this run goes on")
    assert line.endswith("name another folder by LIT_PREF_CACHE or the argument cache_folder")
    if cache.folder.exists():
        assert list(cache.folder.iterdir()) == []


def test_a_failed_write_leaves_what_stood_there(cache, monkeypatch):
    cache.save(KEY, VALUES)
    with monkeypatch.context() as patched:
        full_disk(cache, patched)
        assert cache.save(KEY, VALUES + 1) is None
    assert torch.equal(cache.load(KEY, SHAPE), VALUES)


def test_other_errors_are_no_matter_of_writing(tmp_path):
    with pytest.raises(UserError, match="another reason"):
        keep_in_memory(tmp_path, UserError("another reason"))


def test_the_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_PREF_CACHE", str(tmp_path / "mine"))
    assert default_cache_folder() == tmp_path / "mine"
    assert ArrayCache(None, "reference").folder == tmp_path / "mine" / "reference"
    monkeypatch.delenv("LIT_PREF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_folder() == tmp_path / "xdg" / "lit_pref"
