"""Math-Shepherd: the published format, and pairs of a right and a wrong solution of one question."""

import json
from pathlib import Path
from typing import Any

import pytest

from lit_pref.data.reading.rows import Row, RowError
from lit_pref.errors import UserError
from lit_pref.tasks import MathShepherd
from lit_pref.tasks.published.math_shepherd import read_solution

# The example of the data card.
CARD = (
    "If Buzz bought a pizza with 78 slices at a restaurant, what's twenty less the slices that the waiter ate? "
    "Step 1: The total ratio representing the pizza is 5+8 = <<5+8=13>>13. ки\n"
    "Step 2: The waiter ate 13 x 8 / 13 = <<13*8/13=6>>6 slices of the pizza. ки\n"
    "Step 3: The waiter ate 52 slices of the pizza. The answer is: 52 ки"
)


def row(question: str, steps: list[str], labels: str, task: str = "GSM8K") -> dict[str, str]:
    """As published: a tag behind each step in `input`, its label in its place in `label`."""
    numbered = [f"Step {number}: {step}" for number, step in enumerate(steps, start=1)]
    tagged = [" ".join([question, "\n".join(f"{each} {end}" for each, end in zip(numbered, ends, strict=True))])
              for ends in (["ки"] * len(steps), labels)]  # fmt: skip
    return {"input": tagged[0], "label": tagged[1], "task": task}


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows))
    return str(path)


def many(questions: int, right: int, wrong: int, task: str = "GSM8K") -> list[dict[str, str]]:
    return [
        row(f"{task} {q}?", [f"try {n}.", f"The answer is: {n}"], "++" if n < right else "+-", task)
        for q in range(questions)
        for n in range(right + wrong)
    ]


def all_pairs(task: MathShepherd, seed: int = 0) -> list[Any]:
    return task.pairs("train", None, seed)


def test_the_card_s_example_is_read() -> None:
    label = CARD.replace("13. ки", "13. +").replace("pizza. ки", "pizza. -").replace("52 ки", "52 -")
    solution = read_solution(Row("rows.jsonl:1", {"input": CARD, "label": label, "task": "GSM8K"}))
    assert solution.question == CARD.partition(" Step 1:")[0] and not solution.right
    assert solution.text.startswith("Step 1: The total") and "ки" not in solution.text
    assert solution.text.endswith("pizza. The answer is: 52")
    assert read_solution(Row("", {"input": CARD, "label": label[:-1] + "+"})).right


def test_odd_rows_of_the_published_data() -> None:
    # a tag in the question, small letters, no number at the first step
    tagged = Row("", {"input": "Parker ки ran. step 1: He ran. ки", "label": "Parker + ran. step 1: He ran. -"})
    assert read_solution(tagged) == ("Parker ran.", "step 1: He ran.", False)
    bare = Row("", {"input": "How far? He ran. ки\nFar. ки", "label": "How far? He ran. -\nFar. +"})
    assert read_solution(bare) == ("How far?", "He ran.\nFar.", True)


def test_a_pair_is_a_right_and_a_wrong_solution_of_one_question(tmp_path: Path) -> None:
    rows = [*many(6, right=2, wrong=3), *(row("only right?", [f"so {n}"], "+") for n in range(3))]
    task = MathShepherd(written(tmp_path / "rows.jsonl", rows), validation_percent=0)
    pairs = all_pairs(task)
    assert len(pairs) == len({pair.prompt for pair in pairs}) == 6
    for pair in pairs:
        assert pair.prompt.startswith("Question: GSM8K ") and pair.prompt.endswith("?\nAnswer:\n")
        assert pair.chosen[-1] in "01" and pair.rejected[-1] in "234"
    assert pairs[:4] == task.pairs("train", 4, 0) == task.pairs("train", 6, 0)[:4]
    assert pairs != all_pairs(task, seed=1)


def test_several_pairs_of_a_question_share_no_solution_and_come_round_by_round(tmp_path: Path) -> None:
    task = MathShepherd(written(tmp_path / "r.jsonl", many(5, 2, 3)), pairs_per_question=4, validation_percent=0)
    pairs = all_pairs(task)
    assert len(pairs) == 10  # two right ones each
    assert len({pair.prompt for pair in pairs[:5]}) == len({pair.prompt for pair in pairs[5:]}) == 5
    assert len({(pair.prompt, pair.chosen) for pair in pairs}) == len({(p.prompt, p.rejected) for p in pairs}) == 10


def test_held_out_questions_are_in_no_training_pair(tmp_path: Path) -> None:
    task = MathShepherd(written(tmp_path / "rows.jsonl", many(60, 1, 1)), validation_percent=30)
    train, held_out = ({pair.prompt for pair in task.pairs(split, None, 0)} for split in ("train", "validation"))
    assert not train & held_out and len(train | held_out) == 60 and 8 <= len(held_out) <= 30


def test_calculations_and_kinds_and_turns(tmp_path: Path) -> None:
    rows = [row("q?", [f"1+1=<<1+1=2>>2. {n}"], label) for n, label in enumerate("+-")] + many(3, 1, 1, "MATH")
    source = written(tmp_path / "rows.jsonl", rows)
    (pair,) = all_pairs(MathShepherd(source, problems="GSM8K", validation_percent=0))
    assert (pair.chosen, pair.rejected) == ("Step 1: 1+1=2. 0", "Step 1: 1+1=2. 1")
    (pair,) = all_pairs(MathShepherd(source, "GSM8K", calculations=True, validation_percent=0, style="chat"))
    assert pair.chosen[0] == {"role": "assistant", "content": "Step 1: 1+1=<<1+1=2>>2. 0"}
    assert pair.prompt[0]["content"].endswith("\n\nq?")
    assert len(all_pairs(MathShepherd(source, problems="MATH", validation_percent=0))) == 3


def test_what_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for bad, message in (
        ({"input": "q? a ки", "label": "q? a ?"}, r'rows.jsonl:1: expected \+ or - in "label" .* got \'\?\''),
        ({"input": "q? a", "label": "q? a +"}, r"rows.jsonl:1: expected \+ or - .* got 'no tag'"),
        ({"input": "no question ки", "label": "no question +"}, r'rows.jsonl:1: "input" does not go from a question'),
        ({"label": "q"}, r'rows.jsonl:1: expected the key "input"'),
    ):
        with pytest.raises(RowError, match=message):
            all_pairs(MathShepherd(written(path, [bad])))
    task = MathShepherd(written(path, many(2, 1, 1)), validation_percent=0)
    with pytest.raises(UserError, match="split 'train' of math_shepherd gives 2 pairs, 3 asked for"):
        task.pairs("train", 3, 0)
    with pytest.raises(UserError, match="no question of split 'validation' has a right and a wrong solution"):
        task.pairs("validation", None, 0)
    with pytest.raises(UserError, match="math_shepherd has no split 'test': expected one of train, validation"):
        task.pairs("test", None, 0)
    for settings in ({"pairs_per_question": 0}, {"validation_percent": 100}, {"problems": "AIME"}, {"style": "x"}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            MathShepherd(str(path), **settings)
