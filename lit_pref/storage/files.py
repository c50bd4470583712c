"""One way to publish a file or a folder: whole or not at all.

Everything is written under a temporary name beside its target, flushed to the disk and then renamed, so that a crash,
Ctrl-C or a full disk leaves what stood there before. Not covered: remote file systems, and the temporary file of a
process that was killed without notice (`.*.tmp`; it is never read) where nobody calls `remove_orphans`.
"""

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import IO, TypeAlias, Union

from lit_pref.errors import UserError

JsonValue: TypeAlias = Union[bool, int, float, str, Sequence["JsonValue"], Mapping[str, "JsonValue"], None]  # noqa: UP007 (recursive)

_TEMPORARY = re.compile(r"\..+\.(\d+)-[0-9a-f]+\.tmp")  # as `publishing` names it, by its process


@contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """A free name for a file or a folder; what the block writes there takes the name `path` when the block ends well.

    A folder takes a name that is free or of an empty folder. Raises UserError for any OSError; after Ctrl-C too nothing
    half written is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            remove(temporary)


@contextmanager
def replacing(path: Path, check: Callable[[Path], None] | None = None) -> Iterator[IO[bytes]]:
    """A stream whose content takes the name `path` when the block ends well, and leaves no trace when it does not.

    check: of the file on the disk before it takes its name; it raises where that is not what was written.
    """
    with publishing(path) as temporary:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if check is not None:
            check(temporary)


def write_json(path: Path, value: JsonValue) -> None:
    """Write JSON for people to read, whole or not at all; Raises UserError on a full disk or an unwritable folder."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with replacing(path) as stream:
        stream.write(text.encode("utf-8"))


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, whichever stands there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_orphans(folder: Path) -> None:
    """Remove what processes of this machine left half written in a folder when they were killed."""
    for path in folder.glob(".*.tmp"):
        named = _TEMPORARY.fullmatch(path.name)
        if named and not _lives(int(named[1])):
            remove(path)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)  # only asks
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """A rename outlives a power cut only once the folder itself is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot_write(path: Path, error: OSError) -> UserError:
    """The error of a file that cannot be written, with what to do about a full disk."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"{path}: cannot be written: {error.strerror or error}")
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(folder).free / 2**20
    return UserError(
        f"{path}: the disk is full or the quota is used up ({error.strerror}; {free:.1f} MiB free). What was finished "
        "before stays valid: make room, then run the same command again and it goes on from there"
    )


def provenance_digest(provenance: JsonValue) -> str:
    """16 hex digits that name what made some data: equal for equal JSON, whatever the order of keys."""
    text = json.dumps(provenance, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return blake2b(text.encode("utf-8"), digest_size=8).hexdigest()


def differences(there: Mapping[str, JsonValue], now: Mapping[str, JsonValue]) -> str:
    """What two provenances do not share, for a message; empty where they are equal."""
    keys = sorted(key for key in there.keys() | now.keys() if there.get(key, "absent") != now.get(key, "absent"))
    return "; ".join(f"{key}: {there.get(key, 'absent')} there, {now.get(key, 'absent')} now" for key in keys)
