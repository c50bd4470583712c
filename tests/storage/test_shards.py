import ctypes
import errno
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lit_pref.errors import UserError
from lit_pref.storage.shards import ShardWriter, read_counts, read_manifest, whole_parquet, write_parquet

SCHEMA = pa.schema([("prompt", pa.string()), ("chosen_ids", pa.list_(pa.int32()))])
ROWS = [{"prompt": "a", "chosen_ids": [1, 2]}, {"prompt": "b", "chosen_ids": []}]


def fill_disk(stream):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- single files -----------------------------------------------------------------------------------------------------


def test_parquet_comes_back_with_its_counts(tmp_path):
    path = tmp_path / "new" / "rows.parquet"
    write_parquet(path, ROWS, SCHEMA, {"kept": 2, "timeout": 0})
    assert pq.read_table(path).to_pylist() == ROWS
    assert read_counts(path) == {"kept": 2, "timeout": 0}
    assert names(path.parent) == ["rows.parquet"]


def test_a_key_outside_the_schema_is_refused_rather_than_lost(tmp_path):
    with pytest.raises(ValueError, match=r"row keys .*'margin'.* not all in the schema"):
        write_parquet(tmp_path / "rows.parquet", [{"prompt": "a", "margin": 1.0}], SCHEMA)


def test_ctrl_c_while_parquet_reaches_the_disk(tmp_path, monkeypatch):
    path = tmp_path / "rows.parquet"
    write_parquet(path, ROWS[:1], SCHEMA)

    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_parquet(path, ROWS, SCHEMA)
    assert pq.read_table(path).to_pylist() == ROWS[:1] and names(tmp_path) == ["rows.parquet"]


