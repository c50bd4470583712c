"""Graded samples on disk: made once, found again, gone on with after an interruption, whole or made again."""

import errno
import os
import shutil
import sys
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from tokenizers.normalizers import Replace

from lit_pref.data.formats.write import write_pairs
from lit_pref.errors import UserError
from lit_pref.models import EMBEDDED_FOLDER, load_tokenizer
from lit_pref.sampling import Draw, SamplingJob, cached_samples, execution_pairs, kept_samples
from lit_pref.sampling.graded_samples import tokenizer_fingerprint
from lit_pref.storage.journal import Journal
from lit_pref.types import Case, Check, Completion, Drawn, Generator, Outcome, Problem, Sampling, Task, Verdict
from tests.journals import taken

graded_samples_module = sys.modules["lit_pref.sampling.graded_samples"]


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


def job_of(generator, task=None, problems=600, policy="weights", tokenizer="tokens"):
    task = task or Parity()
    draw = Draw(3, Sampling(), seed=1)
    return SamplingJob(task, task.problems("train", problems, 0), generator, draw, policy, tokenizer)


def make(folder, generator, task=None, problems=600, **changes):
    return cached_samples(folder, job_of(generator, task, problems, **changes), "test").samples


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


@pytest.mark.parametrize("tests", [{"cases": (Case("f()", "1"),)}, {"check": Check("f()")}], ids=["cases", "check"])
def test_other_tests_of_the_same_problems_are_run(tmp_path, tests):
    class Stricter(Parity):
        def problems(self, split, count, seed):
            return [replace(problem, **tests) for problem in super().problems(split, count, seed)]

    make(tmp_path, Echo(), problems=4)
    stricter = Stricter()
    make(tmp_path, Echo(), stricter, problems=4)
    assert len(stricter.graded) == 12  # not the verdicts of the tests before


def test_an_interrupted_run_goes_on_with_its_shards(tmp_path):
    # Shards hold 250 problems: interrupted when it samples the third; the first is graded and kept by then, and the
    # second's samples stand in its journal.
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, Echo(stop_after=500))
    resumed, task = Echo(), Parity()
    made = make(tmp_path, resumed, task)
    assert len(resumed.prompts) == 100 and len(task.graded) == 350 * 3
    assert made == make(tmp_path / "in one go", Echo())
    assert not list(tmp_path.rglob("*.drawn.jsonl"))


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


# --- one by one -------------------------------------------------------------------------------------------------------


class Stream(Echo):
    """Gives completions one by one, the last sample first, and is interrupted when it has given so many."""

    def __init__(self, stop_after: int = 10**9) -> None:
        super().__init__(stop_after)
        self.drawn = []

    def each(self, prompts, samples, sampling, seed, done=()):
        for row in range(len(prompts)):
            for sample in reversed(range(samples)):
                if (row, sample) not in done:
                    if len(self.drawn) >= self.stop_after:
                        raise KeyboardInterrupt
                    self.drawn.append((prompts[row], sample))
                    text, logp = f"{prompts[row]}-{sample}-{seed} \u2028", -1 / (3 + row)
                    yield Drawn(row, sample, Completion(text, (row, sample), (logp, -0.0), bool(sample)))


@pytest.mark.parametrize("kept", [False, True], ids=["cached", "kept"])
@pytest.mark.parametrize("stop_after", [0, 1, 749, 750, 751, 1000])
def test_what_was_drawn_before_an_interruption_is_not_drawn_again(tmp_path, stop_after, kept):
    def samples(folder, generator):
        job = job_of(generator, problems=400)  # shards of 750 and 450 samples
        return (kept_samples(folder, job, "test") if kept else cached_samples(folder, job, "test")).samples

    stopped, resumed = Stream(stop_after), Stream()
    with pytest.raises(KeyboardInterrupt):
        samples(tmp_path / "stopped", stopped)
    found = samples(tmp_path / "stopped", resumed)
    assert len(stopped.drawn) == stop_after and len(resumed.drawn) == 1200 - stop_after
    assert not set(stopped.drawn) & set(resumed.drawn)
    assert found == samples(tmp_path / "whole", Stream())
    assert not list(tmp_path.rglob("*.drawn.jsonl"))


def test_a_journal_of_other_samples_is_not_taken(tmp_path):
    for policy, drawn in (("weights", 12), ("others", 7)):
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / policy, Stream(drawn), problems=30, policy=policy)
    journals = [next((tmp_path / policy).rglob("*.drawn.jsonl")) for policy in ("weights", "others")]
    journals[1].replace(journals[0])
    again = Stream()
    assert make(tmp_path / "weights", again, problems=30) == make(tmp_path / "whole", Stream(), problems=30)
    assert len(again.drawn) == 90


def test_where_another_process_samples_the_same_a_cache_is_filled_twice_and_a_folder_refused(tmp_path, capsys):
    whole = make(tmp_path / "whole", Stream(), problems=4)
    for kept in (False, True):
        folder = tmp_path / f"{kept}"
        with pytest.raises(KeyboardInterrupt):
            (kept_samples if kept else cached_samples)(folder, job_of(Stream(5), problems=4), "test")
        journal = next(folder.rglob("*.drawn.jsonl"))
        lines = journal.read_bytes()
        with taken(journal):
            own = Stream()
            if kept:
                with pytest.raises(UserError, match="another process is writing it: wait for it to end"):
                    kept_samples(folder, job_of(own, problems=4), "test")
                assert own.drawn == []
            else:
                assert make(folder, own, problems=4) == whole and len(own.drawn) == 12
        assert journal.read_bytes() == lines
    assert "another process is writing it: wait for it to end; this run draws" in capsys.readouterr().out


