import json

import pytest

from lit_pref.data.formats.pairs import (
    DemonstrationKeys,
    PairKeys,
    read_demonstrations,
    read_pairs,
    to_demonstration,
    to_pair,
)
from lit_pref.data.reading.sources import Row
from lit_pref.errors import UserError
from lit_pref.types import Demonstration, PreferencePair


def pair(keys=None, **values):
    return to_pair(Row("pairs.jsonl:3", values), keys)


def demonstration(keys=None, **values):
    return to_demonstration(Row("rows.jsonl:3", values), keys)


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def system(content):
    return {"role": "system", "content": content}


PLAIN = PreferencePair("q", "good", "bad")
CHAT = PreferencePair((user("q"),), (assistant("good"),), (assistant("bad"),))


# --- pairs: one format after the other --------------------------------------------------------------------------------


def test_trl_standard():
    assert pair(prompt="q", chosen="good", rejected="bad", id=7) == PLAIN
    assert pair(prompt="q", chosen="good", rejected="bad", margin=2).margin == 2.0
    assert pair(prompt="q", chosen="good", rejected="bad", margin="0.5").margin == 0.5  # as CSV has it
    assert pair(prompt="q", chosen="good", rejected="bad", margin=-1).margin == -1.0  # ratings may disagree


def test_trl_conversational():
    assert pair(prompt=[user("q")], chosen=[assistant("good")], rejected=[assistant("bad")]) == CHAT


def test_trl_implicit_prompt_in_conversations():
    assert pair(chosen=[user("q"), assistant("good")], rejected=[user("q"), assistant("bad")]) == CHAT
    turns = [system("s"), user("q"), assistant("a"), user("r")]
    several = pair(chosen=[*turns, assistant("good")], rejected=[*turns, assistant("bad")])
    assert several == PreferencePair(tuple(turns), CHAT.chosen, CHAT.rejected)


def test_an_implicit_prompt_ends_before_the_first_answer_that_the_other_lacks():
    # The rejected conversation goes on after the same answer: the answer is part of both responses.
    longer = [user("q"), assistant("good"), user("r"), assistant("more")]
    found = pair(chosen=longer[:2], rejected=longer)
    assert found == PreferencePair((user("q"),), (assistant("good"),), tuple(longer[1:]))


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        # Anthropic HH: up to the last marker that both have, though both answers begin with "I".
        ("\n\nHuman: q\n\nAssistant: I do", "\n\nHuman: q\n\nAssistant: I am", "\n\nHuman: q\n\nAssistant:"),
        # Between two words ("b" is common too), the space goes with the second.
        ("The sky is blue", "The sky is black", "The sky is"),
        ("The sky is a", "The sky is a b", "The sky is"),
        # The end of a line stays with it.
        ("Question?\nYes", "Question?\nNo", "Question?\n"),
        ("def f():\n    return 1", "def f():\n    raise", "def f():\n"),
    ],
)
def test_an_implicit_prompt_in_text(chosen, rejected, prompt):
    size = len(prompt)
    assert pair(chosen=chosen, rejected=rejected) == PreferencePair(prompt, chosen[size:], rejected[size:])


def test_openrlhf_takes_any_names():
    keys = PairKeys(prompt_key="q", chosen_key="w", rejected_key="l", margin_key="gap")
    assert pair(keys, q="q", w="good", l="bad", gap=1.5, chosen="-", rejected="-") == PreferencePair(
        *"q", "good", "bad", 1.5
    )
    implicit = PairKeys(prompt_key=None, chosen_key="w", rejected_key="l")
    assert pair(implicit, w="q good", l="q bad", prompt="-") == PreferencePair("q", " good", " bad")


def test_llama_factory_alpaca():
    assert pair(instruction="q", input="", chosen="good", rejected="bad") == CHAT
    asked = pair(instruction="add", input="1 2", system="be brief", chosen="3", rejected="4")
    assert asked == PreferencePair((system("be brief"), user("add\n1 2")), (assistant("3"),), (assistant("4"),))


