"""A file's text: its encoding, and why a file has none."""

import json
import os

import pytest

from lit_pref.data.source_code.source_file import RefusedFileError
from lit_pref.data.source_code.text import source_text


def text_of(content, suffix=".py", max_bytes=1000):
    return source_text(content, suffix, max_bytes, 10 * max_bytes)


def notebook(*cells, **metadata):
    return json.dumps(
        {"cells": [{"cell_type": "code", "source": cell} for cell in cells], "metadata": metadata}
    ).encode()


@pytest.mark.parametrize(
    ("raw", "suffix", "text"),
    [
        ("x = 'é'\n".encode(), ".py", "x = 'é'\n"),
        (b"\xef\xbb\xbfx = 1\r\ny = 2\rz", ".py", "x = 1\ny = 2\nz"),
        (b"\xef\xbb\xbfint x;\n", ".c", "int x;\n"),
        ("# -*- coding: latin-1 -*-\nx = 'é'\n".encode("latin-1"), ".py", "# -*- coding: latin-1 -*-\nx = 'é'\n"),
        ("#!/usr/bin/python\n# vim: set fileencoding=cp1252 :\nx = '€'\n".encode("cp1252"), ".py", None),
        ("# coding: latin-1\nx = 'é'\n", ".py", "# coding: latin-1\nx = 'é'\n"),  # a table's text is text already
    ],
)
def test_the_encoding_is_the_one_that_the_file_names(raw, suffix, text):
    text = raw.decode("cp1252") if text is None else text
    assert text_of(raw, suffix) == text.encode()


@pytest.mark.parametrize(
    ("raw", "suffix", "reason"),
    [
        ("x = 'é'\n".encode("latin-1"), ".py", "wrong encoding"),
        ("// é\n".encode("latin-1"), ".c", "wrong encoding"),
        (b"# coding: klingon\n", ".py", "wrong encoding"),
        (b"# coding: rot13\n", ".py", "wrong encoding"),
        (b"\xef\xbb\xbf# coding: latin-1\n", ".py", "wrong encoding"),  # PEP 263: the mark and the name disagree
        ("x = 1\n".encode("utf-16"), ".py", "wrong encoding"),
        ("x = '\udc80'", ".py", "wrong encoding"),
        (b"x = 1\0", ".py", "binary"),
        (b" \n", ".py", "empty"),
        (b"", ".py", "empty"),
        (b"x" * 1001, ".py", "too large"),
        ("é" * 501, ".py", "too large"),  # 1,002 bytes
        (notebook("x" * 1001), ".ipynb", "too large"),  # its code, not its JSON
    ],
)
def test_what_is_no_text_is_refused_by_name(raw, suffix, reason):
    with pytest.raises(RefusedFileError) as refused:
        text_of(raw, suffix)
    assert refused.value.reason == reason


def test_files_on_disk_are_measured_before_they_are_read(tmp_path):
    large, pipe, gone = tmp_path / "large.py", tmp_path / "pipe.py", tmp_path / "gone.py"
    with large.open("wb") as stream:
        stream.truncate(50_000_000)  # one line of 50 MB; takes no room
    os.mkfifo(pipe)
    reasons = []
    for path in (large, pipe, gone, tmp_path):
        with pytest.raises(RefusedFileError) as refused:
            text_of(path)
        reasons.append(refused.value.reason)
    assert reasons == ["too large", "not a regular file", "unreadable", "not a regular file"]
