"""Checkpoint files that are whole or not there, and that know whether they still hold what was written.

A checkpoint is torch's zip file whose comment holds a digest of all before it: content and digest are one file, so that
no kill comes between them. Not covered: remote paths, which Lightning writes in its own way, and strategies that write
their own files (FSDP, DeepSpeed).
"""

import re
import struct
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lit_pref.errors import UserError
from lit_pref.storage.files import remove_orphans, replacing

_MARK = b"lit_pref sha256 "
_COMMENT = re.compile(re.escape(_MARK) + rb"([0-9a-f]{64})")
_COMMENT_LENGTH = len(_MARK) + 64
_ENTRY, _END = b"PK\x03\x04", b"PK\x05\x06\x00\x00\x00\x00"  # how a zip file begins, and its end record of 22 bytes
_BLOCK = 2**22


class CheckedCheckpointIO(TorchCheckpointIO):
    """Lightning's plugin for reading and writing checkpoints: `Trainer(plugins=[CheckedCheckpointIO()])`.

    A file is written beside its target, flushed to the disk, read back and compared, and takes the target's name only
    then, so that a kill or a full disk leaves the last good one. Where a file cannot be written the run goes on, since
    a later one may find room, and nothing older is removed meanwhile; a run that ends without having written its newest
    files raises UserError, so that it does not look as if it had kept them.

    Reading raises UserError for a file that is damaged or no checkpoint.
    """

    def __init__(self) -> None:
        self._unwritten: UserError | None = None  # why the newest file is not there

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        try:
            write_checkpoint(checkpoint, Path(path))
        except UserError as error:
            self._unwritten = error
            print(f"\nno checkpoint: {error}. The run goes on, and tries again at its next one", file=sys.stderr)
        else:
            self._unwritten = None

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        if "://" in str(path):
            return super().load_checkpoint(path, map_location, weights_only)
        check_intact(Path(path))
        return _loaded(Path(path), map_location=map_location, weights_only=weights_only)

    def remove_checkpoint(self, path: Any) -> None:
        if not self._unwritten:  # else it may be the last good one
            super().remove_checkpoint(path)

    def teardown(self) -> None:
        super().teardown()
        error, self._unwritten = self._unwritten, None
        if error is not None and sys.exc_info()[1] is None:  # a run that ends by another error says that one
            raise UserError(f"the run is over, and its last state was not saved: {error}")


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint with its digest, whole or not at all.

    Raises UserError on a full disk or an unwritable folder, and where the file does not read as it was written.
    """
    if path.parent.is_dir():
        remove_orphans(path.parent)  # each as large as a checkpoint
    with replacing(path, check_intact) as stream:
        digesting = _Digesting(stream)
        torch.save(checkpoint, digesting)  # type: ignore[arg-type]
        stream.seek(-2, 2)  # where the end record tells its comment's length, as zero so far
        stream.write(struct.pack("<H", _COMMENT_LENGTH) + _MARK + digesting.digest.hexdigest().encode())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint that one of this package's modules wrote, memory-mapped.

    Raises UserError where it is damaged, no checkpoint, or none of this package.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; expected the file of a checkpoint, runs/.../checkpoints/last.ckpt")
    if not path.is_file():
        raise UserError(f"no file {path}; a run keeps its checkpoints in runs/.../checkpoints/")
    check_intact(path)
    content = _loaded(path, map_location="cpu", weights_only=True, mmap=True)
    saved, weights = content.get("lit_pref"), content.get("state_dict")
    if not isinstance(saved, dict) or not isinstance(saved.get("policy"), str):
        raise UserError(
            f"{path} was not written by a lit_pref module: expected a run's last.ckpt. Weights alone are given as a "
            "model folder, as the policy"
        )
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{path} holds no weights: expected a run's last.ckpt")
    return content


def check_intact(path: Path) -> None:
    """Raise UserError unless a file holds what was written: by its digest, or by the CRCs of one that has none."""
    with _open(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        if not size:
            raise UserError(f"{path} is empty: expected a run's last.ckpt")
        if file.read(4) != _ENTRY:
            raise UserError(f"{path} is no checkpoint, or its beginning is damaged: expected a run's last.ckpt")
        file.seek(max(0, size - _COMMENT_LENGTH - 2))
        end = file.read()
        comment = _COMMENT.fullmatch(end[2:])
        if comment is None:
            _check_older(path, file, size)
            return
        digest = sha256()
        file.seek(0)
        left = size - len(end)
        while left and (block := file.read(min(_BLOCK, left))):
            digest.update(block)
            left -= len(block)
        digest.update(b"\0\0")  # the comment's length before there was one
    if end[:2] != struct.pack("<H", _COMMENT_LENGTH) or digest.hexdigest().encode() != comment[1]:
        raise _damaged(path, "its checksum is another one than when it was written")


def _check_older(path: Path, file: IO[bytes], size: int) -> None:
    """A file without digest: torch's own end, and a CRC of each of its parts."""
    file.seek(max(0, size - 22))
    end = file.read()
    if not (end.startswith(_END) and end.endswith(b"\0\0")):
        raise _damaged(path, "its end is missing or changed")
    try:
        with zipfile.ZipFile(path) as parts:
            broken = parts.testzip()
    except Exception as error:  # zipfile meets damage with errors of many kinds
        raise _damaged(path, str(error)) from error
    if broken is not None:
        raise _damaged(path, f"{broken} is not what was written")
    _tell_older(path.absolute())


@cache  # once a file
@rank_zero_only
def _tell_older(path: Path) -> None:
    print(f"{path}: of an older version or another program, without a checksum; its parts' CRCs agree", flush=True)


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} is no whole checkpoint, damaged or cut short ({reason}): take another one of its run's, or start again"
    )


def _loaded(path: Path, **how: Any) -> dict[str, Any]:
    try:
        content = torch.load(path, **how)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # foreign zip files and pickles fail in many ways, and none of them runs code
        raise UserError(f"{path} is no checkpoint: expected a run's last.ckpt ({_first_line(error)})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no checkpoint: expected a run's last.ckpt, it holds a {type(content).__name__}")
    return content


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


class _Digesting:
    """What torch writes to a stream from its beginning to its end, with a digest of it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.digest = sha256()
        self._stream = stream
        self.flush: Callable[[], None] = stream.flush

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._stream.write(data)
