"""Stages in shards: the same rows from every runner, what a killed worker costs, and what stops a run."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lit_pref.errors import UserError
from lit_pref.storage.files import JsonValue
from lit_pref.storage.shards import read_counts, read_manifest
from lit_pref.synthesis.stages.local import LocalRunner, Runner, ShardRows, Stage, run_stage
from lit_pref.synthesis.stages.ray import RayRunner

SHARDS, SIZE = 6, 5


@dataclass(frozen=True)
class Squares(Stage):
    """Numbers with their squares; a marker file makes one shard misbehave, the first time or each time."""

    schema: ClassVar[pa.Schema] = pa.schema([("number", pa.int64()), ("square", pa.int64()), ("threads", pa.int64())])

    seed: int = 0
    dies_once_at: int = -1
    refuses: int = -1
    crashes: int = -1

    @property
    def title(self) -> str:
        return "Squaring"

    def provenance(self) -> dict[str, JsonValue]:
        return {"seed": self.seed}

    def rows(self, index: int) -> ShardRows:
        if index == self.refuses:
            raise UserError(f"shard {index}: not this one")
        if index == self.crashes:
            raise ZeroDivisionError("a mistake of ours")
        marker = self.folder.parent / "died"
        if index == self.dies_once_at and not marker.exists():
            marker.touch()
            (self.folder / f".part-{index:05d}.parquet.{os.getpid()}-00.tmp").touch()  # killed as it writes
            os._exit(1)
        numbers = range(index * SIZE, (index + 1) * SIZE)
        odd = sum(number % 2 for number in numbers)
        threads = torch.get_num_threads()
        rows = [{"number": n, "square": n * n + self.seed, "threads": threads} for n in numbers if n % 2 == 0]
        return ShardRows(rows, {"odd": odd})


def content(folder: Path) -> list[dict[str, int]]:
    return [row for path in sorted(folder.glob("part-*.parquet")) for row in pq.read_table(path).to_pylist()]


def run(stage: Stage, runner: Runner) -> dict[str, int]:
    return run_stage(stage, SHARDS, SHARDS * SIZE, runner)


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_rows_counts_and_manifest(tmp_path: Path) -> None:
    # 0..29 in shards of five: the even ones are kept, 15 of them, 15 odd ones are counted
    stage = Squares(tmp_path / "squares", seed=7)
    assert run(stage, LocalRunner()) == {"odd": 15}
    assert content(stage.folder) == [{"number": n, "square": n * n + 7, "threads": 1} for n in range(0, 30, 2)]
    manifest = read_manifest(stage.folder)
    assert (manifest["complete"], manifest["shards"], manifest["rows"]) == (True, SHARDS, 15)
    assert manifest["provenance"] == {"seed": 7}
    # 1, 3 | 5, 7, 9 | 11, 13 | …
    assert [read_counts(stage.folder / f"part-0000{i}.parquet")["odd"] for i in range(3)] == [2, 3, 2]


def test_what_is_finished_is_not_made_again_and_what_is_damaged_is(tmp_path: Path) -> None:
    stage = Squares(tmp_path / "squares")
    run(stage, LocalRunner())
    (stage.folder / "manifest.json").write_text('{"complete": false, "provenance": {"seed": 0}}')
    (stage.folder / "part-00004.parquet").unlink()
    (stage.folder / "part-00002.parquet").write_bytes(b"cut short")
    kept = {i: (stage.folder / f"part-0000{i}.parquet").stat().st_mtime_ns for i in (0, 1, 3, 5)}
    assert run(stage, LocalRunner()) == {"odd": 15}
    assert {i: (stage.folder / f"part-0000{i}.parquet").stat().st_mtime_ns for i in kept} == kept
    assert [row["number"] for row in content(stage.folder)] == list(range(0, 30, 2))


def test_a_finished_stage_asks_no_runner(tmp_path: Path) -> None:
    run(Squares(tmp_path / "squares"), LocalRunner())
    assert run(Squares(tmp_path / "squares", refuses=0), LocalRunner()) == {"odd": 15}


def test_a_folder_made_otherwise_is_refused(tmp_path: Path) -> None:
    run(Squares(tmp_path / "squares"), LocalRunner())
    with pytest.raises(UserError, match=r"squares: was made otherwise \(seed: 0 there, 1 now\)"):
        run(Squares(tmp_path / "squares", seed=1), LocalRunner())


def test_this_process_keeps_its_threads(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run(Squares(tmp_path / "squares"), LocalRunner())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert {row["threads"] for row in content(tmp_path / "squares")} == {1}


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_what_the_user_caused_comes_through_as_it_was_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^shard 2: not this one$"):
        run(Squares(tmp_path / "squares", refuses=2), LocalRunner())
    assert run(Squares(tmp_path / "squares"), LocalRunner()) == {"odd": 15}


def test_a_mistake_of_ours_is_no_user_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        run(Squares(tmp_path / "squares", crashes=2), LocalRunner())


def test_after_a_killed_process_the_same_command_goes_on(tmp_path: Path) -> None:
    stage = Squares(tmp_path / "squares", dies_once_at=3)
    with pytest.raises(UserError, match=r"^Squaring: a worker process died.* run the same command again.*workers$"):
        run(stage, LocalRunner(2))
    assert read_manifest(stage.folder)["complete"] is False
    assert not list(stage.folder.glob(".*.tmp"))
    assert run(stage, LocalRunner(2)) == {"odd": 15}
    assert content(stage.folder) == [{"number": n, "square": n * n, "threads": 1} for n in range(0, 30, 2)]


@pytest.mark.slow  # Ray starts a worker anew after half a minute and more
def test_ray_gives_the_same_rows_though_a_worker_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    refusing, dying = Squares(tmp_path / "refusing", refuses=5), Squares(tmp_path / "squares", dies_once_at=3)
    runner = RayRunner(workers=2)
    with runner.opened():  # one start of Ray for all that is tried here
        with pytest.raises(UserError, match=r"^shard 5: not this one$"):
            run(refusing, RayRunner(workers=1))
        assert run(dying, runner) == {"odd": 15}
    assert (tmp_path / "died").exists() and not list(dying.folder.glob(".tries-*"))
    assert content(dying.folder) == [{"number": n, "square": n * n, "threads": 1} for n in range(0, 30, 2)]


def test_without_ray_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'lit-pref\[ray\]'"):
        run(Squares(tmp_path / "squares"), RayRunner())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LocalRunner(0), "workers must be >= 1, got 0"),
        (lambda: RayRunner(workers=-1), "workers must be >= 1, got -1"),
        (lambda: RayRunner(gpus=-0.5), "gpus must be >= 0, got -0.5"),
    ],
)
def test_settings_out_of_range(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
