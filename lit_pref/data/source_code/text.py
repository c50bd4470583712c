"""The text of a source file, as UTF-8 without a byte order mark and with `\\n` at the ends of lines.

Python says its encoding in its first lines (PEP 263); everything else is UTF-8 or refused. Files are measured before
they are read. Not covered: guessing an encoding.
"""

import io
import os
import re
import stat
import tokenize
from pathlib import Path

from lit_pref.data.source_code.notebooks import notebook_source
from lit_pref.data.source_code.source_file import NOTEBOOK, RefusedFileError

_BOM = b"\xef\xbb\xbf"
_COOKIE = re.compile(rb"[^\n]*\n?[^\n]*coding[:=]")  # in the first two lines


def source_text(content: Path | bytes | str, suffix: str, max_bytes: int, max_notebook_bytes: int) -> bytes:
    """The text of a source file; of a notebook, its code.

    Raises RefusedFileError for what is too large, cannot be read, or is no text.
    """
    raw = _raw(content, max_notebook_bytes if suffix == NOTEBOOK else max_bytes)
    if suffix == NOTEBOOK:
        raw = _encoded(notebook_source(raw))
        if len(raw) > max_bytes:
            raise RefusedFileError("too large")
    text = _utf8(raw, suffix == ".py" and not isinstance(content, str))
    if b"\0" in text:
        raise RefusedFileError("binary")
    if not text.strip():
        raise RefusedFileError("empty")
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return text


def _raw(content: Path | bytes | str, max_bytes: int) -> bytes:
    if isinstance(content, Path):
        return _read(content, max_bytes)
    raw = _encoded(content) if isinstance(content, str) else content
    if len(raw) > max_bytes:
        raise RefusedFileError("too large")
    return raw


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        # A pipe that took the file's place since it was listed must not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise RefusedFileError("not a regular file")
            if status.st_size > max_bytes:
                raise RefusedFileError("too large")
            with os.fdopen(descriptor, "rb", closefd=False) as stream:
                return stream.read(status.st_size)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise RefusedFileError("unreadable") from error


def _utf8(raw: bytes, is_python: bool) -> bytes:
    try:
        if is_python and _COOKIE.match(raw):
            encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
            return raw.decode(encoding).encode("utf-8")
        if not raw.isascii():
            raw.decode("utf-8")
    except (SyntaxError, LookupError, ValueError) as error:  # an encoding that does not exist, or is not the file's
        raise RefusedFileError("wrong encoding") from error
    return raw.removeprefix(_BOM)


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:  # lone surrogates
        raise RefusedFileError("wrong encoding") from error