def test_llama_factory_sharegpt():
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}, {"from": "human", "value": "r"}]
    sides = {"chosen": {"from": "gpt", "value": "good"}, "rejected": {"from": "gpt", "value": "bad"}}
    found = pair(conversations=turns, **sides)
    assert found == PreferencePair((user("q"), assistant("a"), user("r")), CHAT.chosen, CHAT.rejected)


@pytest.mark.parametrize(
    "ratings",
    [
        {"chosen_rating": 5.0, "rejected_rating": 2.0, "chosen_model": "m"},
        {"chosen-rating": 5, "rejected-rating": 2},
        {"score_chosen": 5.0, "score_rejected": 2.0},
    ],
)
def test_ultrafeedback(ratings):
    # The prompt stands apart and again as the first turn of each side; margin 5 − 2 = 3.
    found = pair(prompt="q", chosen=[user("q"), assistant("good")], rejected=[user("q"), assistant("bad")], **ratings)
    assert found == PreferencePair(CHAT.prompt, CHAT.chosen, CHAT.rejected, margin=3.0)


# --- what stands before the prompt ------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["system", "system_prompt"])
@pytest.mark.parametrize("prompt", [{key: "q"} for key in ("prompt", "query", "question", "input", "instruction")])
def test_a_system_column_makes_a_conversation_of_text(column, prompt):
    expected = PreferencePair((system("s"), user("q")), CHAT.chosen, CHAT.rejected)
    assert pair(**{column: "s"}, **prompt, chosen="good", rejected="bad") == expected
    expected = Demonstration((system("s"), user("q")), (assistant("good"),))
    assert demonstration(**{column: "s"}, **prompt, completion="good") == expected


A_TURN = user("q")
SIDES = {"chosen": [assistant("good")], "rejected": [assistant("bad")]}


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": [user("q")], **SIDES},
        {"prompt": [user("q")], "chosen": "good", "rejected": "bad"},
        {"prompt": "q", **{key: [user("q"), *side] for key, side in SIDES.items()}},
        {key: [user("q"), *side] for key, side in SIDES.items()},
        {"conversations": [{"from": "human", "value": "q"}], **SIDES},
    ],
)
def test_system_and_history_stand_before_a_conversation(values):
    turns = (system("s"), user("a"), assistant("b"), user("q"))
    found = pair(system="s", history=[["a", "b"]], **values)
    assert found == PreferencePair(turns, CHAT.chosen, CHAT.rejected)
    assert pair(history=[user("a"), assistant("b")], **values).prompt == turns[1:]
    assert pair(system="", history=[], **values).prompt == pair(system=None, history=None, **values).prompt == turns[3:]


def test_the_rows_own_key_names_keep_system_and_history():
    keys = PairKeys("q", "w", "l")
    assert pair(keys, q="q", w="good", l="bad", system="s").prompt == (system("s"), user("q"))
    turns = [user("q"), assistant("good")]
    assert demonstration(messages=turns, system="s", history=[["a", "b"]]).prompt == (
        system("s"),
        user("a"),
        assistant("b"),
        user("q"),
    )


def test_a_system_text_twice():
    turns = [system("s"), user("q")]
    assert pair(prompt=turns, system=" s ", history=[["a", "b"]], **SIDES).prompt == (
        system("s"),
        user("a"),
        assistant("b"),
        user("q"),
    )
    with pytest.raises(UserError, match='"system" and the first turn are different system texts') as error:
        pair(prompt=turns, system="t", **SIDES)
    assert error.value.reason == "two system texts"


# --- roles and contents -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "role"),
    [
        (("user", "User", " USER ", "human", "Human", "prompter"), "user"),
        (("assistant", "Assistant", "gpt", "GPT", "chatgpt", "bot", "model", "AI"), "assistant"),
        (("system", "System", "developer"), "system"),
        (("tool", "function", "observation"), "tool"),
    ],
)
def test_roles_are_known_in_any_case(names, role):
    for name in names:
        turns = [{"role": name, "content": "x"}, user("q"), assistant("a")]
        assert demonstration(messages=turns).prompt[0] == {"role": role, "content": "x"}


