"""The Python program of a Jupyter notebook: its code cells, joined, with what only IPython understands commented out.

Reads notebooks of format 4, and of format 3 with its worksheets. Not covered: outputs, Markdown cells, magics on the
right of an assignment beyond `x = !command` and `x = %magic`, help by a question mark within a line.
"""

import json
import re

from lit_pref.data.source_code.source_file import RefusedFileError

_LINE_MAGIC = re.compile(  # %matplotlib, !ls, x = !ls, x = %magic, ?print, print?; but not `% y` of a long expression
    r"^([ \t]*)(?=[%!][\w%!/.{$]|\w+[ \t]*=[ \t]*[%!]\w|\?\w|\w[\w.]*\?+[ \t]*$).*$", re.MULTILINE
)
_CELL_MAGIC = re.compile(r"\s*%%(\w+)")
_STILL_PYTHON = frozenset({"time", "timeit", "capture", "prun"})
_PYTHON = re.compile(r"i?python\d*$", re.IGNORECASE)


def notebook_source(content: bytes) -> str:
    """The code cells as one source; empty where there is none.

    Raises RefusedFileError for what is no notebook, or one of another language.
    """
    try:
        notebook = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RefusedFileError("broken notebook") from error
    cells = _cells(notebook)
    if cells is None:
        raise RefusedFileError("broken notebook")
    if not _PYTHON.match(_language(notebook)):
        raise RefusedFileError("notebook in another language")
    sources = [_source(cell) for cell in cells if isinstance(cell, dict) and cell.get("cell_type") == "code"]
    return "\n\n".join(_without_magics(source).rstrip("\n") for source in sources if source.strip()) + "\n"


def _cells(notebook: object) -> list[object] | None:
    if not isinstance(notebook, dict):
        return None
    sheets = notebook.get("worksheets")
    sheets = [notebook] if sheets is None else sheets
    if not isinstance(sheets, list):
        return None
    cells: list[object] = []
    for sheet in sheets:
        several = sheet.get("cells") if isinstance(sheet, dict) else None
        if not isinstance(several, list):
            return None
        cells += several
    return cells


def _language(notebook: dict[str, object]) -> str:
    """As the kernel names it; Python where nothing is said, as in the first formats."""
    metadata = notebook.get("metadata")
    for key, inner in (("language_info", "name"), ("kernelspec", "language")):
        part = metadata.get(key) if isinstance(metadata, dict) else None
        language = part.get(inner) if isinstance(part, dict) else None
        if isinstance(language, str):
            return language
    return "python"


def _source(cell: dict[str, object]) -> str:
    source = cell.get("source", cell.get("input", ""))
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    return source if isinstance(source, str) else ""


def _without_magics(source: str) -> str:
    magic = _CELL_MAGIC.match(source)
    if magic and magic[1] not in _STILL_PYTHON:
        return "".join(f"# {line}\n" for line in source.splitlines())
    return _LINE_MAGIC.sub(_commented, source)


def _commented(line: re.Match[str]) -> str:
    # An empty line after it keeps it from being read as the next definition's documentation.
    return f"{line[1]}# {line[0].lstrip()}" + ("" if line[1] else "\n")
