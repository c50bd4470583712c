"""A file of source code as it is listed, before anyone reads it."""

import os
from dataclasses import dataclass
from pathlib import Path

from lit_pref.syntax.languages import is_source

NOTEBOOK = ".ipynb"


class RefusedFileError(Exception):
    """A source file that is not used; `reason` is the short name under which it is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a source; one on disk is read where it is worked on. Can be pickled.

    origin: what a snippet names as its provenance, as in `Snippet`.
    suffix: `.py` of `shapes.py`, in lower case; decides the grammar.
    content: the file on disk, or what stood in the archive or the row; None where `reason` says why it is not usable.
    reason: why the file was refused while listing, as counted; empty where it was not.
    """

    origin: str
    suffix: str
    content: Path | bytes | str | None
    reason: str = ""


def is_known(suffix: str) -> bool:
    """Whether a file of this suffix, in lower case, is source code or a notebook."""
    return is_source(suffix) or suffix == NOTEBOOK


def origin_of(name: str | Path) -> str:
    """A file name as text, whatever its bytes are."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
