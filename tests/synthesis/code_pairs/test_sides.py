"""The code in an answer, whether it is whole and sound, and a snippet without what describes it."""

import pytest

from lit_pref.synthesis.code_pairs.sides import Written, answered_code, continued_code, is_sound, without_doc
from lit_pref.synthesis.mining.snippets import Snippet

# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("Here it is:\n```rust\nfn f() {}\n```\nIt does.\n```\nother\n```", "fn f() {}\n"),
        ("\n\n    return x\n\n", "    return x\n"),
        ("```\n```\n```python\nx = 1\n```", "x = 1\n"),
        ("~~~c++\nint x;\n~~~", "int x;\n"),
        ("x = 1", "x = 1\n"),
    ],
)
def test_the_code_of_an_answer(text: str, code: str) -> None:
    assert answered_code(text, finished=True) == Written(code, whole=True)


@pytest.mark.parametrize("text", ["", "  \n", "```python\n```", "```python\n\n   \n```\n```\n```"])
def test_an_empty_answer_or_fence_holds_nothing(text: str) -> None:
    assert answered_code(text, finished=True).code == ""


def test_a_cut_answer_is_whole_where_its_fence_was_closed() -> None:
    closed = "```python\nx = 1\n```\nThis sets x to"
    assert answered_code(closed, finished=False) == Written("x = 1\n", whole=True)
    assert answered_code("```python\nx = 1 +", finished=False) == Written("x = 1 +\n", whole=False)
    assert answered_code("x = 1 +", finished=False).whole is False


# --- continuations ----------------------------------------------------------------------------------------------------


def test_what_follows_the_definition_is_left_out_and_shows_that_it_has_ended() -> None:
    text = "    return x + 1\n\n# another\ndef solve(y):\n    return y"
    assert continued_code("def f(x):", text, False, "python") == Written("def f(x):\n    return x + 1\n", whole=True)


def test_a_body_that_was_cut_is_not_whole() -> None:
    assert continued_code("def f(x):", "    return x + 1", False, "python").whole is False
    assert continued_code("def f(x):", "    return x + 1", True, "python").whole is True


def test_a_body_in_braces() -> None:
    text = "{\n    return x + 1;\n}\n\nint g(int y) {"
    assert continued_code("int f(int x)", text, False, "c") == Written(
        "int f(int x) {\n    return x + 1;\n}\n", whole=True
    )


def test_nothing_written_is_nothing_though_there_is_a_signature() -> None:
    assert continued_code("def f(x):", " \n", True, "python") == Written("", True)


# --- syntax -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "language"),
    [
        ("def f(x):\n    return x\n", "python"),
        ("function f(x) { return x }\n", "javascript"),
        ("area() { return this.w * this.h; }\n", "javascript"),
        ("area(): number { return this.w; }\n", "typescript"),
        ("public int area() { return w * h; }\n", "java"),
        ("func f(x int) int { return x }\n", "go"),
        ("fn f(x: i32) -> i32 { x }\n", "rust"),
        ("int f(int x) { return x; }\n", "c"),
        ("virtual int area() const { return w * h; }\n", "cpp"),
    ],
)
def test_each_language_parses_what_is_sound(code: str, language: str) -> None:
    assert is_sound(code, language)  # type: ignore[arg-type]
    assert not is_sound(code.rstrip().rstrip("}x") + " = = (\n", language)  # type: ignore[arg-type]


# --- without what describes it ----------------------------------------------------------------------------------------


def snippet(code: str, language: str = "python", kind: str = "function") -> Snippet:
    return Snippet(code, language, kind, "f", "", "", "", "", "a", 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "left"),
    [
        ('def f(x):\n    """Add one."""\n    return x + 1\n', "def f(x):\n    return x + 1\n"),
        ('# Adds one.\n@cache\ndef f(x):\n    """A\n\n    b."""\n    # kept\n    return x\n',
         "@cache\ndef f(x):\n    # kept\n    return x\n"),
        ("def f(x):\n    return x\n", "def f(x):\n    return x\n"),
        ('class A:\n    """Doc."""\n\n    def f(self):\n        """Inner."""\n        return 1\n',
         'class A:\n\n    def f(self):\n        """Inner."""\n        return 1\n'),
        ('def f(x):\n    """Only this."""\n', ""),
        ('def f(x): "Only this"\n', ""),
    ],
)  # fmt: skip
def test_python_loses_its_docstring_and_leading_comment(code: str, left: str) -> None:
    assert without_doc(snippet(code)) == left


def test_other_languages_lose_their_leading_comment() -> None:
    assert (
        without_doc(snippet("// Adds one.\nfn f(x: i32) -> i32 { x + 1 }\n", "rust"))
        == "fn f(x: i32) -> i32 { x + 1 }\n"
    )
    java = snippet("/** The area. */\n@Override\npublic int area() { return w; }\n", "java", "method")
    assert without_doc(java) == "@Override\npublic int area() { return w; }\n"


def test_what_holds_no_definition_stays() -> None:
    assert without_doc(snippet("x = 1\n")) == "x = 1\n"