def test_text_parts_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "image": None}]
    assert pair(prompt=[{"role": "user", "content": parts}], **SIDES).prompt == (user("ab"),)


def test_an_answer_that_the_prompt_began_stays_there():
    begun = (user("q"), assistant("go"))
    assert pair(prompt=list(begun), **SIDES).prompt == begun
    # Without a prompt of its own the answer begins where the user has spoken.
    sides = {key: [*begun, *side] for key, side in SIDES.items()}
    assert pair(**sides) == PreferencePair(begun[:1], (begun[1], *CHAT.chosen), (begun[1], *CHAT.rejected))


def test_null_and_empty_columns_are_none():
    # As Parquet has rows of unlike kinds, and CSV.
    for empty in (None, ""):
        found = pair(conversations=empty, prompt=empty, instruction="q", input=empty, chosen="good", rejected="bad")
        assert found == CHAT
        assert pair(prompt="q", chosen="good", rejected="bad", margin=empty, chosen_rating=empty) == PLAIN
        assert demonstration(messages=empty, text=empty, prompt="q", completion="a") == Demonstration("q", "a")


# --- columns that are not used ----------------------------------------------------------------------------------------


def test_a_column_with_content_that_is_not_used_is_noted_once(tmp_path):
    row = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    rows = [
        {**row, "context": " ", "tools": []},
        {**row, "context": "the sky is blue", "id": "1", "prompt_id": "x", "source": "web", "score_chosen": 1},
        {**row, "context": "again", "tools": [{"name": "f"}], "messages": [A_TURN], "copy": "good"},
        {"prompt": [A_TURN], **SIDES, "messages": [A_TURN], "copied": "q", "copy": "go", "thought": ""},
        {"prompt": [A_TURN], "chosen": [assistant("good") | {"thinking": "hm", "name": None}], "rejected": "bad"},
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    read = read_pairs(str(tmp_path / "pairs.jsonl"))
    # `messages` says the prompt again, but as something else than what was read; `copy` repeats the chosen side.
    expected = {"context": 2, "tools": 3, "messages": 3, "copy": 4, "chosen.thinking": 5}
    assert read.skipped.columns == {name: f"{tmp_path}/pairs.jsonl:{line}" for name, line in expected.items()}


def test_code_pmp():
    assert pair(query="q", better="good", worse="bad") == PLAIN


def test_reward_bench():
    assert pair(prompt="q", chosen="good", rejected="bad", chosen_model="m", subset="s") == PLAIN
    assert pair(prompt="q", chosen=[assistant("good")], rejected=[assistant("bad")]) == CHAT
    assert pair(prompt=[user("q")], chosen="good", rejected="bad") == CHAT
    assert pair(prompt=[user("q")], chosen=[user("q"), assistant("good")], rejected=[assistant("bad")]) == CHAT


def test_sampled_tokens_are_kept():
    found = pair(prompt="q", chosen="good", rejected="", chosen_ids=[5, 1], rejected_ids=[1])
    assert found == PreferencePair("q", "good", "", chosen_ids=(5, 1), rejected_ids=(1,))
    assert pair(prompt="q", chosen="good", rejected="bad", chosen_ids=None, rejected_ids=None) == PLAIN


# --- pairs: what cannot be used ---------------------------------------------------------------------------------------


BAD_PAIRS = [
    (
        "missing key",
        {"prompt": "q", "chosen": "a"},
        r'expected the key "rejected", there stand: prompt, chosen; rename',
    ),
    ("missing key", {"prompt": "q", "chosen": "a", "rejectd": "b"}, r'did you mean "rejectd"\? rename.*rejected_key'),
    ("missing key", {"query": "q", "better": "a"}, r'expected the key "worse"'),
    ("missing key", {}, r'expected the key "chosen", there stand: none'),
    ("equal sides", {"prompt": "q", "chosen": "a", "rejected": "a"}, '"chosen" and "rejected" are equal'),
    ("equal sides", {"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("a")]}, "are equal"),
    ("equal sides", {"prompt": "q", "chosen": "a", "rejected": [assistant("a")]}, "are equal"),
    ("not a string", {"prompt": "q", "chosen": 42, "rejected": "b"}, r"""text under "chosen", got int '42'"""),
    ("not a string", {"prompt": None, "chosen": "a", "rejected": "b"}, r'under "prompt", got NoneType'),
    ("not a string", {"instruction": [], "chosen": "a", "rejected": "b"}, r'under "instruction", got list'),
    ("not a message", {"prompt": "q", "chosen": ["a"], "rejected": ["b"]}, r"""messages such as .*got str 'a'"""),
    ("not a message", {"prompt": "q", "chosen": [{"role": "user", "content": []}], "rejected": "b"}, "got dict"),
    ("empty response", {"prompt": "q", "chosen": "a", "rejected": " \n"}, '"rejected" has an empty response'),
    ("empty response", {"prompt": "q", "chosen": [], "rejected": "b"}, '"chosen" is an empty list'),
    ("empty response", {"prompt": "q", "chosen": [assistant("")], "rejected": [assistant("b")]}, "empty response"),
    (
        "no shared prompt",
        {"chosen": "a b", "rejected": "c d", "text": ""},
        "there stand: chosen, rejected, text;.*prompt_key",
    ),
    (
        "no shared prompt",
        {"chosen": [user("q"), assistant("a")], "rejected": [user("r"), assistant("b")]},
        "same prompt",
    ),
    ("no shared prompt", {"chosen": [assistant("a")], "rejected": [assistant("b")]}, "same prompt"),
    ("no response", {"prompt": [user("q")], "chosen": [assistant("a"), user("r")], "rejected": "b"}, "assistant, user"),
    ("no response", {"prompt": [user("q")], "chosen": [user("q")], "rejected": "b"}, "got none"),
    (
        "unknown role",
        {"prompt": [{"role": "narrator", "content": "q"}], **SIDES},
        "unknown role 'narrator': expected one",
    ),
    ("tool call", {"prompt": [user("q") | {"tool_calls": [{}]}], **SIDES}, "calls a tool"),
    ("not text", {"prompt": [user([{"type": "image", "url": "x"}])], **SIDES}, "holds 'image': expected text alone"),
    ("not a history", {"prompt": "q", "history": "a", "chosen": "a", "rejected": "b"}, 'under "history", got'),
    ("not a history", {"prompt": "q", "history": [["a"]], "chosen": "a", "rejected": "b"}, 'under "history", got'),
    ("not a string", {"prompt": "q", "system": 1, "chosen": "a", "rejected": "b"}, 'under "system", got int'),
    ("no shared prompt", {"system": "s", "chosen": "a b", "rejected": "a c"}, "without a prompt of its own"),
    ("two prompts", {"prompt": "p", **{k: [user("q"), *v] for k, v in SIDES.items()}}, "say different things"),
    ("not a number", {"prompt": "q", "chosen": "a", "rejected": "b", "margin": 10**400}, "finite number"),
    ("not a number", {"prompt": "q", "chosen": "a", "rejected": "b", "margin": 1e39}, "finite number"),  # not in fp32
    ("broken text", {"prompt": "q", "chosen": "a\ud83d", "rejected": "b"}, r"half a character \(\\ud83d\) at 1"),
    (
        "not a number",
        {"prompt": "q", "chosen": "a", "rejected": "b", "margin": "big"},
        r"""under "margin", got str 'big'""",
    ),
    ("not a number", {"prompt": "q", "chosen": "a", "rejected": "b", "margin": float("nan")}, "finite number"),
    ("not a number", {"prompt": "q", "chosen": "a", "rejected": "b", "margin": True}, "got bool"),
    ("not token ids", {"prompt": "q", "chosen": "a", "rejected": "b", "chosen_ids": [1, -1]}, "token ids.*chosen_ids"),
    ("not token ids", {"prompt": "q", "chosen": "a", "rejected": "b", "rejected_ids": []}, "token ids.*rejected_ids"),
]


@pytest.mark.parametrize(("reason", "values", "message"), BAD_PAIRS)
def test_a_bad_pair_says_where_and_why(reason, values, message):
    with pytest.raises(UserError, match=f"^pairs.jsonl:3: .*{message}") as error:
        pair(**values)
    assert error.value.reason == reason


def test_a_named_margin_must_be_there():
    with pytest.raises(UserError, match='expected the key "gap"'):
        pair(PairKeys(margin_key="gap"), prompt="q", chosen="a", rejected="b", margin=1.0)


# --- demonstrations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["completion", "response"])
def test_prompt_and_completion(key):
    assert demonstration(prompt="q", **{key: "a"}) == Demonstration("q", "a")


def test_conversational_demonstrations():
    assert demonstration(prompt=[user("q")], completion=[assistant("a")]) == Demonstration(
        (user("q"),), (assistant("a"),)
    )
    turns = [system("s"), user("q"), assistant("a"), user("r"), assistant("b")]
    assert demonstration(messages=turns) == Demonstration(tuple(turns[:4]), (assistant("b"),))
    shared = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    expected = Demonstration((system("s"), user("q")), (assistant("a"),))
    assert demonstration(conversations=shared, system="s") == expected


def test_alpaca_demonstration():
    expected = Demonstration((user("add\n1 2"),), (assistant("3"),))
    assert demonstration(instruction="add", input="1 2", output="3") == expected


def test_text_has_no_prompt():
    assert demonstration(text="once") == Demonstration("", "once")


def test_a_demonstration_by_key_names():
    keys = DemonstrationKeys(prompt_key="prompt", completion_key="chosen")
    assert demonstration(keys, prompt="q", chosen="a", rejected="b") == Demonstration("q", "a")
    assert demonstration(DemonstrationKeys(None, "code"), code="x = 1") == Demonstration("", "x = 1")


def test_sampled_tokens_of_a_demonstration_are_kept():
    assert demonstration(prompt="q", completion="", completion_ids=[1]) == Demonstration("q", "", (1,))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": "q"}, 'expected the key "completion", there stand: prompt'),
        ({"completion": "a"}, 'expected the key "prompt"'),
        ({"prompt": "q", "completion": 1}, 'text under "completion", got int'),
        ({"prompt": "q", "completion": ""}, '"completion" has an empty response'),
        ({"messages": [user("q")]}, '"messages" must end with an assistant turn after others'),
        ({"messages": [user("q"), assistant("")]}, '"messages" has an empty response'),
        ({"messages": []}, '"messages" is an empty list'),
    ],
)
def test_a_bad_demonstration_says_where_and_why(values, message):
    with pytest.raises(UserError, match=f"^rows.jsonl:3: .*{message}"):
        demonstration(**values)


# --- whole sources ----------------------------------------------------------------------------------------------------


GOOD = {"prompt": "q", "chosen": "good", "rejected": "bad"}


def test_bad_rows_stop_or_are_counted_whether_unreadable_or_unusable(tmp_path):
    path = tmp_path / "pairs.jsonl"
    lines = [json.dumps(row) for row in (GOOD, {**GOOD, "rejected": "good"}, {"prompt": "q"}, GOOD)]
    path.write_text("\n".join([*lines, "{"]))
    with pytest.raises(UserError, match=r"pairs.jsonl:2: .* are equal"):
        read_pairs(str(path))
    read = read_pairs(str(path), on_bad_row="skip")
    assert read.records == [PLAIN, PLAIN]
    assert read.skipped.counts == {"equal sides": 1, "missing key": 1, "broken JSON": 1}


def test_nothing_left_is_an_error_with_the_reasons(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "q"}\n' * 3 + "{\n")
    with pytest.raises(UserError, match=r"no usable row is left \(3 missing key, 1 broken JSON\); the first: .*:1: "):
        read_pairs(str(path), on_bad_row="skip")
    with pytest.raises(UserError, match=r"no usable row is left"):
        read_demonstrations(str(path), on_bad_row="skip")


def test_demonstrations_of_a_file(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion\nq,a\nr,\n")
    with pytest.raises(UserError, match=r"rows.csv:3: .* empty response"):
        read_demonstrations(str(path))
    assert read_demonstrations(str(path), on_bad_row="skip").records == [Demonstration("q", "a")]
