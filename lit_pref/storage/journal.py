"""What a long piece of work has finished so far, kept as it comes: a JSON object a line, the first says of what.

A process that is killed loses the line that it was writing at most, which the next one drops. One process writes a
journal at a time. Not covered: a power cut, which may take the last seconds; file systems without POSIX locks.
"""

import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_pref.errors import UserError
from lit_pref.storage.files import JsonValue, cannot_write


class JournalTakenError(UserError):
    """Another process is writing the journal."""


class Journal:
    """Rows that are kept one by one, and those that an earlier process kept.

    path: of the file.
    provenance: all that the rows depend on; where a journal of another one stands, it is begun anew.
    rows: what was found.

    Raises JournalTakenError, and UserError where the file cannot be written.
    """

    def __init__(self, path: Path, provenance: Mapping[str, JsonValue]) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("a+b", buffering=0)
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            self._take()
            self.rows = self._found(_line({"provenance": dict(provenance)}))
        except OSError as error:
            self.close()
            raise cannot_write(path, error) from error
        except JournalTakenError:
            self.close()
            raise

    def _take(self) -> None:
        """For this process and not for those that it forks; to close any descriptor of the file would let go of it."""
        try:
            fcntl.lockf(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise JournalTakenError(f"{self.path}: another process is writing it: wait for it to end") from error

    def _found(self, first: bytes) -> list[dict[str, Any]]:
        """The rows behind the first line; what is none is cut off, and all where another line stands first."""
        self._stream.seek(0)
        lines = self._stream.readall().splitlines(keepends=True)
        if lines[:1] != [first]:
            self._stream.truncate(0)
            self._write(first)
            return []
        rows = _whole(lines[1:])
        self._stream.truncate(sum(map(len, lines[: 1 + len(rows)])))
        return rows

    def append(self, row: Mapping[str, object]) -> None:
        """Keep a row; Raises UserError on a full disk."""
        try:
            self._write(_line(row))
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _write(self, line: bytes) -> None:
        while line:
            line = line[self._stream.write(line) :]

    def close(self) -> None:
        """Let go of the file, which stays."""
        self._stream.close()

    def remove(self) -> None:
        """The work is done, and kept elsewhere."""
        self.path.unlink(missing_ok=True)
        self.close()


def journal_provenance(path: Path) -> dict[str, JsonValue] | None:
    """What a journal says that it is of; None where there is none."""
    try:
        with path.open("rb") as stream:
            first = json.loads(stream.readline())
    except (OSError, ValueError):
        return None
    provenance = first.get("provenance") if isinstance(first, dict) else None
    return provenance if isinstance(provenance, dict) else None


def _line(row: Mapping[str, object]) -> bytes:
    return json.dumps(row, sort_keys=True).encode() + b"\n"


def _whole(lines: list[bytes]) -> list[dict[str, Any]]:
    """The rows up to the first line that is none, as one that was cut short."""
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict) or not line.endswith(b"\n"):
            break
        rows.append(row)
    return rows