def test_many_cut_completions_are_told_while_there_is_time(tmp_path, capsys):
    class Endless(Stream):
        def each(self, *arguments):
            yield from (
                one._replace(completion=replace(one.completion, finished=False)) for one in super().each(*arguments)
            )

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, Endless(16), problems=20)
    told = "of {} completions were cut at 128 tokens: a larger sampling.max_new_tokens lets more of them end"
    assert f"16 {told.format(16)}" in capsys.readouterr().out
    make(tmp_path / "even", Stream(), problems=20)  # a third of them
    assert f"20 {told.format(60)}" in capsys.readouterr().out
    make(tmp_path / "even", Stream(), problems=20)
    assert "were cut" not in capsys.readouterr().out


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

    def full_too(self, line):
        if shards_of(tmp_path / "full"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._stream.write(line)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        patched.setattr(Journal, "_write", full_too)
        assert make(tmp_path / "full", Echo()) == whole
    assert len(shards_of(tmp_path / "full")) == 1 and not list(tmp_path.rglob("*.tmp"))
    lines = [line for line in capsys.readouterr().out.splitlines() if "cannot be written" in line]
    assert len(lines) == 1 and lines[0].startswith(f"{tmp_path / 'full'}: ") and "LIT_PREF_CACHE" in lines[0]
    later = Echo()
    assert make(tmp_path / "full", later) == whole
    assert len(later.prompts) == 100  # goes on from what was finished, a shard and the next one's journal


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


def test_a_folder_of_another_origin_is_told_and_its_samples_are_not_taken(tmp_path, capsys):
    made = make(tmp_path / "a", Echo(), problems=4)
    make(tmp_path / "b", Echo(), problems=4, policy="other")
    folders = [next(tmp_path.joinpath(name, "execution").iterdir()) for name in "ab"]
    shutil.rmtree(folders[0])
    folders[1].rename(folders[0])
    generator = Echo()
    assert make(tmp_path / "a", generator, problems=4) == made
    assert len(generator.prompts) == 4 and "otherwise (policy: other there, weights now)" in capsys.readouterr().out


# --- what a shard holds -----------------------------------------------------------------------------------------------


class Chat(Parity):
    """The same as conversations; an odd sample fails at the case of its number."""

    def problems(self, split, count, seed):
        turns = [({"role": "user", "content": f"{i}"}, {"role": "assistant", "content": "go on"}) for i in range(count)]
        return [Problem(f"{split}-{i}", turn, "") for i, turn in enumerate(turns)]

    def grade(self, problems, completions):
        verdicts = super().grade(problems, completions)
        return [replace(v, case=None if v.passed else i) for i, v in enumerate(verdicts)]


class Reply(Echo):
    def generate(self, prompts, samples, sampling, seed):
        return super().generate([turns[0]["content"] for turns in prompts], samples, sampling, seed)


def test_conversations_and_failing_cases_are_read_back(tmp_path):
    made = make(tmp_path, Reply(), Chat(), problems=4)
    again = Reply()
    assert make(tmp_path, again, Chat(), problems=4) == made and again.prompts == []
    assert made[0].prompt == ({"role": "user", "content": "0"}, {"role": "assistant", "content": "go on"})
    assert [sample.case for sample in made[:6]] == [None, 1, None, None, 4, None]
    (pairs,) = [execution_pairs(made, seed=0).pairs]
    assert len(pairs) == 4 and pairs[0].chosen[0]["role"] == "assistant"


def test_text_and_conversations_have_one_schema(tmp_path):
    for folder, task, generator in (("text", Parity(), Echo()), ("chat", Chat(), Reply())):
        make(tmp_path / folder, generator, task, problems=2)
    text, chat = (pq.read_table(next((tmp_path / folder).rglob("part-*.parquet"))) for folder in ("text", "chat"))
    assert text.schema == chat.schema
    assert text["prompt"].to_pylist()[0] == "0" and text["messages"].null_count == len(text)
    assert chat["messages"].to_pylist()[0][0] == {"role": "user", "content": "0"}


# --- a folder of the user's -------------------------------------------------------------------------------------------


def pairs_file(samples, path):
    write_pairs(path, execution_pairs(samples, seed=3).pairs)
    return path.read_bytes()


@pytest.mark.parametrize("stop_after", [250, 500])
def test_an_interrupted_folder_goes_on_to_the_same_pairs_byte_for_byte(tmp_path, stop_after):
    with pytest.raises(KeyboardInterrupt):
        kept_samples(tmp_path / "stopped", job_of(Echo(stop_after)), "test")
    kept = {path: path.stat().st_mtime_ns for path in shards_of(tmp_path / "stopped")}
    # a shard is graded while the next is sampled, so the last one sampled is not kept
    assert len(kept) == stop_after // 250 - 1
    resumed = kept_samples(tmp_path / "stopped", job_of(Echo()), "test")
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())
    whole = kept_samples(tmp_path / "whole", job_of(Echo()), "test")
    assert pairs_file(resumed.samples, tmp_path / "a.parquet") == pairs_file(whole.samples, tmp_path / "b.parquet")


def test_a_folder_made_otherwise_is_refused(tmp_path):
    kept_samples(tmp_path, job_of(Echo(), problems=4), "test")
    with pytest.raises(
        UserError, match=r"was made otherwise \(policy: weights there, others now\); name another folder"
    ):
        kept_samples(tmp_path, job_of(Echo(), problems=4, policy="others"), "test")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written: Not a directory"):
        kept_samples(tmp_path / "file" / "samples", job_of(Echo(), problems=4), "test")
