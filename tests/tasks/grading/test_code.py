"""What all benchmarks share: splits, counts, styles, and the way from an answer to a verdict."""

from collections.abc import Sequence

import pytest

from lit_pref.data.reading.rows import Row
from lit_pref.errors import UserError
from lit_pref.syntax.thoughts import THOUGHTS
from lit_pref.tasks.grading.code import _CodeBenchmark
from lit_pref.tasks.rows import text_in
from lit_pref.tasks.wording import fenced, shown_source, user_turn
from lit_pref.types import Check, Outcome, Problem, Program, Sandbox, Verdict

PROMPT = 'import math\n\n\ndef area(r):\n    """Of a circle."""\n'
BODY = "    return math.pi * r * r\n"
CHECK = Check("assert area(0) == 0", entry_points=("area",))


class Looking(Sandbox):
    """Passes everything and keeps what it was given."""

    def __init__(self) -> None:
        self.programs: list[Program] = []

    def run(self, programs: Sequence[Program]) -> list[Verdict]:
        self.programs.extend(programs)
        return [Verdict(Outcome.PASSED) for _ in programs]


class Circles(_CodeBenchmark):
    """Ten equal problems but for their numbers."""

    name = "circles"

    def __init__(self, sandbox=None, extract=True, style="completion", names=range(10), thoughts=THOUGHTS) -> None:
        super().__init__("circles", style, extract, thoughts, "leave_out", sandbox)
        self.names = names

    def _rows(self, split):
        return [Row(f"row {name}", {"task_id": f"{name}"}) for name in self.names]

    def _item(self, row):
        prompt = PROMPT if self.style == "completion" else user_turn("Complete this.", PROMPT)
        return Problem(text_in(row, "task_id"), prompt, BODY, check=CHECK, entry_point="area")


def test_the_seed_draws_and_the_file_orders():
    task = Circles()
    assert task.size("test") == 10
    assert [problem.id for problem in task.problems("test", 10, seed=1)] == [str(i) for i in range(10)]
    drawn = [[int(problem.id) for problem in task.problems("test", 4, seed)] for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1] and len({tuple(each) for each in drawn}) == 3
    assert all(each == sorted(set(each)) for each in drawn)


@pytest.mark.parametrize("count", [-1, 11])
def test_more_problems_than_there_are(count):
    with pytest.raises(UserError, match=rf"split 'test' of circles has 10 items, {count} asked for"):
        Circles().problems("test", count, seed=0)


def test_another_split():
    with pytest.raises(ValueError, match="circles has no split 'train': expected one of test"):
        Circles().problems("train", 1, seed=0)


def test_a_name_that_stands_twice_and_a_split_without_rows():
    assert Circles(names=[1, 3, 3]).size("test") == 2
    with pytest.raises(UserError, match="the rows of circles hold nothing of split 'test'"):
        Circles(names=[]).size("test")


def test_a_style_that_there_is_not():
    with pytest.raises(ValueError, match='style must be "completion" or "chat", got \'prose\''):
        Circles(style="prose")


@pytest.mark.parametrize(
    ("completion", "source"),
    [
        (BODY, PROMPT + BODY),
        (BODY + "\n\nprint(area(2))\n", PROMPT + BODY),
        (f"Sure!\n```python\ndef area(r):\n{BODY}\nprint(area(1))\n```\nDone.", f"import math\ndef area(r):\n{BODY}"),
    ],
    ids=["body", "body and more", "fenced"],
)
@pytest.mark.parametrize("style", ["completion", "chat"])
def test_an_answer_becomes_a_program(style, completion, source):
    sandbox = Looking()
    task = Circles(sandbox, style=style)
    assert task.grade(task.problems("test", 1, 0), [completion]) == [Verdict(Outcome.PASSED)]
    (program,) = sandbox.programs
    assert program.check == CHECK
    squeezed = ["\n".join(line for line in each.splitlines() if line) for each in (program.source, source)]
    assert squeezed[0] == squeezed[1]


def test_without_extraction_the_program_is_prompt_and_completion():
    sandbox = Looking()
    task = Circles(sandbox, extract=False)
    task.grade(task.problems("test", 1, 0), [BODY + "print(1)\n"])
    task = Circles(sandbox, extract=False, style="chat")
    task.grade(task.problems("test", 1, 0), ["area = abs"])
    assert [program.source for program in sandbox.programs] == [PROMPT + BODY + "print(1)\n", "area = abs"]


def test_no_code_is_no_execution():
    sandbox = Looking()
    task = Circles(sandbox, style="chat")
    problems = task.problems("test", 3, 0)
    verdicts = task.grade(problems, ["", f"```python\ndef area(r):\n{BODY}```", "I cannot do that."])
    assert [verdict.outcome for verdict in verdicts] == [Outcome.NO_CODE, Outcome.PASSED, Outcome.NO_CODE]
    assert len(sandbox.programs) == 1 and verdicts[0].detail


DRAFT = "A draft:\n```python\ndef area(r):\n    return 0\n```\nNo."


@pytest.mark.parametrize("style", ["completion", "chat"])
def test_a_thought_is_no_answer(style):
    sandbox = Looking()
    task = Circles(sandbox, style=style)
    problems = task.problems("test", 4, 0)
    answer = f"def area(r):\n{BODY}"
    closed, open_, other = f"<think>\n{DRAFT}\n</think>\n{answer}", f"<think>{DRAFT}", f"<plan>{DRAFT}"
    verdicts = task.grade(problems, [closed, open_, other, BODY])
    assert [verdict.outcome for verdict in verdicts] == [Outcome.PASSED, Outcome.NO_CODE, *[Outcome.PASSED] * 2]
    assert verdicts[1].detail == "the completion is empty, but for thoughts"
    assert "return 0" not in sandbox.programs[0].source and BODY in sandbox.programs[0].source
    assert "return 0" in sandbox.programs[1].source
    own = Circles(sandbox, style=style, thoughts=["<plan>"])
    assert [v.outcome for v in own.grade(problems[:2], [other, open_])] == [Outcome.NO_CODE, Outcome.PASSED]
    with pytest.raises(ValueError, match="thoughts: expected tags"):
        Circles(thoughts=["plan"])


def test_one_completion_a_problem():
    with pytest.raises(ValueError, match="got 2 problems, 1 completions"):
        Circles(Looking()).grade(Circles().problems("test", 2, 0), [BODY])


def test_what_a_turn_shows_is_what_it_was_given():
    assert shown_source(PROMPT) == PROMPT
    turn = user_turn("Please.", PROMPT)
    assert turn[0]["role"] == "user" and turn[0]["content"].startswith("Please.\n\n```python\nimport math\n")
    assert shown_source(turn) == PROMPT.strip()
    assert shown_source(user_turn("Please.")) == ""
    assert fenced(BODY) == f"```python\n{BODY.strip()}\n```"


def test_demonstrations_of_a_turn_are_turns():
    (text,) = Circles().demonstrations("test", 1, 0)
    (turns,) = Circles(style="chat").demonstrations("test", 1, 0)
    assert (text.prompt, text.completion) == (PROMPT, BODY)
    assert turns.completion == ({"role": "assistant", "content": BODY},) and turns.prompt[0]["role"] == "user"
