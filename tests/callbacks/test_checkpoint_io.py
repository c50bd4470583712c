"""Checkpoint files: whole or not there, verified when they are read, and a full disk costs no earlier one."""

import errno
import re
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_pref.callbacks import CheckedCheckpointIO, checkpoint_io
from lit_pref.callbacks.checkpoint_io import check_intact, read_checkpoint, write_checkpoint
from lit_pref.errors import UserError

CONTENT = {"state_dict": {"weight": torch.arange(6.0).view(2, 3)}, "lit_pref": {"policy": "embedded:coder"}}
END = 2 + len("lit_pref sha256 ") + 64  # what follows on the content: the comment's length and the comment


def written(path: Path) -> bytes:
    write_checkpoint(CONTENT, path)
    return path.read_bytes()


def test_a_checkpoint_is_torch_s_zip_file_with_a_digest_of_it_as_comment(tmp_path: Path) -> None:
    data = written(tmp_path / "new" / "last.ckpt")
    torch.save(CONTENT, tmp_path / "plain.ckpt")
    comment = zipfile.ZipFile(tmp_path / "new" / "last.ckpt").comment
    assert comment == b"lit_pref sha256 " + sha256(data[:-END] + b"\0\0").hexdigest().encode()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["last.ckpt"]
    for read in (read_checkpoint(tmp_path / "new" / "last.ckpt"), torch.load(tmp_path / "new" / "last.ckpt")):
        assert torch.equal(read["state_dict"]["weight"], CONTENT["state_dict"]["weight"])


def test_every_flipped_bit_and_every_cut_shows(tmp_path: Path) -> None:
    data = written(tmp_path / "last.ckpt")
    places = [*range(0, len(data), 7), *range(len(data) - END - 30, len(data))]
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        (tmp_path / "damaged.ckpt").write_bytes(damaged)
        with pytest.raises(UserError, match=r"damaged\.ckpt is no (whole )?checkpoint"):
            check_intact(tmp_path / "damaged.ckpt")
    for length in places:
        (tmp_path / "damaged.ckpt").write_bytes(data[:length])
        with pytest.raises(UserError, match=r"is no (whole )?checkpoint|is empty"):
            check_intact(tmp_path / "damaged.ckpt")


def test_one_of_an_older_version_is_read_and_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    older = tmp_path / "older.ckpt"
    torch.save(CONTENT, older)
    for _ in range(2):
        assert read_checkpoint(older)["lit_pref"] == CONTENT["lit_pref"]
    assert capsys.readouterr().out.count("without a checksum") == 1
    data = bytearray(older.read_bytes())
    place = data.index(torch.tensor(4.0).numpy().tobytes())  # one of the weights
    data[place + 3] ^= 1
    older.write_bytes(data)
    with pytest.raises(UserError, match="data/0 is not what was written"):
        read_checkpoint(older)


class Bomb:
    def __reduce__(self) -> Any:
        return eval, ("1/0",)


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("word/document.xml", "no checkpoint")


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda path: path.mkdir(), "is a folder; expected the file"),
        (lambda path: None, "no file"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("seed_everything: 1"), "is no checkpoint"),
        (other_zip, "is no checkpoint"),
        (lambda path: torch.save(Bomb(), path), "is no checkpoint"),
        (lambda path: torch.save([1, 2], path), "it holds a list"),
        (lambda path: torch.save({"weight": torch.ones(1)}, path), "was not written by a lit_pref module"),
        (lambda path: torch.save(CONTENT | {"lit_pref": 3}, path), "was not written by a lit_pref module"),
        (lambda path: torch.save(CONTENT | {"state_dict": {"weight": 3}}, path), "holds no weights"),
    ],
    ids=["folder", "nothing", "empty", "text", "zip", "code", "list", "weights", "foreign", "no weights"],
)
def test_what_is_no_checkpoint(write: Any, expected: str, tmp_path: Path) -> None:
    write(tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=re.escape(expected)):
        read_checkpoint(tmp_path / "x.ckpt")


def full(content: object, stream: IO[bytes]) -> None:
    """A disk that takes some bytes and no more."""
    stream.write(b"PK\x03\x04" + bytes(100))
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_last_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = written(tmp_path / "last.ckpt")
    written(tmp_path / "older.ckpt")
    plugin = CheckedCheckpointIO()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_io.torch, "save", full)
        plugin.save_checkpoint(CONTENT, tmp_path / "last.ckpt")
    assert "last.ckpt: the disk is full" in (error := capsys.readouterr().err) and "tries again" in error
    plugin.remove_checkpoint(tmp_path / "older.ckpt")  # as Lightning does when it takes a newer one for written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "older.ckpt"]
    assert (tmp_path / "last.ckpt").read_bytes() == before
    plugin.save_checkpoint(CONTENT, tmp_path / "last.ckpt")
    plugin.remove_checkpoint(tmp_path / "older.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    plugin.teardown()


def test_what_does_not_read_as_it_was_written_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written(tmp_path / "last.ckpt")

    def off(content: object, stream: Any) -> None:
        save(content, stream)
        stream._stream.seek(100)
        stream._stream.write(b"rot")

    save = torch.save
    monkeypatch.setattr(checkpoint_io.torch, "save", off)
    with pytest.raises(UserError, match="its checksum is another one"):
        write_checkpoint(CONTENT, tmp_path / "last.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert (tmp_path / "last.ckpt").read_bytes() == before


class Tiny(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.layer(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning"
)
@pytest.mark.parametrize("fails_at", [2, 4])
def test_a_run_goes_on_over_a_full_disk_and_ends_in_an_error_where_its_end_is_not_saved(
    fails_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves, save = 0, torch.save

    def sometimes(content: Any, stream: Any) -> None:
        nonlocal saves
        saves += 1
        (full if saves == fails_at else save)(content, stream)

    monkeypatch.setattr(checkpoint_io.torch, "save", sometimes)
    trainer = Trainer(
        accelerator="cpu", max_epochs=4, logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[ModelCheckpoint(tmp_path, filename="{epoch}")], plugins=[CheckedCheckpointIO()],
    )  # fmt: skip
    data = DataLoader(torch.ones(3, 2))
    if fails_at < 4:
        trainer.fit(Tiny(), data)
    else:
        with pytest.raises(UserError, match=r"its last state was not saved: .*epoch=3\.ckpt: the disk is full"):
            trainer.fit(Tiny(), data)
    assert saves == 4 and trainer.global_step == 12
    # Nothing was removed while the newest one could not be written.
    kept = sorted(path.name for path in tmp_path.glob("*.ckpt"))
    assert kept == (["epoch=0.ckpt", "epoch=3.ckpt"] if fails_at == 2 else ["epoch=2.ckpt"])
    check_intact(tmp_path / kept[-1])
