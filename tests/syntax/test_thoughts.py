"""Thoughts in the tags of several models, closed and not; and what only looks like one."""

import pytest

from lit_pref.syntax.thoughts import THOUGHTS, without_thoughts

DRAFT = "A draft:\n```python\ndef f():\n    return 0\n```\nNo.\n"


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<think>", "</think>"),
        ("<Thinking>", "</thinking>"),
        ("<reasoning>", "</reasoning>"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|think|>", "<|/think|>"),
        ("<|channel|>analysis<|message|>", "<|end|>"),
        ("[THINK]", "[/THINK]"),
        ("◁think▷", "◁/think▷"),
    ],
)
def test_a_thought_is_no_answer(opening, closing):
    assert without_thoughts(f"{opening}\n{DRAFT}{closing}\nThe answer") == "\nThe answer"
    assert without_thoughts(f"Hm. {opening}{DRAFT}{closing}a{opening}b{closing}c") == "Hm. ac"
    assert without_thoughts(f"Hm. {opening}\n{DRAFT}") == "Hm. "
    assert without_thoughts(f"{DRAFT}{closing}\nThe answer") == "\nThe answer"  # opened by the prompt
    assert without_thoughts(f"{opening}a{opening}b{closing}c{closing}d") == "d"


def test_a_fence_that_a_thought_left_open():
    assert without_thoughts("<think>\n```python\ndraft\n</think>\n```python\nx = 1\n```") == "\n```python\nx = 1\n```"


def test_a_tag_that_another_one_closes():
    assert without_thoughts("<thinking>a</think>b") == "b"


@pytest.mark.parametrize(
    "text",
    [
        'import re\ndef f(s):\n    return re.sub(r"<think>.*?</think>", "", s)\n',
        "```python\ndef f(s):\n    return s + x  # <think> is a tag\n```\n",
        "Call it for `<think>` and '</think>': it's done.",
        "def f(a, b):\n    return a < b > 2\n",
        "",
    ],
)
def test_what_only_names_a_tag(text):
    assert without_thoughts(text) == text


def test_tags_of_ones_own():
    assert without_thoughts("<plan>a</plan>b<think>c", ["<plan>"]) == "b<think>c"
    assert without_thoughts("PLAN: a\nANSWER: b", ["PLAN: ANSWER:"]) == " b"
    assert without_thoughts("<think>a", []) == "<think>a"
    with pytest.raises(ValueError, match=r"thoughts: expected tags such as .* got 'think'"):
        without_thoughts("a", ["think"])
    assert len(set(THOUGHTS)) == len(THOUGHTS)
