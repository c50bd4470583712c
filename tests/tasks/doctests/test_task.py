"""DoctestTask: problems whose references pass in the sandbox, both styles, splits by module, and what is left out."""

from collections import Counter

import pytest

from lit_pref.errors import UserError
from lit_pref.evaluation.grading import Sized
from lit_pref.sandbox import IsolatedSandbox
from lit_pref.tasks import DoctestTask
from lit_pref.tasks.doctests.task import _divided, tell
from lit_pref.tasks.references import gradable
from lit_pref.types import Outcome, Sandbox, Verdict

MODULE = '''
import random
import threading
import time

SCALE = {scale}


def scaled_{name}(x):
    """Multiply by the scale of {name}.

    >>> scaled_{name}(1)
    {scale}
    >>> scaled_{name}(0)
    0
    """
    return _times(x)


def _times(x):
    return SCALE * x
'''
TRAPS = '''
import random, socket, threading, time


def wrong(x):
    """What its own source does not do.

    >>> wrong(1)
    2
    """
    return x


def endless(x):
    """What never comes to an end.

    >>> endless(1)
    1
    """
    while True:
        pass


def foreign(x):
    """What a package has that is not there.

    >>> foreign(1)
    1
    """
    import no_such_package

    return no_such_package.same(x)


def writes(x):
    """What it leaves on the disk.

    >>> writes({path!r})
    4
    """
    with open(x, "w") as file:
        return file.write("gone")


def connects(x):
    """What a server says.

    >>> connects(80)
    1
    """
    socket.create_connection(("127.0.0.1", x), timeout=1)
    return 1


def right(x):
    """What is right in the end.

    >>> right(1)
    2
    """
    return x + 1
'''


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "kit"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    for scale, name in enumerate(("one", "two", "three", "four", "five", "six"), start=2):
        (folder / f"{name}.py").write_text(MODULE.format(name=name, scale=scale))
    return str(folder)


def test_both_styles_ask_for_the_function_and_grade_by_the_examples(package):
    for style in ("completion", "chat"):
        task = DoctestTask(package, style)
        (problem,) = task.problems("test", 1, seed=0)
        name = problem.entry_point.removeprefix("scaled_")
        scale = 2 + ["one", "two", "three", "four", "five", "six"].index(name)
        assert problem.id == f"kit.{name}.scaled_{name}"
        assert problem.composition == f"kit.{name}"
        shown = f'def scaled_{name}(x):\n    """Multiply by the scale of {name}.\n\n'
        shown += f'    >>> scaled_{name}(1)\n    {scale}\n    """\n'
        helpers = f"SCALE = {scale}\n\n\ndef _times(x):\n    return SCALE * x\n"
        answers = [f"    return {scale} * x\n", f"    return {scale}\n", "    return 0\n", "    return x +\n"]
        if style == "completion":
            assert problem.prompt == shown
            assert problem.reference == f"    return _times(x)\n\n\n{helpers}"
        else:
            (turn,) = problem.prompt
            assert turn["content"].startswith("Complete this Python function. Answer with a single code block")
            assert turn["content"].endswith(f"\n\n```python\n{shown}```")
            whole = f"{helpers}\n\n{shown}    return _times(x)"
            assert problem.reference == f"```python\n{whole}\n```"
            answers = [f"It is\n```python\ndef scaled_{name}(x):\n{answer}```" for answer in answers]
        verdicts = task.grade([problem] * 5, [problem.reference, *answers])
        passed, failed = Outcome.PASSED, Outcome.FAILED  # a constant that stands in the prompt does not pass
        assert [verdict.outcome for verdict in verdicts] == [passed, passed, failed, failed, Outcome.SYNTAX_ERROR]


def test_splits_share_no_module_and_are_the_same_again(package):
    task = DoctestTask(package)
    assert isinstance(task, Sized)
    sizes = {split: task.size(split) for split in task.splits}
    # 6 modules of a problem each: train is furthest from its 4.2 until it has 4; then test, and validation, as none
    # may be left without.
    assert sizes == {"train": 4, "validation": 1, "test": 1}
    modules = [{each.composition for each in task.problems(split, sizes[split], 0)} for split in task.splits]
    assert sum(map(len, modules)) == len(set().union(*modules)) == 6
    again = DoctestTask(package)
    assert [each.id for each in again.problems("train", 4, 0)] == [each.id for each in task.problems("train", 4, 0)]
    assert any(DoctestTask(package, split_seed=seed)._split_of != task._split_of for seed in range(1, 5))
    with pytest.raises(UserError, match="split 'test' of doctests has 1 items, 2 asked for"):
        task.problems("test", 2, 0)


