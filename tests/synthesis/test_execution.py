"""Pairs from graded samples: one passing, one failing, at random; only the model's own failures are rejected."""

import errno
import os
import shutil
import sys
from dataclasses import replace

import pytest
from tokenizers.normalizers import Replace

from lit_pref.errors import UserError
from lit_pref.models import EMBEDDED_FOLDER, load_tokenizer
from lit_pref.synthesis import GradedSample, SampleSettings, execution_pairs, graded_samples, passing_demonstrations
from lit_pref.synthesis.graded_samples import tokenizer_fingerprint
from lit_pref.types import Case, Completion, Generator, Outcome, Problem, Sampling, Task, Verdict

# The package's name of it is the function's.
graded_samples_module = sys.modules["lit_pref.synthesis.graded_samples"]


def sample(problem: str, text: str, outcome: Outcome, finished: bool = True) -> GradedSample:
    ids = tuple(map(ord, text))
    return GradedSample(problem, f"prompt of {problem}", Completion(text, ids, (-1.0,) * len(ids), finished), outcome)


def test_a_pair_is_one_passing_and_one_failing_completion_with_its_tokens():
    made = execution_pairs([sample("a", "good", Outcome.PASSED), sample("a", "bad", Outcome.FAILED)], seed=0)
    (pair,) = made.pairs
    assert (pair.prompt, pair.chosen, pair.rejected) == ("prompt of a", "good", "bad")
    assert pair.chosen_ids == tuple(map(ord, "good")) and pair.rejected_ids == tuple(map(ord, "bad"))
    assert made.problem_ids == ["a"]


@pytest.mark.parametrize("outcome", [o for o in Outcome if o not in (Outcome.PASSED, Outcome.HARNESS_ERROR)])
def test_every_failure_of_the_model_can_be_rejected(outcome):
    made = execution_pairs([sample("a", "good", Outcome.PASSED), sample("a", "bad", outcome)], seed=0)
    assert [pair.rejected for pair in made.pairs] == ["bad"]


def test_problems_without_both_give_no_pair_and_are_counted():
    samples = [
        *(sample("all pass", text, Outcome.PASSED) for text in "ab"),
        *(sample("all fail", text, Outcome.FAILED) for text in "ab"),
        sample("cut", "good", Outcome.PASSED),
        sample("cut", "endless", Outcome.FAILED, finished=False),
        sample("harness", "good", Outcome.PASSED),
        sample("harness", "bad", Outcome.HARNESS_ERROR),
    ]
    made = execution_pairs(samples, seed=0)
    assert made.pairs == []
    assert made.counts == {
        "truncated samples": 1,
        "harness errors": 1,
        "no sample failed": 3,  # all pass; the cut sample and the harness's failure are not the model's
        "no sample passed": 1,
        "pairs": 0,
    }


def test_the_choice_is_random_seeded_and_even():
    samples = [
        sample(f"p{number}", text, outcome)
        for number in range(600)
        for text, outcome in [
            ("g1", Outcome.PASSED),
            ("g2", Outcome.PASSED),
            ("b1", Outcome.FAILED),
            ("b2", Outcome.ERROR),
        ]
    ]
    made = execution_pairs(samples, seed=0)
    assert made == execution_pairs(samples, seed=0)
    assert made.pairs != execution_pairs(samples, seed=1).pairs
    # 600 fair draws: 300 expected, standard deviation sqrt(600)/2 = 12.2; five of them are 61.
    assert abs(sum(pair.chosen == "g1" for pair in made.pairs) - 300) < 61
    assert abs(sum(pair.rejected == "b1" for pair in made.pairs) - 300) < 61


def test_the_pair_of_a_problem_does_not_depend_on_the_others():
    of_a = [sample("a", f"g{i}", Outcome.PASSED) for i in range(9)] + [sample("a", "bad", Outcome.FAILED)]
    of_b = [sample("b", "good", Outcome.PASSED), sample("b", "bad", Outcome.FAILED)]
    assert execution_pairs(of_a, seed=5).pairs[0] == execution_pairs([*of_b, *of_a], seed=5).pairs[1]


