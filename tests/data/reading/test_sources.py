import gzip
import json
import tracemalloc

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lit_pref.data.reading.sources import Row, SkippedRows, read_rows
from lit_pref.errors import UserError
from lit_pref.storage.shards import ShardWriter

ROWS = [{"prompt": "a", "chosen": "ä, b", "rejected": "c\nd"}, {"prompt": "e", "chosen": "f", "rejected": "g"}]


@pytest.fixture(autouse=True)
def quiet_private_cache(tmp_path_factory, monkeypatch):
    """`datasets` keeps what it has read; not in the user's cache folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def json_lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def values(source, split="train"):
    return [row.values for row in read_rows(source if isinstance(source, list) else str(source), split)]


# --- kinds of files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.ndjson", "pairs.json"])
def test_json_lines(tmp_path, name):
    path = tmp_path / name
    path.write_text("\ufeff" + json_lines(ROWS[:1]) + "\n" + json_lines(ROWS[1:]), encoding="utf-8")
    # The blank second line counts as a line, not as a row; the byte order mark is none of the key.
    assert list(read_rows(str(path))) == [Row(f"{path}:1", ROWS[0]), Row(f"{path}:3", ROWS[1])]


def test_json_object_over_several_lines(tmp_path):
    (tmp_path / "a.json").write_text('{\n  "x": 1\n}\n')
    (row,) = read_rows(tmp_path / "a.json")
    assert (row.location, row.values) == (f"{tmp_path}/a.json", {"x": 1})
    (tmp_path / "a.json").write_text('{\n  "x": 1\n')
    with pytest.raises(UserError, match=r"a\.json:3: broken JSON"):
        list(read_rows(tmp_path / "a.json"))


def test_json_list(tmp_path):
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(ROWS, indent=2))
    assert list(read_rows(str(path))) == [Row(f"{path} row 1", ROWS[0]), Row(f"{path} row 2", ROWS[1])]


def test_csv_names_the_line_where_a_row_begins(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text('\ufeffprompt,chosen,rejected\na,"ä, b","c\nd"\n\ne,f,g\n', encoding="utf-8")
    # Line 1 is the header; the first row takes lines 2 and 3; line 4 is blank.
    assert list(read_rows(str(path))) == [Row(f"{path}:2", ROWS[0]), Row(f"{path}:5", ROWS[1])]


def test_csv_cells_may_be_long(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("text\n" + "x" * 200_000 + "\n")
    assert values(path) == [{"text": "x" * 200_000}]


def test_parquet(tmp_path):
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist([{"turns": [{"role": "user"}], "ids": [1, i]} for i in range(600)]), path)
    rows = list(read_rows(str(path)))
    assert len(rows) == 600
    assert rows[599] == Row(f"{path} row 600", {"turns": [{"role": "user"}], "ids": [1, 599]})


@pytest.mark.parametrize("name", ["pairs.jsonl.gz", "pairs.json.gz", "pairs.jsonl.zst", "pairs.json.zst"])
def test_compressed(tmp_path, name):
    path = tmp_path / name
    text = json_lines(ROWS).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else pa.compress(text, "zstd", asbytes=True))
    assert list(read_rows(str(path)))[1] == Row(f"{path}:2", ROWS[1])
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match=rf"{name}: cannot be read"):
        values(path)


def test_globs_are_sorted_and_sources_keep_their_order(tmp_path):
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.jsonl").write_text(json_lines([{"name": name}]))
    assert values(tmp_path / "*.jsonl") == [{"name": "a"}, {"name": "b"}, {"name": "c"}]
    assert values([tmp_path / "c.jsonl", f"{tmp_path}/[ab].jsonl"]) == [{"name": "c"}, {"name": "a"}, {"name": "b"}]


def test_a_relative_name_is_read_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "pairs.jsonl").write_text(json_lines(ROWS))
    monkeypatch.chdir(tmp_path)
    assert next(read_rows("*.jsonl")).location == "pairs.jsonl:1"


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path, kind):
    path = tmp_path / f"rows.{kind}"
    text = "x" * 10_000
    if kind == "parquet":
        pq.write_table(pa.table({"text": [text + str(i) for i in range(2000)]}), path)
    else:
        line = json_lines([{"text": text}]) if kind == "jsonl" else text + "\n"
        path.write_text(("" if kind == "jsonl" else "text\n") + line * 2000)
    tracemalloc.start()
    assert sum(1 for _ in read_rows(str(path))) == 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 2,000 rows of 10 kB are 20 MB; a batch of 256 rows is 2.6 MB, held once as it is left and once as it comes.
    assert peak < 8e6


# --- what cannot be read ----------------------------------------------------------------------------------------------


def test_a_missing_file_names_its_neighbours(tmp_path):
    (tmp_path / "pairs_train.jsonl").write_text("{}")
    with pytest.raises(
        UserError, match=r"pairs_trian.jsonl: no such file or folder; did you mean .*pairs_train.jsonl\?"
    ):
        read_rows(str(tmp_path / "pairs_trian.jsonl"))
    with pytest.raises(UserError, match=r"zzz.csv: no such file.* holds pairs_train.jsonl"):
        read_rows(str(tmp_path / "zzz.csv"))
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        read_rows(str(tmp_path / "nowhere" / "a.jsonl"))
    with pytest.raises(UserError, match=r"data/pairs.jsonl: no such file"):  # not taken for a hub id
        read_rows("data/pairs.jsonl")


def test_a_missing_file_is_told_before_the_first_is_read(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}")
    with pytest.raises(UserError, match=r"b.jsonl: no such file"):
        read_rows([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")])
    with pytest.raises(UserError, match=r"no data source given"):
        read_rows([])


def test_a_glob_without_a_match(tmp_path):
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(UserError, match=r"\*.jsonl: no file matches this pattern; .* holds a.csv"):
        read_rows(str(tmp_path / "*.jsonl"))


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", ""), ("a.jsonl", "\n\n"), ("a.json", ""), ("a.json", "[]"), ("a.csv", "x,y\n")]
)
def test_an_empty_file(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=f"{name}: holds no row: expected at least one"):
        values(tmp_path / name)


def test_an_empty_parquet_file_and_a_broken_one(tmp_path):
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a.parquet: holds no row"):
        values(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_text("{}")
    with pytest.raises(UserError, match=r"b.parquet: cannot be read as .parquet"):
        values(tmp_path / "b.parquet")


def test_an_unknown_suffix(tmp_path):
    (tmp_path / "a.xlsx").write_text("x")
    with pytest.raises(UserError, match=r"a.xlsx: unknown file type '.xlsx': expected one of .jsonl, .*.parquet"):
        values(tmp_path / "a.xlsx")


def test_broken_json_names_line_and_column(tmp_path):
    # Six good lines; in line 7 a comma is missing before column 11.
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"a": "b"}\n' * 6 + '{"a": "b" "c": 1}\n')
    rows = read_rows(str(path))
    assert len([next(rows) for _ in range(6)]) == 6
    with pytest.raises(UserError, match=r"pairs.jsonl:7: broken JSON at column 11: Expecting ',' delimiter.*one whole"):
        next(rows)


def test_broken_json_list_names_line_and_column(tmp_path):
    (tmp_path / "a.json").write_text('[\n{"a": 1},\n{"a": }\n]')
    with pytest.raises(UserError, match=r"a.json:3: broken JSON at column 7: Expecting value"):
        values(tmp_path / "a.json")
    (tmp_path / "b.json").write_text('"text"')
    with pytest.raises(UserError, match=r"b.json: expected a list of rows, .* got str"):
        values(tmp_path / "b.json")


BAD_LINES = {
    b'{"a": 1': "broken JSON",
    b"[1, 2]": "not an object",
    b'"text"': "not an object",
    b'{"a": "\xe4"}': "not UTF-8",
    b"[" * 100_000: "broken JSON",
    b'{"a": ' + b"1" * 5000 + b"}": "broken JSON",
}


@pytest.mark.parametrize(("line", "reason"), BAD_LINES.items(), ids=range(len(BAD_LINES)))
def test_a_bad_line_stops_or_is_counted(tmp_path, line, reason):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 0}\n' + line + b'\n{"a": 2}\n')
    with pytest.raises(UserError, match=r"a.jsonl:2: "):
        values(path)
    skipped = SkippedRows()
    assert [row.values["a"] for row in read_rows(str(path), on_bad_row="skip", skipped=skipped)] == [0, 2]
    assert skipped.counts == {reason: 1}
    assert skipped.messages[0].startswith(f"{path}:2: ")


def test_bad_csv_rows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\n1,2\n3\n4,\xe4\n5,6,7\n8,9\n")
    with pytest.raises(UserError, match=r"a.csv:3: expected 2 cells \(a, b\), got 1"):
        values(path)
    skipped = SkippedRows()
    kept = [row.values["a"] for row in read_rows(str(path), on_bad_row="skip", skipped=skipped)]
    assert kept == ["1", "8"] and skipped.counts == {"wrong number of cells": 2, "not UTF-8": 1}
    (tmp_path / "b.csv").write_text("a,a\n1,2\n")
    with pytest.raises(UserError, match=r"b.csv:1: column names must differ, got a, a"):
        values(tmp_path / "b.csv")
    (tmp_path / "c.csv").write_text('a,b\n1,"2\n')
    with pytest.raises(UserError, match=r"c.csv:2: broken CSV"):
        values(tmp_path / "c.csv")


def test_skipped_rows_are_all_counted_and_the_first_kept(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("{\n" * 5 + "{}\n")
    skipped = SkippedRows(keep=2)
    assert len(list(read_rows(str(path), on_bad_row="skip", skipped=skipped))) == 1
    record = skipped.to_json()
    assert record["total"] == 5 and record["counts"] == {"broken JSON": 5} and len(record["first_messages"]) == 2


def test_skipping_needs_a_counter_and_a_known_word(tmp_path):
    (tmp_path / "a.jsonl").write_text("{\n")
    with pytest.raises(ValueError, match=r"needs a SkippedRows"):
        list(read_rows(str(tmp_path / "a.jsonl"), on_bad_row="skip"))
    with pytest.raises(ValueError, match=r"got 'ignore'"):
        read_rows(str(tmp_path / "a.jsonl"), on_bad_row="ignore")


# --- folders and the hub ----------------------------------------------------------------------------------------------


def test_a_saved_data_set(tmp_path):
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(str(tmp_path / "one"))
    assert list(read_rows(str(tmp_path / "one")))[1] == Row(f"{tmp_path / 'one'} row 2", ROWS[1])
    datasets.DatasetDict(test=data).save_to_disk(str(tmp_path / "splits"))
    assert values(tmp_path / "splits", "test") == ROWS
    with pytest.raises(UserError, match='splits: has no split "train": expected one of test'):
        values(tmp_path / "splits", "train")


def test_a_folder_of_data_files(tmp_path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    (folder / "train.jsonl").write_text(json_lines(ROWS))
    assert values(folder) == ROWS
    assert list(read_rows(str(folder)))[1].location == f"{folder / 'train.jsonl'}:2"
    with pytest.raises(UserError, match='pairs: has no split "test": expected one of train, or a slice'):
        values(folder, "test")


CELLS = ["null", "N/A", "NaN", "None", "NA", "", "#N/A", "-inf", "007", "1e3", "true", " x "]


def test_a_cell_means_the_same_by_its_files_name_and_through_its_folder(tmp_path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    (folder / "train.csv").write_text("prompt,chosen\n" + "".join(f"q,{cell}\n" for cell in CELLS))
    assert [row["chosen"] for row in values(folder)] == CELLS
    assert values(folder) == values(folder / "train.csv")


@pytest.mark.parametrize("kind", ["file", "folder", "saved", "saved splits"])
def test_slices_are_those_of_datasets(tmp_path, kind):
    rows = [{"n": n} for n in range(40)]
    source = tmp_path / ("rows.jsonl" if kind == "file" else "rows")
    if kind == "file":
        source.write_text(json_lines(rows))
    elif kind == "folder":
        source.mkdir()
        (source / "train-00000.jsonl").write_text(json_lines(rows[:15]))
        (source / "train-00001.jsonl").write_text(json_lines(rows[15:]))
        (source / "test.jsonl").write_text(json_lines([{"n": 99}]))
    elif kind == "saved":
        datasets.Dataset.from_list(rows).save_to_disk(str(source))
    else:
        datasets.DatasetDict(train=datasets.Dataset.from_list(rows)).save_to_disk(str(source))

    def numbers(split):
        return [row["n"] for row in values(source, split)]

    assert numbers("train[:10%]") == [0, 1, 2, 3]
    assert numbers("train[37:]+train[:2]") == [37, 38, 39, 0, 1]
    assert next(iter(read_rows(str(source), "train[-1:]"))).values == {"n": 39}
    assert len(numbers("train")) == 40
    with pytest.raises(UserError, match=r'cannot take the slice "train\[:x\]".*as in train\[:10%\]'):
        numbers("train[:x]")
    with pytest.raises(UserError, match=r"rows.*: .*holds no row"):
        numbers("train[:0]")
    with pytest.raises(UserError, match=r'rows.*: has no split "train_prefs": expected one of train.*splits.train'):
        numbers("train_prefs")


def test_a_slice_names_the_line_of_a_bad_row(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"n": 0}\n{"n":\n{"n": 2}\n')
    with pytest.raises(UserError, match=r"rows.jsonl:2: broken JSON"):
        values(tmp_path / "rows.jsonl", "train[1:]")
    assert values(tmp_path / "rows.jsonl", "train[2:]") == [{"n": 2}]  # what is not asked for stops nothing


def test_a_folder_in_which_split_names_are_of_its_own(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train_prefs", "test_prefs"):
        table = pa.Table.from_pylist([{"name": name}])
        pq.write_table(table, folder / f"{name}-00000-of-00001.parquet")
    assert values(tmp_path, "test_prefs") == [{"name": "test_prefs"}]
    with pytest.raises(UserError, match=r'has no split "train": expected one of .*train_prefs'):
        values(tmp_path)


def test_a_folder_that_cannot_be_loaded(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"none: the datasets library cannot load it"):
        values(tmp_path / "none")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "train.jsonl").write_text('{"a": 1}\n{"a":\n')
    with pytest.raises(UserError, match=r"broken/train.jsonl:2: broken JSON"):
        values(broken)


def test_a_folder_of_shards_is_read_once_it_is_complete(tmp_path):
    writer = ShardWriter(tmp_path / "work", {"seed": 1}, pa.schema([("prompt", pa.string())]))
    for index in (1, 0):
        writer.write(index, [{"prompt": f"shard {index}"}])
    with pytest.raises(UserError, match=r"work: .* was not finished"):
        values(tmp_path / "work")
    writer.finish(2)
    assert values(tmp_path / "work") == [{"prompt": "shard 0"}, {"prompt": "shard 1"}]


def test_a_hub_id(monkeypatch):
    asked = []

    def load_dataset(name, config, split):
        asked.append((name, config, split))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert list(read_rows("owner/name", "test"))[1] == Row("owner/name[test] row 2", ROWS[1])
    assert len(values("owner/name:main")) == 2
    assert asked == [("owner/name", None, "test"), ("owner/name", "main", "train")]


def test_a_hub_that_cannot_be_reached(monkeypatch):
    def load_dataset(name, config, split):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        UserError, match=r"owner/name: .*Couldn't reach the Hub; there is no such file or folder either"
    ):
        values("owner/name")