def test_large_modules_go_first_and_no_split_is_left_without():
    sizes = {"large": 60, "middle": 20, "small": 5}
    # 59.5, 8.5, 17: after the first, test lacks most; the last is validation's, which has none.
    assert _divided(sizes, 0) == {"large": "train", "middle": "test", "small": "validation"}
    alike = {str(number): 1 for number in range(100)}
    assert Counter(_divided(alike, 0).values()) == {"train": 70, "validation": 10, "test": 20}
    assert _divided(alike, 0) != _divided(alike, 1)


def test_few_modules_share_functions_out(tmp_path, capsys):
    lines = [MODULE.format(name=name, scale=2 + i) for i, name in enumerate(("one", "two", "three"))]
    (tmp_path / "only.py").write_text("".join(each.replace("_times", f"_times_{i}") for i, each in enumerate(lines)))
    task = DoctestTask(str(tmp_path))
    assert sorted(task._split_of.values()) == ["test", "train", "validation"]
    assert "1 modules have problems: splits share modules, but no function" in capsys.readouterr().out


def left_out_of(task):
    for split in task.splits:
        try:
            task.size(split)
        except UserError:  # nothing of it passes
            continue
    return {name.rpartition(".")[2]: why.partition(":")[0] for name, why in task.left_out.items()}


def test_functions_that_cannot_be_trusted_are_left_out_by_name_and_reason(tmp_path, capsys):
    written = tmp_path / "written"
    (tmp_path / "traps.py").write_text(TRAPS.format(path=str(written)))
    with IsolatedSandbox(timeout=1, cpu_seconds=1) as sandbox:
        # All functions of one split, as a failing reference is told of by its split.
        task = DoctestTask(str(tmp_path), sandbox=sandbox)
        task._split_of = dict.fromkeys((each.id for each in task._found.functions), "train")
        (problem,) = task.problems("train", 1, seed=0)
        assert problem.id == "traps.right"
        assert left_out_of(task) == {
            "wrong": "fails its own examples",
            "endless": "does not end in time",
            "writes": "needs files, a network, threads or processes",
            "connects": "needs files, a network, threads or processes",
            "foreign": "needs other packages than the standard library",
        }
    assert not written.exists()
    said = capsys.readouterr().out
    assert "5 left out: needs files, a network, threads or processes (2), " in said
    assert "traps.wrong fails its own examples: test 0: wrong(1) == 2; the last result was 1" in said


class Fickle(Sandbox):
    """Programs pass when they are first run, and those that say so fail when they are run again."""

    def __init__(self) -> None:
        self.runs = 0

    def run(self, programs):
        self.runs += 1
        needed = ("sub int check:1+2",)
        again = self.runs > 1
        assert {program.check.licence for program in programs} == {needed if again else None}
        passed, failed = Verdict(Outcome.PASSED, licence=() if again else needed), Verdict(Outcome.FAILED, detail="no")
        return [failed if again and "scaled_one" in program.source else passed for program in programs]


def test_references_run_twice_and_keep_the_licence_that_they_need(package):
    task = DoctestTask(package, sandbox=(sandbox := Fickle()))
    task._split_of = dict.fromkeys((each.id for each in task._found.functions), "train")
    problems = task.problems("train", 5, seed=0)
    assert left_out_of(task) == {"scaled_one": "is not deterministic"}
    assert {problem.check.licence for problem in problems} == {("sub int check:1+2",)}
    assert gradable(task, problems).problems == problems
    assert sandbox.runs == 2  # whoever asks again is told what is known


def test_a_source_without_examples_is_an_error(tmp_path):
    (tmp_path / "plain.py").write_text("def f(x):\n    return x\n")
    with pytest.raises(UserError, match=r"no function of its top level has examples \(>>>\)"):
        DoctestTask(str(tmp_path)).size("test")
    with pytest.raises(ValueError, match="max_characters must be >= 1, got 0"):
        DoctestTask(str(tmp_path), max_characters=0)


def test_what_is_left_out_is_told_in_a_line(capsys):
    tell("kit: 1 function", {f"f{number}": "is too long" for number in range(6)} | {"g": "broken syntax: no"})
    assert capsys.readouterr().out == (
        "kit: 1 function; 7 left out: is too long (6), broken syntax (1). "
        "f0 is too long; f1 is too long; f2 is too long; f3 is too long; f4 is too long; and 2 more\n"
    )