def test_passing_demonstrations_are_distinct_and_finished():
    samples = [
        sample("a", "good", Outcome.PASSED),
        sample("a", "good", Outcome.PASSED),
        sample("a", "other", Outcome.PASSED),
        sample("a", "cut", Outcome.PASSED, finished=False),
        sample("a", "bad", Outcome.FAILED),
        sample("b", "good", Outcome.PASSED),
    ]
    made = passing_demonstrations(samples)
    assert [(d.prompt, d.completion) for d in made] == [
        ("prompt of a", "good"),
        ("prompt of a", "other"),
        ("prompt of b", "good"),
    ]


class Echo(Generator):
    """Answers with the prompt and the sample's number, and counts how often it is asked."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.prompts, self.stop_after = [], stop_after

    def generate(self, prompts, samples, sampling, seed):
        if len(self.prompts) >= self.stop_after:
            raise KeyboardInterrupt
        self.prompts += prompts
        return [[Completion(f"{prompt}-{i}-{seed}", (1,), (0.0,), True) for i in range(samples)] for prompt in prompts]


class Parity(Task):
    """Passes even samples; counts the texts that it ran."""

    name = "parity"

    def __init__(self) -> None:
        self.graded = []

    def problems(self, split, count, seed):
        return [Problem(f"{split}-{i}", f"{i}", "") for i in range(count)]

    def grade(self, problems, completions):
        self.graded += completions
        return [Verdict(Outcome.PASSED if int(text.split("-")[1]) % 2 == 0 else Outcome.FAILED) for text in completions]


def make(folder, generator, task=None, problems=600, **changes):
    task = task or Parity()
    settings = {"policy": "weights", "tokenizer": "tokens", "name": "test"} | changes
    draw = SampleSettings(3, Sampling(), seed=1)
    return graded_samples(folder, task, task.problems("train", problems, 0), generator, draw, **settings).samples


def test_samples_are_made_once(tmp_path):
    generator = Echo()
    made = make(tmp_path, generator)
    assert len(made) == 1800 and len(generator.prompts) == 600
    assert [s.outcome.value for s in made[:3]] == ["passed", "failed", "passed"]
    assert make(tmp_path, generator) == made
    assert len(generator.prompts) == 600  # found, not made again


def test_other_weights_make_other_samples(tmp_path):
    generator = Echo()
    make(tmp_path, generator)
    make(tmp_path, generator, policy="other weights")
    assert len(generator.prompts) == 1200


def test_other_tests_of_the_same_problems_are_run(tmp_path):
    class Stricter(Parity):
        def problems(self, split, count, seed):
            return [replace(problem, cases=(Case("f()", "1"),)) for problem in super().problems(split, count, seed)]

    make(tmp_path, Echo(), problems=4)
    stricter = Stricter()
    make(tmp_path, Echo(), stricter, problems=4)
    assert len(stricter.graded) == 12  # not the verdicts of the tests before


def test_an_interrupted_run_goes_on_with_its_shards(tmp_path):
    # Shards hold 250 problems: interrupted when it samples the third, of which the first is graded and kept by then.
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, Echo(stop_after=500))
    resumed = Echo()
    made = make(tmp_path, resumed)
    assert len(resumed.prompts) == 350
    assert made == make(tmp_path / "in one go", Echo())


def test_equal_texts_of_a_problem_are_run_once(tmp_path):
    class Same(Echo):
        def generate(self, prompts, samples, sampling, seed):
            return [[Completion("x-0", (1,), (0.0,), True)] * samples for _ in prompts]

    task = Parity()
    assert len(make(tmp_path, Same(), task, problems=4)) == 12
    assert len(task.graded) == 4


def test_another_tokenizer_makes_other_samples(tmp_path):
    generator = Echo()
    make(tmp_path, generator)
    make(tmp_path, generator, tokenizer="other tokens")
    assert len(generator.prompts) == 1200


def embedded_tokenizer():
    return load_tokenizer(str(EMBEDDED_FOLDER / "tokenizer"))


def test_a_tokenizer_is_told_by_what_it_does_with_text(tmp_path):
    fingerprint = tokenizer_fingerprint(embedded_tokenizer())
    copied = shutil.copytree(EMBEDDED_FOLDER / "tokenizer", tmp_path / "elsewhere")
    used = load_tokenizer(str(copied))
    used(["a", "b c"], padding=True, truncation=True, max_length=1)  # leaves its mark on the backend
    assert tokenizer_fingerprint(used) == fingerprint

    rewriting, ending = embedded_tokenizer(), embedded_tokenizer()
    rewriting.backend_tokenizer.normalizer = Replace("return", "yield")
    ending.eos_token = "a"  # where samples end
    learned = embedded_tokenizer()
    learned.add_tokens(["return x"])
    others = [tokenizer_fingerprint(each) for each in (rewriting, ending, learned)]
    assert len({fingerprint, *others}) == 4


def test_a_tokenizer_without_fast_backend_is_told_by_its_vocabulary(monkeypatch):
    monkeypatch.setattr(graded_samples_module, "tokenizer_identity", lambda tokenizer: None)
    learned = embedded_tokenizer()
    learned.add_tokens(["return x"])
    assert tokenizer_fingerprint(embedded_tokenizer()) == tokenizer_fingerprint(embedded_tokenizer())
    assert tokenizer_fingerprint(embedded_tokenizer()) != tokenizer_fingerprint(learned)


# --- a cache that is damaged, or cannot be written --------------------------------------------------------------------


def shards_of(folder):
    return sorted(folder.rglob("part-*.parquet"))


def cut(shards):
    shards[1].write_bytes(shards[1].read_bytes()[:-100])


def of_fewer_problems(shards):
    shards[1].write_bytes(shards[2].read_bytes())


@pytest.mark.parametrize("damage", [cut, of_fewer_problems])
def test_a_shard_that_is_no_whole_one_is_made_again(tmp_path, damage, capsys):
    made = make(tmp_path, Echo())
    shards = shards_of(tmp_path)
    assert len(shards) == 3  # of 250, 250 and 100 problems
    damage(shards)
    generator = Echo()
    capsys.readouterr()
    assert make(tmp_path, generator) == made
    assert generator.prompts == [str(number) for number in range(250, 500)]
    assert f"{shards[1]}: is no whole shard" in capsys.readouterr().out
    again = Echo()
    assert make(tmp_path, again) == made and again.prompts == []


def test_on_a_full_disk_finished_shards_stay_and_the_rest_is_held_in_memory(tmp_path, monkeypatch, capsys):
    whole, fsync = make(tmp_path / "whole", Echo()), os.fsync

    def full(descriptor):
        if shards_of(tmp_path / "full"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert make(tmp_path / "full", Echo()) == whole
    assert len(shards_of(tmp_path / "full")) == 1 and not list(tmp_path.rglob("*.tmp"))
    lines = [line for line in capsys.readouterr().out.splitlines() if "cannot be written" in line]
    assert len(lines) == 1 and lines[0].startswith(f"{tmp_path / 'full'}: ") and "LIT_PREF_CACHE" in lines[0]
    later = Echo()
    assert make(tmp_path / "full", later) == whole
    assert len(later.prompts) == 350  # goes on from what was finished


def test_where_no_folder_can_be_made_all_is_held_in_memory(tmp_path, capsys):
    whole = make(tmp_path / "whole", Echo())
    (tmp_path / "file").write_text("")
    assert make(tmp_path / "file", Echo()) == whole
    assert f"{tmp_path / 'file'}: the cache cannot be written (Not a directory)" in capsys.readouterr().out


def test_a_complete_folder_is_read_where_nothing_may_be_written(tmp_path, monkeypatch, capsys):
    made = make(tmp_path, Echo())

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "fsync", refuse)
    again = Echo()
    assert make(tmp_path, again) == made and again.prompts == []
    assert "cannot be written" not in capsys.readouterr().out


def test_a_folder_of_another_origin_is_refused(tmp_path):
    make(tmp_path, Echo(), problems=4)
    (manifest,) = tmp_path.rglob("manifest.json")
    manifest.write_text(manifest.read_text().replace('"tokens"', '"other"'))
    with pytest.raises(UserError, match="was made otherwise \\(tokenizer: other there, tokens now\\)"):
        make(tmp_path, Echo(), problems=4)
