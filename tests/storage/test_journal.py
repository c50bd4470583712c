"""A journal: rows that outlive whoever wrote them, a torn last line, other origins, other writers, a full disk."""

import errno
import os
import time

import pytest

from lit_pref.errors import UserError
from lit_pref.storage import journal as journal_module
from lit_pref.storage.journal import Journal, JournalTakenError, journal_provenance
from tests.journals import taken

ROWS = [{"n": 1, "text": "a\n\r\u2028b"}, {"n": 2, "values": [0.1, -1e-300, float("-inf")]}, {"n": 3, "text": "\ud800"}]


def left(path, *rows, provenance=None):
    """As a process leaves it that was killed."""
    journal = Journal(path, provenance or {"seed": 1})
    for row in rows:
        journal.append(row)
    journal.close()
    return journal


def test_rows_are_found_again_as_they_were(tmp_path):
    path = tmp_path / "folder" / "rows.jsonl"
    assert left(path, *ROWS).rows == []
    assert left(path, {"n": 4}).rows == ROWS
    assert left(path).rows == [*ROWS, {"n": 4}]
    assert journal_provenance(path) == {"seed": 1}
    Journal(path, {"seed": 1}).remove()
    assert not path.exists() and journal_provenance(path) is None


def test_each_row_is_in_the_file_at_once(tmp_path):
    journal = Journal(tmp_path / "rows.jsonl", {})
    journal.append({"n": 1})
    assert (tmp_path / "rows.jsonl").read_bytes().endswith(b'{"n": 1}\n')
    journal.close()


def test_a_torn_last_line_is_dropped_and_written_over(tmp_path):
    path = tmp_path / "rows.jsonl"
    left(path, *ROWS)
    whole = path.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    for cut in range(1, last + 1):
        path.write_bytes(whole[:-cut])
        assert left(path, ROWS[2]).rows == ROWS[:2], cut
        assert path.read_bytes() == whole


def test_a_first_line_that_is_torn_begins_anew(tmp_path):
    path = tmp_path / "rows.jsonl"
    left(path)
    for torn in (path.read_bytes()[:-3], b"", b"[]\n", b"\xff\n"):
        path.write_bytes(torn)
        assert journal_provenance(path) is None or torn.endswith(b'"seed": 1}')
        assert left(path, {"n": 1}).rows == []
        assert left(path).rows == [{"n": 1}]


def test_another_origin_begins_anew(tmp_path):
    path = tmp_path / "rows.jsonl"
    left(path, *ROWS)
    assert left(path, {"n": 1}, provenance={"seed": 2}).rows == []
    assert left(path, provenance={"seed": 2}).rows == [{"n": 1}]


def test_one_process_writes_at_a_time(tmp_path):
    path = tmp_path / "rows.jsonl"
    left(path, *ROWS)
    whole = path.read_bytes()
    with taken(path), pytest.raises(JournalTakenError, match=r"rows\.jsonl: another process is writing it: wait"):
        Journal(path, {"seed": 2})
    assert path.read_bytes() == whole
    journal = Journal(path, {"seed": 1})
    held = os.fork()
    if held == 0:  # a process that this one forked, as a sandbox's, does not hold it
        time.sleep(60)
        os._exit(0)
    journal.close()
    try:
        assert left(path).rows == ROWS
    finally:
        os.kill(held, 9)
        os.waitpid(held, 0)


def test_a_full_disk_and_a_folder_that_is_none(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "rows.jsonl", {})

    def full(self, line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(journal_module.Journal, "_write", full)
    with pytest.raises(UserError, match=r"rows\.jsonl: the disk is full"):
        journal.append({"n": 1})
    journal.close()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"rows\.jsonl: cannot be written: "):
        Journal(tmp_path / "file" / "rows.jsonl", {})
