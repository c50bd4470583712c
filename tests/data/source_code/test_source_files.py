"""Files of folders and tables, in order, with what cannot be used counted."""

import os
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lit_pref.data.source_code.files import source_files
from lit_pref.errors import UserError

CODE = b"def f():\n    return 1\n"


def listed(source, **options):
    return [(file.origin, file.reason) for file in source_files(source, **options)]


def test_a_folder_is_read_in_order_with_what_cannot_be_used(tmp_path):
    for name in ("b.py", "a/z.go", "a/b/c.rs", "B.TS", "notes.txt", "a.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(CODE)
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "link.py").symlink_to("b.py")
    os.mkfifo(tmp_path / "pipe.py")
    assert listed(tmp_path) == [
        ("B.TS", ""),
        ("a.ipynb", ""),
        ("b.py", ""),
        ("link.py", "symbolic link"),
        ("loop", "symbolic link"),
        ("notes.txt", "not source code"),
        ("pipe.py", "not a regular file"),
        ("a/z.go", ""),
        ("a/b/c.rs", ""),
    ]


def test_a_name_that_is_no_utf8_can_be_written_down(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.py")).write_bytes(CODE)
    [file] = source_files(tmp_path)
    assert file.origin == "caf\\xe9.py" and file.content.read_bytes() == CODE


def test_files_can_be_sent_to_other_processes(tmp_path):
    (tmp_path / "a.py").write_bytes(CODE)
    [file] = source_files(tmp_path)
    assert pickle.loads(pickle.dumps(file)) == file


def test_one_file_is_a_source(tmp_path):
    (tmp_path / "a.py").write_bytes(CODE)
    assert listed(tmp_path / "a.py") == [("a.py", "")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "no such folder or file"),
        ("owner/name", "needs the column"),
        ("rows.parquet", "which column"),
        ("a.docx", "unknown file type '.docx'"),
        ("empty", "holds no source code, but 0 other files"),
        ("texts", "holds no source code, but 1 other files"),
    ],
)
def test_a_source_that_is_none_is_an_error(tmp_path, name, message):
    for file in ("rows.parquet", "a.docx"):
        (tmp_path / file).write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_bytes(b"x")
    with pytest.raises(UserError, match=message):
        list(source_files(tmp_path / name))


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_column_of_a_table_is_a_source(tmp_path):
    path = tmp_path / "rows.parquet"
    columns = {"content": ["x = 1", None, "y", "z"], "path": ["a/b.PY", "c.py", "d.txt", None]}
    pq.write_table(pa.table(columns), path)
    files = list(source_files(path, column="content", path_column="path"))
    assert [(file.suffix, file.content, file.reason) for file in files] == [
        (".py", "x = 1", ""),
        (".py", None, "no text"),
        (".txt", None, "not source code"),
        ("", None, "not source code"),
    ]
    assert files[1].origin == f"{path} row 2"
    assert {file.suffix for file in source_files(path, column="content", language="rust")} == {".rs"}


def test_a_folder_that_datasets_reads_is_a_source(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"code": ["x = 1", "y = 2"]}).save_to_disk(tmp_path / "data")
    assert [file.content for file in source_files(tmp_path / "data", column="code")] == ["x = 1", "y = 2"]


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path):
    pq.write_table(pa.table({"contents": ["x"], "lang": ["python"]}), tmp_path / "rows.parquet")
    message = r'rows\.parquet row 1: has no column "content", but contents, lang; did you mean "contents"\?'
    with pytest.raises(UserError, match=message):
        list(source_files(tmp_path / "rows.parquet", column="content"))
    with pytest.raises(UserError, match="'cobol' is unknown: expected one of python, javascript"):
        source_files(tmp_path / "rows.parquet", column="content", language="cobol")
