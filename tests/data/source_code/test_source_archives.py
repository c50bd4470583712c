"""Members of archives, in order; nothing is written, and what breaks off says so."""

import gzip
import io
import os
import tarfile
import zipfile

import pytest

from lit_pref.data.source_code.files import source_files
from lit_pref.errors import UserError

CODE = b"def f():\n    return 1\n"


def listed(source, **options):
    return [(file.origin, file.reason) for file in source_files(source, **options)]


def tar(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"), ("a.tar.xz", "w:xz")]
)
def test_a_tar_is_read_in_its_own_order_and_nothing_is_written(tmp_path, name, mode, monkeypatch):
    members = [("src/b.py", CODE), ("src/a.py", b"x"), ("../../escape.py", CODE), ("/etc/root.py", CODE), ("a.md", b"")]
    archive = tar(tmp_path / name, members, mode)
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    files = list(source_files(archive))
    assert [(file.origin.removeprefix(f"{name}:"), file.content, file.reason) for file in files] == [
        ("src/b.py", CODE, ""),
        ("src/a.py", b"x", ""),
        ("../../escape.py", CODE, ""),
        ("/etc/root.py", CODE, ""),
        ("a.md", None, "not source code"),
    ]
    assert {path.name for path in tmp_path.rglob("*")} == {name, "inside"}


def test_links_and_large_members_of_archives_are_counted(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("link.py")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        pipe = tarfile.TarInfo("pipe.py")
        pipe.type = tarfile.FIFOTYPE
        archive.addfile(pipe)
        large = tarfile.TarInfo("large.py")
        large.size = 101
        archive.addfile(large, io.BytesIO(bytes(101)))
    reasons = ["symbolic link", "not a regular file", "too large"]
    assert [reason for _, reason in listed(tmp_path / "a.tar", max_bytes=100)] == reasons


def test_a_zip_is_read_in_its_own_order(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("src/", "")
        archive.writestr("src/b.py", CODE)
        archive.writestr("../a.py", CODE)
        archive.writestr("bomb.py", bytes(10**6))
        link = zipfile.ZipInfo("link.py")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert listed(tmp_path / "a.zip", max_bytes=1000) == [
        ("a.zip:src/b.py", ""),
        ("a.zip:../a.py", ""),
        ("a.zip:bomb.py", "too large"),
        ("a.zip:link.py", "symbolic link"),
    ]


def test_a_damaged_member_of_a_zip_costs_that_member_alone(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.py", CODE)
        archive.writestr("b.py", CODE)
    raw = bytearray((tmp_path / "a.zip").read_bytes())
    raw[raw.index(CODE)] ^= 1  # its checksum no longer fits
    (tmp_path / "a.zip").write_bytes(raw)
    assert listed(tmp_path / "a.zip") == [("a.zip:a.py", "unreadable"), ("a.zip:b.py", "")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tar", b"", "a broken archive, 0 files could be read"),
        ("a.tar", bytes(10240), "an empty archive"),
        ("a.tar", b"no archive" * 100, "a broken archive, 0 files"),
        ("a.tar.gz", b"no archive", "a broken archive, 0 files"),
        ("a.zip", b"no archive", "a broken archive"),
        ("a.zip", b"PK\5\6" + bytes(18), "an empty archive"),
    ],
)
def test_archives_without_files_are_errors(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(source_files(tmp_path / name))


@pytest.mark.parametrize("damage", ["cut", "header"])
def test_a_tar_that_breaks_off_says_how_much_it_gave(tmp_path, damage):
    raw = bytearray(tar(tmp_path / "a.tar", [("a.py", CODE), ("b.py", CODE)]).read_bytes())
    if damage == "cut":  # in the second member, whose header is at 1,024
        raw = raw[: 1024 + 100]
    else:
        raw[1024 + 5] ^= 1  # its checksum no longer fits; tarfile by itself would end here without a word
    (tmp_path / "a.tar").write_bytes(raw)
    files = source_files(tmp_path / "a.tar")
    assert next(files).content == CODE
    with pytest.raises(UserError, match=r"a\.tar: a broken archive, 1 files could be read"):
        next(files)


def test_a_compressed_tar_that_breaks_off_is_an_error(tmp_path):
    whole = tar(tmp_path / "whole.tar", [(f"{number}.py", os.urandom(3000)) for number in range(20)]).read_bytes()
    packed = gzip.compress(whole)
    (tmp_path / "a.tar.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UserError, match=r"a broken archive, [1-9]"):
        list(source_files(tmp_path / "a.tar.gz"))
