import json

import pytest

from lit_pref.data.reading.sample_files import Samples, read_samples, write_samples
from lit_pref.errors import UserError
from lit_pref.types import Completion, Outcome, Problem, Verdict

PROBLEMS = [Problem(name, "def f():\n", "") for name in ("T/0", "T/1")]


def completion(text, finished=True):
    return Completion(text, (), (), finished)


def file_of(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_samples_go_to_their_problems_in_the_order_of_the_file(tmp_path):
    rows = [
        {"task_id": "T/1", "completion": "a"},
        {"task_id": "T/0", "completion": "b"},
        {"task_id": "T/1", "solution": "c", "more": 1},
        {"task_id": "T/1", "completion": ""},
    ]
    read = read_samples(file_of(tmp_path / "s.jsonl", *rows), PROBLEMS)
    assert [[each.text for each in several] for several in read.completions] == [["b"], ["a", "c", ""]]
    assert not read.ends_known


def test_names_that_are_numbers(tmp_path):
    path = file_of(tmp_path / "s.jsonl", {"task_id": 11, "completion": "a"})
    assert read_samples(path, [Problem("11", "", "")]).completions == [[completion("a")]]


def test_names_by_their_number_and_by_place(tmp_path):
    rows = [{"task_id": name, "completion": str(name)} for name in (3, "Mbpp/3", "Other/4", "4")]
    for names in (["Mbpp/3", "Mbpp/4"], ["3", "4"]):
        read = read_samples(file_of(tmp_path / "s.jsonl", *rows), [Problem(name, "", "") for name in names])
        assert [[each.text for each in several] for several in read.completions] == [["3", "Mbpp/3"], ["Other/4", "4"]]
    hashed = [Problem(name, "", "", aliases=aliases) for name, aliases in (("a1", ("0", "2")), ("b2", ("1",)))]
    rows = [{"task_id": name, "completion": str(name)} for name in (2, 1, 0, "b2")]
    read = read_samples(file_of(tmp_path / "s.jsonl", *rows), hashed)
    assert [[each.text for each in several] for several in read.completions] == [["2", "0"], ["1", "b2"]]
    with pytest.raises(UserError, match=r":1: .*no problem '7': expected one of 2, such as 'a1', or its place.*as '0'"):
        read_samples(file_of(tmp_path / "s.jsonl", {"task_id": 7, "completion": ""}), hashed)


def test_a_number_that_two_problems_end_in_means_none(tmp_path):
    problems = [Problem(name, "", "") for name in ("A/1", "B/1")]
    with pytest.raises(UserError, match=r":1: there is no problem '1'"):
        read_samples(file_of(tmp_path / "s.jsonl", {"task_id": 1, "completion": ""}), problems)


@pytest.mark.parametrize("ends_known", [True, False])
def test_what_is_written_is_read(tmp_path, ends_known):
    drawn = Samples([[completion("ä\n"), completion("b", finished=not ends_known)], [completion("c")]], ends_known)
    verdicts = [[Verdict(Outcome.PASSED), Verdict(Outcome.ERROR, detail="NameError")], [Verdict(Outcome.NO_CODE)]]
    for given in (None, verdicts):
        write_samples(tmp_path / "s.jsonl", PROBLEMS, drawn, given)
        assert read_samples(tmp_path / "s.jsonl", PROBLEMS) == drawn
    rows = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [(row["task_id"], row["outcome"], row["detail"]) for row in rows] == [
        ("T/0", "passed", ""),
        ("T/0", "error", "NameError"),
        ("T/1", "no_code", ""),
    ]
    assert [row.get("finished") for row in rows] == ([True, False, True] if ends_known else [None] * 3)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"task_id": "T/2", "completion": ""}, ":2: there is no problem 'T/2': expected one of 2, such as 'T/0'"),
        ({"completion": "a"}, ':2: expected the key "task_id", there stand: completion'),
        ({"task_id": "T/0"}, ':2: expected the key "completion" or "solution", there stand: task_id'),
        ({"task_id": "T/0", "completion": None}, ":2: expected a completion's text, got NoneType"),
        ({"task_id": "T/0", "completion": "a"}, ": holds no sample of 1 of 2 problems, the first 'T/1'"),
    ],
    ids=["unknown", "no name", "no text", "null", "missing"],
)
def test_what_is_wrong_is_named(tmp_path, row, message):
    path = file_of(tmp_path / "s.jsonl", {"task_id": "T/0", "completion": "a"}, row)
    with pytest.raises(UserError) as error:
        read_samples(path, PROBLEMS)
    assert str(error.value).startswith(f"{path}{message}")
