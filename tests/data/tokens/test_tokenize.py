from dataclasses import replace

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lit_pref.data.reading.rows import SkippedRows
from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.data.tokens.tokenize import (
    fingerprint,
    tokenize,
    tokenize_prompt,
    tokenized_chunks,
)
from lit_pref.errors import UserError
from lit_pref.types import Demonstration, Message, PreferencePair, TokenTree

BOS, EOS = 0, 1
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LINES = [
    "hello world, the sky is blue and the sea is deep",
    "def add(a, b):\n    return a + b",
    "user assistant system",
]


def tree_of(record, tokenizer, **settings):
    (tree,) = tokenize([record], tokenizer, **settings).trees
    return tree


def byte_tokenizer(adds_bos=True, chat_template=None, eos="</s>", bos="<s>"):
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>", "<|im_start|>"]
    core.train_from_iterator(
        LINES, trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet)
    )
    if adds_bos:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token=bos, eos_token=eos, chat_template=chat_template)


def turn(role, content) -> Message:
    return {"role": role, "content": content}


def plain_ids(tokenizer, text):
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


PAIR = PreferencePair("the sky is", " blue", " deep")


def chat_pair(question="hello", chosen="blue", rejected="deep", **ids):
    return PreferencePair(
        (turn("user", question),), (turn("assistant", chosen),), (turn("assistant", rejected),), **ids
    )


# --- plain text -------------------------------------------------------------------------------------------------------


def test_prompt_gets_one_bos_and_each_completion_one_eos():
    tokenizer = byte_tokenizer()
    tree = tree_of(PAIR, tokenizer)
    assert tree.prompt_ids == (BOS, *plain_ids(tokenizer, "the sky is"))
    assert tree.completion_ids == ((*plain_ids(tokenizer, " blue"), EOS), (*plain_ids(tokenizer, " deep"), EOS))


@pytest.mark.parametrize("prompt", ["<s>the sky is", "<s><s>the sky is"])
def test_a_bos_in_the_text_is_not_doubled(prompt):
    tokenizer = byte_tokenizer()
    assert tokenize_prompt(prompt, tokenizer) == tokenize_prompt("the sky is", tokenizer)


@pytest.mark.parametrize("ending", ["</s>", "</s></s>"])
def test_an_eos_in_the_text_is_not_doubled(ending):
    tokenizer = byte_tokenizer()
    tree = tree_of(Demonstration("the sky is", " blue" + ending), tokenizer)
    assert tree.completion_ids == ((*plain_ids(tokenizer, " blue"), EOS),)


def test_no_bos_where_the_tokenizer_adds_none_and_no_eos_where_none_is_wanted():
    tokenizer = byte_tokenizer(adds_bos=False)
    tree = tree_of(PAIR, tokenizer, append_eos=False)
    ids = [*tree.prompt_ids, *tree.completion_ids[0], *tree.completion_ids[1]]
    assert BOS not in ids and EOS not in ids
    assert tokenizer.decode([*tree.prompt_ids, *tree.completion_ids[0]]) == "the sky is blue"


def test_prompt_and_completion_never_merge():
    # "the sky" is trained to merge its letters; cut inside the word, the halves stay apart.
    tokenizer = byte_tokenizer(adds_bos=False)
    tree = tree_of(Demonstration("hel", "lo"), tokenizer, append_eos=False)
    assert tree.prompt_ids == plain_ids(tokenizer, "hel") and tree.completion_ids == (plain_ids(tokenizer, "lo"),)
    assert (*tree.prompt_ids, *tree.completion_ids[0]) != plain_ids(tokenizer, "hello")


def test_truncation_and_padding_left_on_in_the_tokenizer_do_nothing():
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    assert tree_of(PAIR, tokenizer) == tree_of(PAIR, byte_tokenizer())


