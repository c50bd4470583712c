"""Programs that mean harm, under every level of isolation: none escapes, none passes, and the machine goes on.

A program gets no credit whether its calls are compared here, a checker asks it, or its output counts. The suite tries
each program once with each kind of test, at one level; the slow tests try all of them at all levels.
"""

import os
import socket
from pathlib import Path

import pytest

from lit_pref.types import Case, Check, IOCase, Outcome, Program
from tests.sandbox.conftest import LEVELS, rotated

FILE = Path(__file__).with_name("hostile_programs.txt")
HOSTILE = {name: source for name, _, source in (each.partition("\n") for each in FILE.read_text().split("\n#### ")[1:])}
TESTS = {
    "calls": {"cases": (Case("f(1)", "'answer-1'"),)},
    "equalities": {"check": Check("assert f(1) == 'answer-1'", entry_points=("f",))},
    "check": {"check": Check("assert f(1) == 'answer-' + '1'", entry_points=("f",))},
    "output": {"cases": (IOCase("1\n", "the answer is answer-1"),)},
}
HONEST = "def f(x):\n    return f'answer-{x}'\nprint('the answer is', f(1))\n"


def descendants(pid: int) -> set[int]:
    children = {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    return children.union(*(descendants(child) for child in children))


SLOW = pytest.param(True, marks=pytest.mark.slow)


@pytest.mark.parametrize("whole", [False, SLOW], ids=["rotated", "whole"])
# Equalities are asked as calls are, in the program's own process.
@pytest.mark.parametrize("kind", ["calls", pytest.param("equalities", marks=pytest.mark.slow), "check", "output"])
def test_no_hostile_program_escapes_or_passes(any_sandbox, kind, whole, tmp_path):
    turns = LEVELS.index(any_sandbox.level), list(TESTS).index(kind)
    hostile = list(HOSTILE) if whole else rotated(HOSTILE, *turns)
    folder = tmp_path / "theirs"
    folder.mkdir()
    canary = folder / "canary"
    canary.write_text("alive")
    processes = descendants(os.getpid())
    with socket.socket(socket.AF_INET6) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        server.bind(("::", 0))
        server.listen()
        port = server.getsockname()[1]
        datagrams.bind(("127.0.0.1", port))
        for each in (server, datagrams):
            each.setblocking(False)
        places = {"CANARY": str(canary), "FOLDER": str(folder), "HOME": str(Path.home())}
        places |= {"PORT": str(port), "PID": str(os.getpid())}
        programs = []
        for source in map(HOSTILE.__getitem__, hostile):
            for name, value in places.items():
                source = source.replace(name, value)
            programs.append(Program(source, **TESTS[kind]))
        verdicts = any_sandbox.run(programs)

        outcomes = dict(zip(hostile, verdicts, strict=True))
        assert {name: v for name, v in outcomes.items() if v.passed} == {}
        assert {name: v for name, v in outcomes.items() if v.outcome is Outcome.HARNESS_ERROR} == {}
        for each in (server, datagrams):
            with pytest.raises(BlockingIOError):  # nobody came
                each.accept() if each is server else each.recv(1)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"canary": "alive"}
    assert all(verdict.passed for verdict in any_sandbox.run([Program(HONEST, **TESTS[kind])] * 20))
    workers = set(any_sandbox.worker_pids)
    assert descendants(os.getpid()) - processes <= workers.union(*map(descendants, workers))


def test_the_suite_is_large_and_its_honest_program_passes(any_sandbox):
    assert len(HOSTILE) >= 60
    assert all(verdict.passed for verdict in any_sandbox.run([Program(HONEST, **tests) for tests in TESTS.values()]))
