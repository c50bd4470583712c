"""What a snippet is said to do: by its docstring, or by a model; what says nothing, or what was said before."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from lit_pref.errors import UserError
from lit_pref.synthesis.code_pairs.descriptions import (
    Describer,
    Description,
    described,
    describer_prompt,
    description_in,
    repeated,
)
from lit_pref.synthesis.mining.near_duplicates import SeenSnippets
from lit_pref.synthesis.mining.snippets import Snippet
from lit_pref.types import Completion, Generator, Sampling, Text


def snippet(doc: str = "", code: str = "def f(x):\n    return x\n", language: str = "python") -> Snippet:
    return Snippet(code, language, "function", "f", "def f(x):", doc, "", "", "a.py", 1)


@dataclass
class Answers(Generator):
    """Gives the answers that it was made with, and keeps what it was asked."""

    answers: list[str]
    prompts: list[Text] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    def generate(self, prompts: Sequence[Text], samples: int, sampling: Sampling, seed: int) -> list[list[Completion]]:
        self.prompts += prompts
        self.seeds.append(seed)
        return [[Completion(text, (), (), True)] for text in self.answers]


# --- where descriptions come from -------------------------------------------------------------------------------------


def test_docstrings_need_no_model() -> None:
    found = described([snippet(" Add one. \n"), snippet()], Describer(), None, seed=0)
    assert found == [Description("Add one.", False), Description("", False)]


def test_a_summary_is_the_first_paragraph() -> None:
    doc = "Add one\nto it.\n  \nMore about it.\n\nAnd more."
    assert described([snippet(doc)], Describer(summary=True), None, 0) == [Description("Add one\nto it.", False)]


def test_the_describer_writes_all_or_what_is_missing() -> None:
    several = [snippet("Add one."), snippet(), snippet("Add two.")]
    model = Answers(["one", "two", "three"])
    found = described(several, Describer("generated", "m"), model, seed=3)
    assert found == [Description("one", True), Description("two", True), Description("three", True)]
    assert model.seeds == [3]

    model = Answers(["of the second"])
    found = described(several, Describer("docstring_or_generated", "m"), model, seed=0)
    assert found == [Description("Add one.", False), Description("of the second", True), Description("Add two.", False)]
    assert model.prompts == [describer_prompt(several[1])]


def test_where_all_have_a_docstring_nobody_is_asked() -> None:
    model = Answers([])
    described([snippet("Add one.")], Describer("docstring_or_generated", "m"), model, 0)
    assert model.prompts == model.seeds == []


def test_a_describer_that_gives_too_few_answers_is_named() -> None:
    with pytest.raises(UserError, match="--describer: Answers gave 1 completions for 2 prompts: expected one each"):
        described([snippet(), snippet()], Describer("generated", "m"), Answers(["one"]), 0)


def test_a_describer_without_a_generator_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="generated needs a generator"):
        Describer("generated")


def test_the_released_sampling_is_the_default() -> None:
    assert Describer().sampling == Sampling(temperature=0.7, top_p=1.0, max_new_tokens=1024)


# --- asking, and reading the answer -----------------------------------------------------------------------------------


def test_the_prompt_shows_the_snippet_and_ends_where_the_answer_begins() -> None:
    prompt = describer_prompt(snippet(code="fn f() {}\n", language="rust"))
    assert "```rust\nfn f() {}\n```" in prompt
    assert prompt.endswith("### Request:\n")


@pytest.mark.parametrize(
    "answer",
    [
        "Add one to x.\n\n### Code:\nand so on",
        "\n Add one to x.\n```python\ndef f(x): ...\n```",
        "Add one to x.<|EOT|>### Request:",
        "Add one to x.</s><s>",
        "Add one to x.",
    ],
)
def test_an_answer_ends_where_another_turn_begins(answer: str) -> None:
    assert description_in(answer) == "Add one to x."


@pytest.mark.parametrize("answer", ["", " \n\t", "### Code:\nx", "```\ncode\n```"])
def test_an_answer_that_describes_nothing_is_empty(answer: str) -> None:
    assert description_in(answer) == ""


# --- what was said before ---------------------------------------------------------------------------------------------


@pytest.fixture
def seen() -> SeenSnippets:
    return SeenSnippets()


def test_the_same_words_are_a_duplicate_whatever_their_case_and_layout(seen: SeenSnippets) -> None:
    texts = ["Return the sum.", "return the\n  SUM", "Return the sum of it.", "Return: 'the' sum!"]
    assert repeated(texts, seen, near=True) == ["", "duplicate description", "", "duplicate description"]


def test_nothing_said_is_an_empty_description_each_time(seen: SeenSnippets) -> None:
    assert repeated(["", "  ", "...", "a"], seen, near=True) == ["empty description"] * 3 + [""]
    assert repeated([], seen, near=True) == []


def test_near_duplicates_by_runs_of_three_words(seen: SeenSnippets) -> None:
    # 40 words have 38 runs; one more word at the end adds one: 38 of 39 are shared, Jaccard 0.974. Eight rows agree
    # with probability 0.974^8 = 0.81, in one of six bands at least with 1 - 0.19^6 > 0.9999.
    words = [f"word{i}" for i in range(40)]
    texts = [" ".join(words), " ".join([*words, "more"]), " ".join(f"other{i}" for i in range(40))]
    assert repeated(texts, seen, near=True) == ["", "near-duplicate description", ""]


def test_near_duplicates_stay_where_they_may(seen: SeenSnippets) -> None:
    words = " ".join(f"word{i}" for i in range(40))
    assert repeated([words, f"{words} more", words], seen, near=False) == ["", "", "duplicate description"]


def test_short_descriptions_are_compared_word_for_word(seen: SeenSnippets) -> None:
    # two words have no run of three
    texts = ["Get width.", "Get height.", "Set width.", "get width"]
    assert repeated(texts, seen, near=True) == ["", "", "", "duplicate description"]


def test_how_descriptions_are_split_over_calls_makes_no_difference() -> None:
    texts = [f"Return the number {i % 7} of the list and do nothing else" for i in range(20)] + [""]
    at_once = repeated(texts, SeenSnippets(), near=True)
    seen = SeenSnippets()
    one_by_one = [reason for text in texts for reason in repeated([text], seen, near=True)]
    assert one_by_one == at_once
    assert (
        at_once.count("") >= 1
        and at_once[7:20] == ["duplicate description"] * 13
        and at_once[20] == "empty description"
    )


def test_half_a_character_is_no_crash(seen: SeenSnippets) -> None:
    assert repeated(["caf\ud800 au lait", "Ünïcode für alle"], seen, near=True) == ["", ""]
