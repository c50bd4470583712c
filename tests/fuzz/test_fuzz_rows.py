"""Malformed rows of every format and file type: read right, or refused by file and line; never a traceback.

What is right is stated here anew, without the reader's code: a record holds all that its row says, but for columns that
are told not to be used, and nothing else; its tokens decode to its text. A row that is as it should be must be read.
"""

import csv
import gzip
import io
import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lit_pref.data.formats.pairs import read_demonstrations, to_pair
from lit_pref.data.formats.records import iterate_records
from lit_pref.data.reading.rows import SkippedRows
from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.data.tokens.tokenize import tokenize
from lit_pref.errors import UserError
from lit_pref.types import Demonstration, PreferencePair

ROUNDS = int(os.environ.get("LIT_PREF_FUZZ", "1"))
ROWS_A_FILE = 10
KINDS = ["jsonl", "json", "csv", "parquet", "jsonl.gz", "jsonl.zst", "json.gz"]

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = [
    CHAT,
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHAT,
    CHAT.replace("in messages %}", "in messages if m['role'] != 'tool' %}"),
]


def tokenizer_with(template: str) -> PreTrainedTokenizerFast:
    special = ["<s>", "</s>", "<|im_start|>"]
    vocabulary = {token: index for index, token in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.add_special_tokens(special)
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", chat_template=template)


def says(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


Q, A, B = says("user", "a question"), says("assistant", "good"), says("assistant", "bad")
SHAREGPT = [{"from": "human", "value": "a question"}, {"from": "gpt", "value": "so"}, {"from": "human", "value": "and"}]
PAIRS: list[dict[str, Any]] = [
    {"prompt": "a question", "chosen": "good", "rejected": "bad", "margin": 2},
    {"prompt": [Q], "chosen": [A], "rejected": [B]},
    {"prompt": [says("system", "be brief"), Q], "chosen": [A], "rejected": [B]},
    {"chosen": [Q, A], "rejected": [Q, B], "score_chosen": 2.5, "score_rejected": 1},
    {"prompt": "a question", "chosen": [Q, A], "rejected": [Q, B], "source": "web"},
    {"chosen": "one two three", "rejected": "one two four"},
    {"chosen": "\n\nHuman: a\n\nAssistant: b c", "rejected": "\n\nHuman: a\n\nAssistant: b d"},
    {"instruction": "do", "input": "this", "chosen": "good", "rejected": "bad", "system": "be brief"},
    {
        "conversations": SHAREGPT,
        "chosen": {"from": "gpt", "value": "good"},
        "rejected": {"from": "gpt", "value": "bad"},
    },
    {"query": "a question", "better": "good", "worse": "bad", "history": [["before", "then"]]},
    {"question": "a question", "system": "be brief", "chosen": "good", "rejected": "bad", "id": 7},
    {"prompt": "a question", "chosen": "good", "rejected": "bad", "chosen_ids": [5, 6], "rejected_ids": [7]},
    {"prompt": [says("user", [{"type": "text", "text": "in parts"}])], "chosen": [A], "rejected": [B]},
    {"prompt": [Q, says("assistant", "begun")], "chosen": [A], "rejected": [B]},
]
DEMONSTRATIONS: list[dict[str, Any]] = [
    {"prompt": "a question", "completion": "good"},
    {"prompt": [Q], "completion": [A]},
    {"messages": [says("system", "be brief"), Q, A]},
    {"conversations": SHAREGPT[:2], "system": "be brief"},
    {"instruction": "do", "input": "this", "output": "good"},
    {"prompt": "a question", "response": "good", "history": [["before", "then"]], "completion_ids": [9]},
]
LABELS = {"id", "source", "score_chosen", "score_rejected"}  # that these are not used needs no word
IDS = {"chosen_ids", "rejected_ids", "completion_ids"}


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


JUNK: list[Any] = [
    *(None, True, False, 0, -1, 2**31, 2**63, 2**80, 10**400, 1.5, float("nan"), float("inf"), -1e39, 1e-400),
    *(
        "",
        " ",
        "\n\t",
        "\0",
        "a\0b",
        "\ud800",
        "x\udfff",
        "\ufeff",
        "null",
        "N/A",
        "NaN",
        "1e3",
        "ä\u2028ö",
        "🙂",
        "x" * 4000,
    ),
    *([], [[]], {}, [None], [1, 2], ["a"], [-1], [2**70], {"a": 1}, [{}], [[Q]], nested(50), nested(700)),
    *([says("alien", "x")], [says("User", "x")], [says("tool", "x")], [says("user", None)], [says("user", 3)]),
    *([{"role": "user"}], [{"content": "x"}], [{"from": "human", "value": 3}], [{"from": "human", "value": "x"}]),
    *([Q], [A], Q, A, [A, A], [Q, A], [A, Q], [says("assistant", "")], [says("assistant", " ")], [says("system", "x")]),
    *([says("user", [])], [says("user", [{"type": "image", "url": "x"}])], [says("user", [{"type": "text"}])]),
    *([says("user", [{"text": "a"}, "b"])], [{**A, "tool_calls": [{"name": "f"}]}], [{**A, "reasoning": "deep"}]),
    *([["a", "b"]], [["a"]], [["a", None]], [["a", "b"], ["c", "d"]], "good", "bad", "a question", ["good", "bad"]),
]
COLUMNS = ["prompt", "chosen", "rejected", "system", "history", "margin", "messages", "conversations", "input", "tools"]
COLUMNS += ["instruction", "chosen_ids", "rejected_ids", "completion", "text", "context", "\ud800", "a\nb", "", "id"]


WORDS = ["User", "HUMAN", "gpt", "tool", "tool", "function", "system", "alien", "narrator", "", " user ", "assistant\n"]


def value_turns(value: Any) -> list[dict[str, Any]]:
    return [turn for turn in (value if isinstance(value, list) else [value]) if isinstance(turn, dict)]


def mutated(row: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """One to three changes: other values anywhere, columns that go, come, or are called otherwise."""
    row = json.loads(json.dumps(row))
    junk = json.loads(json.dumps(chance.sample(JUNK, 3)))  # copies, as rows are changed in place
    for _ in range(chance.randint(1, 3)):
        keys = list(row) or ["prompt"]
        key, way = chance.choice(keys), chance.randrange(7)
        if way == 0:
            row.pop(key, None)
        elif way == 1:
            row[chance.choice(COLUMNS)] = row.pop(key, None)
        elif way == 2:
            row[chance.choice(COLUMNS)] = junk.pop()
        elif way == 3 and isinstance(row.get(key), list) and row[key]:
            place = chance.randrange(len(row[key]))
            inner = row[key][place]
            if isinstance(inner, dict) and inner and chance.random() < 0.7:
                inner[chance.choice([*inner, "name"])] = junk.pop()
            else:
                row[key].insert(place, junk.pop())
        elif way == 6 and (turns := [turn for value in row.values() for turn in value_turns(value)]):
            turn = chance.choice(turns)
            turn["from" if "from" in turn else "role"] = chance.choice(WORDS)
        elif way == 4 and len(keys) > 1:
            row[key] = json.loads(json.dumps(row.get(chance.choice(keys))))
        else:
            row[key] = junk.pop()
    return row


# --- files ------------------------------------------------------------------------------------------------------------


def written(path: Path, kind: str, rows: list[Any], chance: random.Random) -> list[Any]:
    """Write rows as a file of a kind; the rows as one who reads the file by its own rules has them."""
    if kind == "csv":
        names = list(dict.fromkeys(name.encode("utf-8", "replace").decode() for row in rows for name in row))
        cells = [{k.encode("utf-8", "replace").decode(): _cell(v) for k, v in row.items()} for row in rows]
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, names, restval="", lineterminator=chance.choice(["\n", "\r\n"]))
        writer.writeheader()
        writer.writerows(cells)
        path.write_text(chance.choice(["", "\ufeff"]) + stream.getvalue(), encoding="utf-8", newline="")
        # A line without a comma and without anything in it is no row.
        return [{name: row.get(name, "") for name in names} for row in cells if len(names) > 1 or any(row.values())]
    if kind == "parquet":
        table = pa.Table.from_pylist(rows)
        pq.write_table(table, path)
        return table.to_pylist()
    if kind.startswith("json."[:4] + ".") or kind == "json":
        text = json.dumps(rows, indent=chance.choice([None, 1]))
    else:
        text = chance.choice(["\n", "\r\n", "\n\n"]).join(json.dumps(row) for row in rows)
    data = chance.choice(["", "\ufeff"]).encode() + text.encode()
    packed = {".gz": gzip.compress, ".zst": lambda raw: pa.compress(raw, "zstd", asbytes=True)}
    path.write_bytes(packed.get(path.suffix, bytes)(data))
    return rows


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
    return text.encode("utf-8", "replace").decode()


# --- what is acceptable -----------------------------------------------------------------------------------------------


def leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """All that a row says, each with the column that it stands in; roles and kinds of parts say nothing."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in ("role", "from", "type"):
                yield from leaves(inner, f"{place}.{key}" if key not in ("content", "value", "text") else place)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, place)
    elif value is not None:
        yield place, value


ROLES = {"user": "user human", "assistant": "assistant gpt", "system": "system", "tool": "tool function"}


def check_roles(record: PreferencePair | Demonstration, row: dict[str, Any]) -> None:
    """Each turn of the record has the role that the row gives to what it says, or none is given."""

    def given(value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict) and ("role" in value or "from" in value):
            yield str(value.get("from", value.get("role"))).strip().lower(), value.get("value", value.get("content"))
        elif isinstance(value, list):
            for inner in value:
                yield from given(inner)
        else:  # a text without a role may get any
            yield from ((role, value) for role in ROLES)

    stated = [pair for value in row.values() for pair in given(value)]
    texts = [record.prompt, *((record.chosen, record.rejected) if isinstance(record, PreferencePair) else ())]
    for turn in (turn for text in texts if not isinstance(text, str) for turn in text):
        roles = {role for role, said in stated if isinstance(said, str) and said == turn["content"]}
        assert not roles or roles & set(ROLES[turn["role"]].split()), f"{turn} has the role of none of {roles}"


def contents(text: Any) -> list[str]:
    return [text] if isinstance(text, str) else [turn["content"] for turn in text]


def check_record(record: PreferencePair | Demonstration, row: dict[str, Any], unused: set[str]) -> None:
    """Raises AssertionError where the record is not what the row says."""
    sides = [record.chosen, record.rejected] if isinstance(record, PreferencePair) else [record.completion]
    whole = "\n".join(each for text in (record.prompt, *sides) for each in contents(text))
    whole += "".join(f"\n{record.prompt}{side}" for side in sides if isinstance(side, str))
    labels = LABELS | {name for name in IDS if not hasattr(record, name)}
    said = [(place, leaf) for key, value in row.items() if key not in labels for place, leaf in leaves(value, key)]
    numbers = []
    for place, leaf in said:
        if any(f"{place}.".startswith(f"{name}.") for name in unused):
            continue
        if isinstance(leaf, str) and (place != "margin" or isinstance(record, Demonstration)):
            assert leaf.strip() in whole, f"{place} is silently dropped: {leaf[:60]!r}"
        else:
            numbers.append((place, leaf))
    ids = [token for name in IDS for token in getattr(record, name, None) or ()]
    for place, leaf in numbers:
        margin = getattr(record, "margin", None)
        stated = margin == leaf or (place == "margin" and (leaf == "" or margin == float(leaf)))
        assert leaf in ids or stated, f"{place} is silently dropped: {leaf!r}"
    strings = "\n".join(leaf for _, leaf in said if isinstance(leaf, str))
    for text in (record.prompt, *sides):
        for each in contents(text):
            # Instruction and input are joined by a line break, parts by nothing, a text is cut from a longer one.
            parts = [row.get("instruction"), row.get("input")] if each not in strings else []
            assert each in strings or each == "\n".join(map(str, parts)) or all(c in strings for c in each), each
    if isinstance(record, PreferencePair):
        assert record.chosen != record.rejected
    for name, side in zip(("chosen_ids", "rejected_ids"), sides, strict=False):
        assert getattr(record, name, None) or getattr(record, "completion_ids", None) or contents(side)[-1].strip()


def check_tokens(record: Any, tokenizer: PreTrainedTokenizerFast, limits: LengthLimits) -> str | None:
    """Tokens of a record decode to its text; the reason where it was skipped, "dropped" where it is too long."""
    skipped = SkippedRows()
    trees = tokenize([record], tokenizer, limits, on_bad_row="skip", skipped=skipped).trees
    if not trees:
        assert all(message.startswith(record.location) for message in skipped.messages)
        return next(iter(skipped.counts), "dropped")
    (tree,) = trees
    assert tree.shared_length <= 2 * (limits.max_length or 0)
    assert all(0 <= token < len(tokenizer) for ids in (tree.prompt_ids, *tree.completion_ids) for token in ids)
    prompt = tokenizer.decode(tree.prompt_ids)
    assert all(each in prompt for each in contents(record.prompt)), "the prompt's tokens leave something out"
    sides = [record.chosen, record.rejected] if isinstance(record, PreferencePair) else [record.completion]
    sampled = [getattr(record, name, None) for name in ("chosen_ids", "rejected_ids", "completion_ids")]
    if not any(sampled):
        for side, ids in zip(sides, tree.completion_ids, strict=True):
            text = tokenizer.decode(ids)
            assert all(each in text for each in contents(side)), "a response's tokens leave something out"
            assert ids[-1] == tokenizer.eos_token_id and ids[-2] != tokenizer.eos_token_id
    return None


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_read_right_or_refused_by_file_and_line(kind: str, tmp_path: Path):
    files = ROUNDS * 1000 // ROWS_A_FILE // len(KINDS) + 1
    tokenizers, limits = [tokenizer_with(template) for template in TEMPLATES], LengthLimits(max_length=3000)
    for number in range(files):
        chance = random.Random(f"{kind} {number}")
        pairs = chance.random() < 0.7
        good = chance.choice(PAIRS if pairs else DEMONSTRATIONS)
        rows = [mutated(chance.choice(PAIRS if pairs else DEMONSTRATIONS), chance) for _ in range(ROWS_A_FILE - 1)]
        rows.insert(chance.randrange(ROWS_A_FILE), good)
        path = tmp_path / f"rows{number}.{kind}"
        try:
            there = written(path, kind, rows, chance)
        except (pa.ArrowException, OverflowError, UnicodeError, RecursionError, ValueError):
            continue  # what such a file cannot hold
        try:
            check_file(path, there, good, pairs, tokenizers[number % len(tokenizers)], limits)
        except BaseException:
            print(f"random.Random({f'{kind} {number}'!r}), written as {kind}:\n{path.read_bytes()[:4000]!r}")
            raise
        path.unlink()


def check_file(
    path: Path, there: list[Any], good: Any, pairs: bool, tokenizer: PreTrainedTokenizerFast, limits: LengthLimits
) -> None:
    skipped, records = SkippedRows(), list[Any]()
    try:
        if pairs:
            records = list(iterate_records(to_pair, str(path), "train", None, "skip", skipped))
        else:
            read = read_demonstrations(str(path), "train", None, "skip")
            records, skipped = read.records, read.skipped
    except UserError as error:  # of the file as a whole: a JSON list that is broken somewhere, a column twice, no row
        assert str(path) in str(error) and len(str(error)) < 1000
        assert "no usable row" in str(error) or path.suffix in (".json", ".csv", ".parquet") or ".json.gz" in path.name
        return
    assert all(message.startswith(str(path)) and message.isprintable() for message in skipped.messages)
    assert len(records) + skipped.counts.total() == len(there), "a row is neither read nor counted"
    by_place = dict(zip(places(path, there), there, strict=True))
    unused = set(skipped.columns)
    for record in records:
        row = by_place[record.location]
        try:
            check_record(record, row, unused)
            check_roles(record, row)
            outcome = check_tokens(record, tokenizer, limits)
        except BaseException:
            print(f"the row {str(row)[:2000]}\ngave {str(record)[:2000]}\nnot used: {unused}")
            raise
        if row == good and not any(turn in str(row) for turn in ("'system'", "'tool'")) and path.suffix != ".csv":
            assert outcome is None, outcome
    if ".json" in path.name:
        assert any(by_place[record.location] == good for record in records), "a good row is refused"


def places(path: Path, rows: list[Any]) -> list[str]:
    """Where each row stands."""
    if path.suffix == ".parquet" or ".json" in path.suffixes:
        return [f"{path} row {number}" for number in range(1, len(rows) + 1)]
    opened = {".gz": gzip.open, ".zst": lambda name: pa.input_stream(str(name), compression="zstd")}
    with opened.get(path.suffix, lambda name: name.open("rb"))(path) as stream:
        text = stream.read().decode("utf-8-sig")
    if path.suffix != ".csv":
        return [f"{path}:{number}" for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    reader, found = csv.reader(io.StringIO(text, newline="")), list[str]()
    next(reader)
    start = reader.line_num + 1
    for cells in reader:
        if cells:
            found.append(f"{path}:{start}")
        start = reader.line_num + 1
    return found


# --- bytes that are not what they should be ---------------------------------------------------------------------------


def damaged(data: bytes, chance: random.Random) -> bytes:
    way, place = chance.randrange(8), chance.randrange(len(data))
    if way == 0:
        return data[:place]
    if way == 1:
        return data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :]
    if way == 2:
        return data[:place] + bytes(chance.randrange(1, 40)) + data[place:]
    if way == 3:
        return data.decode().encode(chance.choice(["utf-16", "utf-16-le", "utf-32", "cp037"]), "replace")
    if way == 4:
        return data[:place] + data[place + chance.randrange(1, 40) :]
    if way == 5:
        return data.replace(b"\n", chance.choice([b"\r", b"\x0b", b""]))
    if way == 6:
        return data[:place] + data[:place] + data[place:]
    return chance.randbytes(chance.randrange(1, 200))


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet", "jsonl.gz", "jsonl.zst"])
def test_damaged_files_are_refused_or_give_only_what_stands_there(kind: str, tmp_path: Path):
    for number in range(ROUNDS * 12):
        chance = random.Random(f"damaged {kind} {number}")
        path = tmp_path / f"rows.{kind}"
        rows = [{key: f"{key} {i} ü" for key in ("prompt", "chosen", "rejected")} for i in range(ROWS_A_FILE)]
        written(path, kind, rows, chance)
        whole = path.read_bytes()
        if kind in ("parquet", "jsonl.gz", "jsonl.zst"):  # only their ends: a changed byte within cannot be seen in all
            data = whole[: chance.randrange(len(whole))] if chance.random() < 0.8 else chance.randbytes(50)
        else:
            data = damaged(whole, chance)
        path.write_bytes(data)
        try:
            skipped = SkippedRows()
            records = list(iterate_records(to_pair, str(path), "train", None, "skip", skipped))
        except UserError as error:
            assert str(path) in str(error)
            continue
        except BaseException:
            print(f"random.Random('damaged {kind} {number}'): {data!r}")
            raise
        for record in records:
            for text in (record.prompt, record.chosen, record.rejected):
                there = data.decode("utf-8", "replace").replace('""', '"')
                there = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), there)
                assert text in there, f"random.Random('damaged {kind} {number}'): {text!r}"


@pytest.mark.parametrize(
    "line",
    [
        '{"prompt": "q", "chosen": "a", "rejected": "b", "chosen": "c"}',
        '{"prompt": [{"role": "user", "role": "system", "content": "q"}], "chosen": "a", "rejected": "b"}',
        '["prompt", "chosen"]',
        '"text"',
        "3",
        "null",
        "NaN",
        "[" * 2000,
        '{"prompt": "q", "chosen": ' + "9" * 5000 + ', "rejected": "b"}',
        '{"prompt": "q", "chosen": "a"',
        '\ufeff{"prompt": "q", "chosen": "a", "rejected": "b"}',
        '{"prompt": "q", "chosen": "a\\ud83d", "rejected": "b"}',
        '{"prompt": "q", "chosen": "a\t", "rejected": "b"}',
    ],
)
def test_a_line_that_is_no_row_is_named(line: str, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    good = json.dumps(PAIRS[0])
    path.write_text(f"{good}\n{line}\n{good}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"rows.jsonl:2: "):
        list(iterate_records(to_pair, str(path), "train", None, "error", SkippedRows()))
    skipped = SkippedRows()
    assert len(list(iterate_records(to_pair, str(path), "train", None, "skip", skipped))) == 2
    assert skipped.counts.total() == 1 and skipped.messages[0].startswith(f"{path}:2: ")
