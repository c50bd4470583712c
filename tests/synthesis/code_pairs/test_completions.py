"""How code is asked for in both styles, what is read from the answers, and clipped descriptions."""

import pytest

from lit_pref.synthesis.code_pairs.completions import clipped, completion_prompt, written_code
from lit_pref.synthesis.code_pairs.sides import Written
from lit_pref.synthesis.mining.snippets import Snippet
from lit_pref.tasks import CodeTask

PYTHON = Snippet("", "python", "function", "f", "def f(x):\n", "", "", "", "a.py", 1)
GO = Snippet("", "go", "function", "F", "func F(x int) int", "", "", "", "a.go", 1)


def test_the_signature_style_is_how_the_embedded_models_were_taught() -> None:
    problem = CodeTask().problems("train", 1, seed=0)[0]
    assert isinstance(problem.prompt, str)
    comment, signature, end = problem.prompt.split("\n")
    asked = Snippet("", "python", "function", "solve", signature, "", "", "", "a.py", 1)
    assert (comment[:2], end) == ("# ", "")
    assert completion_prompt(asked, comment.removeprefix("# "), "signature") == problem.prompt


def test_the_signature_style_in_other_languages_and_over_several_lines() -> None:
    assert completion_prompt(GO, "Add one.\n\nTo x.", "signature") == "// Add one.\n//\n// To x.\nfunc F(x int) int\n"


def test_the_instruct_style_names_the_language_and_shows_no_name() -> None:
    prompt = completion_prompt(GO, "Add one.", "instruct")
    assert "go code" in prompt and "Add one." in prompt and "func" not in prompt
    assert isinstance(prompt, str) and prompt.endswith("Add one.\n\n### Code:\n")


def test_the_chat_style_is_the_same_request_as_a_user_s_turn() -> None:
    (turn,) = completion_prompt(GO, "Add one.", "chat")
    assert turn == {
        "role": "user",
        "content": str(completion_prompt(GO, "Add one.", "instruct"))[: -len("\n\n### Code:\n")],
    }
    assert written_code(GO, "Sure:\n```go\nx := 1\n```\nDone.", True, "chat").code.strip() == "x := 1"


@pytest.mark.parametrize("turn", ["### Description:\nmore", "### Code:\nmore", "<|EOT|>", "</s>"])
def test_an_answer_ends_where_another_turn_begins_and_counts_as_ended(turn: str) -> None:
    assert written_code(PYTHON, f"x = 1\n{turn}", False, "instruct") == Written("x = 1\n", True)
    assert written_code(PYTHON, f"    return x\n{turn}", False, "signature") == Written(
        "def f(x):\n    return x\n", True
    )


def test_a_comment_that_looks_like_a_heading_ends_nothing() -> None:
    text = "def f(x):\n    ### step one\n    return x\n"
    assert written_code(PYTHON, text, True, "instruct").code == text


@pytest.mark.parametrize(
    ("description", "keep", "left"),
    [
        ("one two three four", 0.5, "one two"),
        ("one two three", 0.5, "one two"),  # 1.5 words, rounded up
        ("one two", 0.99, "one"),  # never all
        ("one two three", 0.01, "one"),  # one at least
        ("a\nb  c d", 0.75, "a\nb  c"),  # as it was laid out
        ("one", 0.5, ""),
        ("", 0.5, ""),
    ],
)
def test_a_clipped_description(description: str, keep: float, left: str) -> None:
    assert clipped(description, keep) == left
