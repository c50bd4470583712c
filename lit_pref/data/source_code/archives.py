"""The files in a `.tar` (plain, or by gzip, bzip2 or xz) and in a `.zip`, in the archive's own order, one at a time.

Nothing is extracted to the disk and no name is used as a path. A `.tar` that breaks off is an error after what it
gave; a damaged member of a `.zip` is counted. Not covered: archives within archives; the table of contents of a `.zip`
is held in memory.
"""

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from lit_pref.data.source_code.source_file import SourceFile, is_known, origin_of
from lit_pref.errors import UserError

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ZIP_SUFFIXES = (".zip", ".whl")
_BROKEN = (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


class _StrictHeader(tarfile.TarInfo):
    """tarfile takes a broken header for the archive's end; here it is an error."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "_StrictHeader":
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise OSError(f"a broken header at byte {tarfile_.offset}: {error}") from error


def tar_files(path: Path, max_bytes: int) -> Iterator[SourceFile]:
    number = 0
    try:
        with tarfile.open(path, "r|*", tarinfo=_StrictHeader) as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # else they pile up in memory
                if not member.isdir():
                    number += 1
                    read = partial(_read_tar, archive, member)
                    yield _member(path, member.name, member.size, member.isreg(), member.issym(), max_bytes, read)
    except _BROKEN as error:
        raise UserError(f"{path}: a broken archive, {number} files could be read: {error}; fetch it again") from error
    if not number:
        raise UserError(f"{path}: an empty archive: expected at least one file")


def _read_tar(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    assert stream is not None  # it is a regular file
    return stream.read()


def zip_files(path: Path, max_bytes: int) -> Iterator[SourceFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            for member in members:
                mode = member.external_attr >> 16
                regular = stat.S_IFMT(mode) in (0, stat.S_IFREG)
                read = partial(_read_zip, archive, member, max_bytes)
                yield _member(path, member.filename, member.file_size, regular, stat.S_ISLNK(mode), max_bytes, read)
    except _BROKEN as error:
        raise UserError(f"{path}: a broken archive: {error}; fetch it again") from error
    if not members:
        raise UserError(f"{path}: an empty archive: expected at least one file")


def _read_zip(archive: zipfile.ZipFile, member: zipfile.ZipInfo, max_bytes: int) -> bytes | None:
    """None where it cannot be read: encrypted, damaged, by an unknown method, or longer than it says."""
    try:
        with archive.open(member) as stream:
            content = stream.read(max_bytes + 1)
    except (*_BROKEN, NotImplementedError, RuntimeError, ValueError):
        return None
    return content if len(content) <= max_bytes else None


def _member(
    path: Path, name: str, size: int, regular: bool, link: bool, max_bytes: int, read: Callable[[], bytes | None]
) -> SourceFile:
    """A member of an archive; its name is never used as a path."""
    suffix = PurePosixPath(name).suffix.lower()
    content = None
    if link:
        reason = "symbolic link"
    elif not is_known(suffix):
        reason = "not source code"
    elif not regular:
        reason = "not a regular file"
    elif size > max_bytes:
        reason = "too large"
    else:
        content = read()
        reason = "unreadable" if content is None else ""
    return SourceFile(origin_of(f"{path.name}:{name}"), suffix, content, reason)