def test_sampled_tokens_are_used_as_they_are():
    # The chosen sample was cut at the length limit (no EOS), the rejected one ended at once.
    pair = PreferencePair("the sky is", " blue", "", chosen_ids=(7, 8), rejected_ids=(EOS,))
    assert tree_of(pair, byte_tokenizer()).completion_ids == ((7, 8), (EOS,))


def test_an_empty_prompt_begins_with_bos_even_where_the_tokenizer_adds_none():
    demonstration = Demonstration("", "hello")
    assert tree_of(demonstration, byte_tokenizer(adds_bos=False)).prompt_ids == (BOS,)
    without_bos = byte_tokenizer(adds_bos=False, bos=None)
    assert tokenize([demonstration], without_bos).counts == {"kept": 0, "dropped_empty_prompt": 1}
    with pytest.raises(UserError, match=r"no BOS"):
        tokenize_prompt("", without_bos)


def test_a_tokenizer_that_adds_a_space_adds_none_before_a_completion():
    # The form of Llama 2: "▁" before every text, spaces are "▁", line breaks bytes of their own.
    vocab = {
        token: index for index, token in enumerate(["<s>", "</s>", "▁", *"abcdefghijklmnopqrstuvwxyz=1", "<0x0A>"])
    }
    core = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    tree = tree_of(Demonstration("x =", "1"), tokenizer)
    space = vocab["▁"]
    assert tree == TokenTree((BOS, space, vocab["x"], space, vocab["="]), ((vocab["1"], EOS),))
    assert tree_of(Demonstration("x =", " 1"), tokenizer).completion_ids == ((space, vocab["1"], EOS),)
    assert tree_of(Demonstration("x", "\n1"), tokenizer).completion_ids[0][0] == vocab["<0x0A>"]


def test_a_tokenizer_without_eos_is_refused_by_name():
    with pytest.raises(UserError, match=r"no EOS token.*append_eos"):
        tree_of(PAIR, byte_tokenizer(eos=None))


# --- conversations ----------------------------------------------------------------------------------------------------


def test_a_completion_is_what_the_template_adds_to_the_prompt():
    tokenizer = byte_tokenizer(adds_bos=False, chat_template=CHAT)
    tree = tree_of(chat_pair(), tokenizer)
    assert tree.prompt_ids == plain_ids(tokenizer, "<|im_start|>user\nhello</s>\n<|im_start|>assistant\n")
    # The template goes on with a line break after its EOS; a model stops there.
    assert tree.completion_ids == ((*plain_ids(tokenizer, "blue"), EOS), (*plain_ids(tokenizer, "deep"), EOS))


def test_eos_is_appended_where_the_template_ends_a_turn_otherwise():
    template = CHAT.replace("</s>", "<|im_start|>")
    tree = tree_of(chat_pair(), byte_tokenizer(adds_bos=False, chat_template=template))
    assert [ids.count(EOS) for ids in tree.completion_ids] == [1, 1]
    assert all(ids[-1] == EOS for ids in tree.completion_ids)


@pytest.mark.parametrize("adds_bos", [True, False])
@pytest.mark.parametrize("template_has_bos", [True, False])
def test_a_conversation_has_at_most_one_bos(adds_bos, template_has_bos):
    template = ("{{ bos_token }}" if template_has_bos else "") + CHAT
    tokenizer = byte_tokenizer(adds_bos, template)
    tree = tree_of(chat_pair(), tokenizer)
    assert tree.prompt_ids.count(BOS) == int(adds_bos or template_has_bos)
    assert all(BOS not in ids for ids in tree.completion_ids)
    assert tokenize_prompt(chat_pair().prompt, tokenizer) == tree.prompt_ids