# --- a full disk ------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_told_with_what_to_do(tmp_path, monkeypatch):
    path = tmp_path / "rows.parquet"
    write_parquet(path, ROWS[:1], SCHEMA)
    monkeypatch.setattr(os, "fsync", fill_disk)
    with pytest.raises(UserError, match=r"rows.parquet: the disk is full.*MiB free.*same command again") as error:
        write_parquet(path, ROWS, SCHEMA)
    assert isinstance(error.value.__cause__, OSError)
    assert pq.read_table(path).to_pylist() == ROWS[:1] and names(tmp_path) == ["rows.parquet"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", bytes(tmp_path), b"tmpfs", 0, b"size=256k") != 0:
        pytest.skip("mounting needs root")
    yield tmp_path
    libc.umount2(bytes(tmp_path), 2)  # MNT_DETACH


def test_work_goes_on_after_a_really_full_disk(small_disk):
    noise = os.urandom(40_000).hex()  # 40 kB that do not compress further: six shards of them are 240 kB
    blocker = small_disk / "blocker"
    blocker.write_bytes(bytes(100_000))
    writer = ShardWriter(small_disk / "work", {"seed": 1}, SCHEMA)
    with pytest.raises(UserError, match=r"part-0000\d.parquet: the disk is full"):
        for index in writer.missing(6):
            writer.write(index, [{"prompt": noise[index:]}])
    finished = writer.done()
    assert 0 < len(finished) < 6 and finished == list(range(len(finished)))
    assert not list(writer.folder.glob(".*"))

    blocker.unlink()
    again = ShardWriter(small_disk / "work", {"seed": 1}, SCHEMA)
    assert again.missing(6) == list(range(len(finished), 6))
    small = [{"prompt": "x"}]
    for index in again.missing(6):
        again.write(index, small)
    assert again.finish(6)["rows"] == 6
    assert pq.read_table(again.path(0)).to_pylist()[0]["prompt"] == noise


# --- shards -----------------------------------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    provenance = {"seed": 1, "model": "abc", "stops": ("a", "b")}
    first = ShardWriter(tmp_path / "work", provenance, SCHEMA)
    first.write(0, ROWS, {"kept": 2, "timeout": 1})
    first.write(2, [], {"timeout": 3})
    assert not first.complete
    with pytest.raises(ValueError, match=r"expected shards 0 to 2, got \[0, 2\]"):
        first.finish(3)

    second = ShardWriter(tmp_path / "work", provenance, SCHEMA)
    assert second.done() == [0, 2] and second.missing(3) == [1]
    second.write(1, ROWS[:1], {"kept": 1})
    second.finish(3)

    # 2 + 1 + 0 rows; kept 2 + 1, timeouts 1 + 3, though an earlier run counted most of them.
    manifest = read_manifest(tmp_path / "work")
    assert manifest == {
        "complete": True,
        "shards": 3,
        "rows": 3,
        "counts": {"kept": 3, "timeout": 4},
        "provenance": {"seed": 1, "model": "abc", "stops": ["a", "b"]},
    }
    assert ShardWriter(tmp_path / "work", provenance, SCHEMA).complete


def test_data_made_otherwise_is_not_continued(tmp_path):
    ShardWriter(tmp_path / "work", {"seed": 1, "model": "abc"}, SCHEMA)
    with pytest.raises(UserError, match=r"work: was made otherwise \(seed: 1 there, 2 now\)"):
        ShardWriter(tmp_path / "work", {"seed": 2, "model": "abc"}, SCHEMA)
    with pytest.raises(UserError, match=r"top_p: absent there, 0.9 now"):
        ShardWriter(tmp_path / "work", {"seed": 1, "model": "abc", "top_p": 0.9}, SCHEMA)


@pytest.mark.parametrize("content", ["{", "[]", '{"complete": true}'])
def test_a_broken_manifest_is_named(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest.json: "):
        read_manifest(tmp_path)


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(UserError, match=r"manifest.json: no such manifest"):
        read_manifest(tmp_path)


# --- what was written is what is there --------------------------------------------------------------------------------


def test_any_changed_byte_of_a_parquet_file_is_seen(tmp_path):
    path = tmp_path / "rows.parquet"
    assert not whole_parquet(path)
    write_parquet(path, [{"text": "a"}], pa.schema([("text", pa.string())]), {"kept": 1})
    assert whole_parquet(path) and read_counts(path) == {"kept": 1}
    assert pq.read_table(path).to_pylist() == [{"text": "a"}]
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        assert not whole_parquet(path), place
        path.write_bytes(data[:place])
        assert not whole_parquet(path), place


def test_a_shard_of_another_work_or_number_is_no_shard_and_is_removed(tmp_path, capsys):
    writers = [ShardWriter(tmp_path / str(seed), {"seed": seed}, SCHEMA) for seed in (1, 2)]
    for writer in writers:
        for index in (0, 1):
            writer.write(index, [])
    assert all(writer.missing(2) == [] for writer in writers)
    writers[0].path(0).rename(writers[1].path(0))
    writers[0].path(1).rename(writers[0].path(0))
    assert writers[0].missing(2) == [0, 1] and writers[1].missing(2) == [0]
    assert capsys.readouterr().out.count("is no whole shard; made again") == 2
    assert writers[0].done() == [] and writers[1].done() == [1]


def test_a_changed_manifest_is_seen_and_one_without_a_seal_is_read(tmp_path):
    manifest = ShardWriter(tmp_path, {"seed": 1}, SCHEMA).finish(0)
    path = tmp_path / "manifest.json"
    text = path.read_text()
    assert read_manifest(tmp_path) == manifest
    for old, new in (('"rows": 0', '"rows": 1'), ('"seed": 1', '"seed": 3'), ("true", "false"), ("blake2b", "blake2c")):
        path.write_text(text.replace(old, new))
        with pytest.raises(UserError, match=r"manifest.json: has changed since it was written"):
            read_manifest(tmp_path)
    path.write_text(json.dumps(manifest))  # as earlier versions wrote it
    assert read_manifest(tmp_path) == manifest


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", '{"provenance": {"seed": 2}}'])
def test_a_caches_manifest_is_made_again(tmp_path, text, capsys):
    ShardWriter(tmp_path, {"seed": 1}, SCHEMA).write(0, [])
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError):
        ShardWriter(tmp_path, {"seed": 1}, SCHEMA)
    writer = ShardWriter(tmp_path, {"seed": 1}, SCHEMA, cache=True)
    assert "made again" in capsys.readouterr().out and not writer.complete and writer.missing(1) == []
