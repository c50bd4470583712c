import json
import os
import subprocess
import sys

import pytest

from lit_pref.errors import UserError
from lit_pref.storage.files import provenance_digest, publishing, remove_orphans, replacing, write_json


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_json_is_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"ß": [1, None]})
    write_json(path, {"b": 2})
    assert json.loads(path.read_text()) == {"b": 2} and names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(1), RuntimeError("bug")])
def test_an_interrupted_write_leaves_what_stood_there(tmp_path, stop):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(stop)), replacing(path) as stream:
        stream.write(b"half of the n")
        raise stop
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_only_what_the_dead_left_half_written_is_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone, writing = (tmp_path / f".part-00000.parquet.{process}-00.tmp" for process in (dead.pid, os.getpid()))
    others = {"part-00001.parquet", ".another's.tmp"}
    for path in (gone, writing, *(tmp_path / name for name in others)):
        path.touch()
    remove_orphans(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {writing.name, *others}


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/a.json: cannot be written: "):
        write_json(tmp_path / "file" / "a.json", {})


def test_the_digest_is_of_content_not_of_order():
    assert provenance_digest({"a": 1, "b": [2, None]}) == provenance_digest({"b": [2, None], "a": 1})
    different = [{"a": 1}, {"a": 1.5}, {"a": "1"}, {"a": [1]}, {"b": 1}]
    assert len(set(map(provenance_digest, different))) == len(different)
    assert len(provenance_digest({})) == 16 and int(provenance_digest({}), 16) >= 0


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), RuntimeError("bug")])
def test_a_folder_appears_whole_or_not_at_all(tmp_path, stop):
    target = tmp_path / "new" / "model"
    with pytest.raises(type(stop)), publishing(target) as folder:
        folder.mkdir()
        (folder / "half").touch()
        raise stop
    assert names(target.parent) == []
    with publishing(target) as folder:
        folder.mkdir()
        (folder / "weights").touch()
        assert not target.exists()
    assert names(target.parent) == ["model"] and names(target) == ["weights"]
    with pytest.raises(UserError, match=r"model: cannot be written"), publishing(target) as folder:
        folder.mkdir()
    assert names(target.parent) == ["model"] and names(target) == ["weights"]