def test_a_rewritten_generation_prompt_leaves_the_longest_common_tokens():
    # A thinking model's generation prompt opens a thought that the rendered answer does not have.
    template = CHAT.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
    tokenizer = byte_tokenizer(adds_bos=False, chat_template=template)
    tree = tree_of(chat_pair(), tokenizer)
    assert tree.prompt_ids == plain_ids(tokenizer, "<|im_start|>user\nhello</s>\n<|im_start|>assistant\n")
    assert [tokenizer.decode(ids) for ids in tree.completion_ids] == ["blue</s>", "deep</s>"]
    with pytest.raises(UserError, match=r"pair 1: sampled tokens"):
        tree_of(chat_pair(chosen_ids=(5,), rejected_ids=(6,)), tokenizer)


def test_a_template_that_rewrites_the_prompt_is_refused():
    template = "{{ messages | length }}" + CHAT
    with pytest.raises(UserError, match=r"pair 1: the chat template rewrites the prompt's turns"):
        tree_of(chat_pair(), byte_tokenizer(chat_template=template))


def test_conversations_need_a_template_that_accepts_them():
    with pytest.raises(UserError, match=r"pair 2: a conversation needs a chat template.*prompt_key"):
        tokenize([PAIR, chat_pair()], byte_tokenizer())
    refusing = "{{ raise_exception('no system role') }}"
    with pytest.raises(UserError, match=r"refuses the turns user: no system role"):
        tree_of(chat_pair(), byte_tokenizer(chat_template=refusing))


# --- lengths ----------------------------------------------------------------------------------------------------------


def word(count, letter="q"):
    # "q" never occurs in training, so that each one is a token.
    return letter * count


def test_overlong_pairs_are_dropped_and_counted_by_reason():
    pairs = [
        PAIR,
        PreferencePair(word(9), "a", "b"),  # BOS + 9 = 10 prompt tokens > 8
        PreferencePair("q", word(20), "b"),  # BOS + 1 + 20 + EOS = 23 > 16
    ]
    tokenizer = byte_tokenizer()
    assert len(tree_of(PAIR, tokenizer).prompt_ids) <= 8
    result = tokenize(pairs, tokenizer, LengthLimits(max_prompt_length=8, max_length=16))
    assert result.trees == [tree_of(PAIR, tokenizer)]
    assert result.counts == {"kept": 1, "dropped_long_prompt": 1, "dropped_long_completion": 1}


def test_truncation_keeps_bos_and_the_prompts_end_and_takes_eos_off():
    tokenizer = byte_tokenizer()
    pair = PreferencePair("z" + word(9), word(20), "z" + word(3))
    result = tokenize([pair], tokenizer, LengthLimits(max_prompt_length=4, max_length=10, overlong="truncate"))
    (q,), (z,) = plain_ids(tokenizer, "q"), plain_ids(tokenizer, "z")
    # 4 prompt tokens: BOS and the last 3; 10 - 4 = 6 remain: 20 q lose their end, "zqqq" + EOS (5) stays whole.
    assert result.trees == [TokenTree((BOS, q, q, q), ((q,) * 6, (z, q, q, q, EOS)))]
    assert result.counts == {"kept": 1, "truncated_prompt": 1, "truncated_completion": 1}


@pytest.mark.parametrize("overlong", ["drop", "truncate"])
@pytest.mark.parametrize("length", [7, 8])
def test_a_prompt_that_fills_the_limit_is_dropped(overlong, length):
    # BOS + 7 = 8 tokens fill the limit of 8, BOS + 8 exceed it: no completion token would be left.
    pair = PreferencePair(word(length), "a", "b")
    result = tokenize([pair], byte_tokenizer(), LengthLimits(max_length=8, overlong=overlong))
    assert result.trees == [] and result.counts == {"kept": 0, "dropped_prompt_fills_limit": 1}


def test_sides_that_truncation_makes_equal_are_dropped():
    # BOS + q = 2 prompt tokens leave 2 of the limit 4; both sides begin with "qq".
    pair = PreferencePair("q", "qqa", "qqb")
    result = tokenize([pair], byte_tokenizer(), LengthLimits(max_length=4, overlong="truncate"))
    assert result.trees == [] and result.counts == {"kept": 0, "dropped_equal_sides": 1}


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (LengthLimits(max_prompt_length=8, overlong="error"), "pair 2: 10 prompt tokens, max_prompt_length is 8"),
        (LengthLimits(max_length=11, overlong="error"), "pair 2: 12 tokens, max_length is 11"),
        (LengthLimits(max_length=10, overlong="error"), "pair 2: 10 prompt tokens, max_length is 10"),
    ],
)
def test_overlong_pairs_stop_by_number(limits, message):
    # BOS + 9 = 10 prompt tokens, 12 with one token and EOS.
    with pytest.raises(UserError, match=message):
        tokenize([PAIR, PreferencePair(word(9), "a", "b")], byte_tokenizer(), limits)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_prompt_length": 0}, "max_prompt_length must be >= 1, got 0"),
        ({"max_length": 1}, "max_length must be >= 2"),
        ({"overlong": "cut"}, "overlong must be .* got 'cut'"),
    ],
)
def test_limits_refuse_nonsense(fields, message):
    with pytest.raises(ValueError, match=message):
        LengthLimits(**fields)


# --- many ------------------------------------------------------------------------------------------------------------


def test_many_pairs_are_tokenized_as_one_by_one():
    tokenizer = byte_tokenizer(chat_template=CHAT)
    pairs = [PreferencePair(f"q{i % 7}", f" a{i}", f" b{i}") for i in range(5000)]  # more than one chunk
    pairs[10] = chat_pair()
    trees = tokenize(pairs, tokenizer).trees
    assert len(trees) == 5000
    for row in (0, 10, 2047, 2048, 4999):
        assert trees[row] == tree_of(pairs[row], tokenizer)


def test_margins_stay_with_their_pairs():
    with_margins = [PreferencePair("q", "a", word(n), margin=float(n)) for n in (1, 30, 2)]
    limits = LengthLimits(max_length=20)  # drops the middle one
    assert tokenize(with_margins, byte_tokenizer(), limits).values == [1.0, 2.0]
    assert tokenize([PAIR], byte_tokenizer()).values is None
    mixed = tokenize([with_margins[0], PAIR], byte_tokenizer())
    assert mixed.values is None and mixed.counts == {"kept": 2, "without_value": 1}


def test_fingerprint_sees_tokens_order_and_where_parts_end():
    tree = TokenTree((1, 2), ((3,), (4,)))
    others = [
        [TokenTree((1, 2), ((3,), (5,)))],
        [TokenTree((1, 2), ((4,), (3,)))],
        [TokenTree((1,), ((2, 3), (4,)))],
        [TokenTree((1, 2), ((3, 4),))],
        [tree, tree],
        [],
    ]
    marks = {fingerprint([tree]), *map(fingerprint, others)}
    assert len(marks) == 1 + len(others)
    assert fingerprint([TokenTree((1, 2), ((3,), (4,)))]) == fingerprint([tree])


# --- rows that a tokenizer or its template cannot take ----------------------------------------------------------------

NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHAT
TURNS_ALONE = CHAT.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'tool' %}")


def located(pair, line):
    return replace(pair, location=f"pairs.jsonl:{line}")


def chunks_of(pairs, tokenizer, **settings):
    skipped = SkippedRows()
    texts = [pair.tree for pair in pairs]
    chunks = list(tokenized_chunks(texts, tokenizer, on_bad_row="skip", skipped=skipped, **settings))
    return [tree for chunk in chunks for tree in chunk.trees], skipped


def with_prompt(*turns):
    return PreferencePair(turns, (turn("assistant", "blue"),), (turn("assistant", "deep"),))


@pytest.mark.parametrize(
    ("template", "bad", "reason", "message"),
    [
        (
            NO_SYSTEM,
            with_prompt(turn("system", "s"), turn("user", "q")),
            "chat template",
            r"refuses the turns system, user: no system role",
        ),
        (CHAT + "{{ messages[2]['role'].x.y }}", with_prompt(turn("user", "q")), "chat template", "refuses the turns"),
        (
            TURNS_ALONE,
            with_prompt(turn("user", "q"), turn("tool", "found"), turn("user", "r")),
            "chat template",
            "leaves out what tool says in the turns user, tool, user",
        ),
        (
            "{{ messages[-1]['content'] }}",
            with_prompt(turn("user", "q")),
            "chat template",
            "leaves out what user says in the turns user, assistant",
        ),
        (None, with_prompt(turn("user", "q")), "chat template", "this tokenizer has none"),
        (CHAT, replace(PAIR, chosen_ids=(2, 317)), "unknown token", r"hold 317, the tokenizer has 317 tokens"),
        (CHAT, replace(PAIR, chosen_ids=(2**80,)), "unknown token", r"the tokenizer has 317 tokens"),
        (CHAT, replace(PAIR, prompt=""), "empty prompt", "the empty prompt is no token here"),
        (CHAT, replace(PAIR, chosen="", chosen_ids=()), "empty response", "the empty response is no token here"),
    ],
)
def test_a_row_that_cannot_be_tokenized_is_named_or_skipped(template, bad, reason, message):
    tokenizer = byte_tokenizer(adds_bos=False, bos=None, chat_template=template)
    pairs = [located(PAIR, 1), located(bad, 2), located(PAIR, 3)]
    with pytest.raises(UserError, match=rf"^pairs.jsonl:2: .*{message}"):
        tokenize(pairs, tokenizer)
    trees, skipped = chunks_of(pairs, tokenizer)
    assert trees == [tree_of(PAIR, tokenizer)] * 2
    assert skipped.counts == {reason: 1} and skipped.messages[0].startswith("pairs.jsonl:2: ")


def test_demonstrations_are_skipped_alike():
    tokenizer, skipped = byte_tokenizer(adds_bos=False, chat_template=NO_SYSTEM), SkippedRows()
    bad = Demonstration((turn("system", "s"), turn("user", "q")), (turn("assistant", "a"),), location="rows.csv:4")
    with pytest.raises(UserError, match=r"^rows.csv:4: the chat template refuses"):
        tokenize([bad], tokenizer)
    good = Demonstration("q", "a")
    made = tokenize([bad, good], tokenizer, on_bad_row="skip", skipped=skipped)
    assert len(made.trees) == 1 and skipped.counts == {"chat template": 1}


def test_an_answer_that_the_prompt_began_is_one_turn():
    tokenizer = byte_tokenizer(adds_bos=False, chat_template=CHAT)
    begun = (turn("user", "hello"), turn("assistant", "the sky"))
    pair = PreferencePair(begun, (turn("assistant", " is blue"),), (turn("assistant", " is deep"),))
    tree = tree_of(pair, tokenizer)
    opened = "<|im_start|>user\nhello</s>\n<|im_start|>assistant\nthe sky"
    assert tree.prompt_ids == plain_ids(tokenizer, opened) == tokenize_prompt(begun, tokenizer)
    assert tree.completion_ids == ((*plain_ids(tokenizer, " is blue"), EOS), (*plain_ids(tokenizer, " is deep"), EOS))


def test_a_template_that_closes_what_the_prompt_began_is_refused_by_name():
    # It writes how long the turn is before the turn: what the prompt alone renders to is no beginning of the whole.
    counting = CHAT.replace("{{ m['content'] }}", "{{ m['content'] | length }} {{ m['content'] }}")
    tokenizer = byte_tokenizer(adds_bos=False, chat_template=counting)
    pair = with_prompt(turn("user", "hello"), turn("assistant", "the sky"))
    with pytest.raises(UserError, match=r"pair 1: the chat template rewrites the prompt's turns"):
        tokenize([pair], tokenizer)
