from io import StringIO

import pytest
from rich.console import Console
from rich.progress import Progress

from lit_pref.machine import progress
from lit_pref.machine.progress import progress_bar


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that have passed, for tests to set."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_now_and_then(clock: list[float], capsys: pytest.CaptureFixture[str]):
    with progress_bar("Sampling", 1000) as advance:
        for done in range(100, 1001, 100):  # 10 a second
            clock[0] += 10
            advance(done)
    assert capsys.readouterr().out.splitlines() == [
        "Sampling (1,000) ...",
        "Sampling: 100 of 1,000, 10/s, 0:01:30 left",
        "Sampling: 400 of 1,000, 10/s, 0:01:00 left",
        "Sampling: 700 of 1,000, 10/s, 0:00:30 left",
        "Sampling: 1,000 of 1,000, 10/s, 0:00:00 left",
        "Sampling: done in 100.0 s",
    ]


def test_what_an_earlier_run_has_done_does_not_count_for_the_rate(
    clock: list[float], capsys: pytest.CaptureFixture[str]
):
    with progress_bar("Tokenizing", 1000, done=800) as advance:
        clock[0] += 40
        advance(820)  # 20 in 40 seconds; 180 are left
    assert "Tokenizing: 820 of 1,000, 0.5/s, 0:06:00 left" in capsys.readouterr().out


def test_tokens_show_life_before_anything_is_done(clock: list[float], capsys: pytest.CaptureFixture[str]):
    with progress_bar("Sampling", 8, done=2) as advance:
        for done, tokens in ((2, 1_500), (5, 6_000)):
            clock[0] += 30
            advance(done, tokens)
        clock[0] += 15
        advance(8, 7_500)
    assert capsys.readouterr().out.splitlines() == [
        "Sampling (6 of 8; the others are there) ...",
        "Sampling: 2 of 8, 50 tokens/s",
        "Sampling: 5 of 8, 0.05/s, 100 tokens/s, 0:01:00 left",  # 3 in a minute, 3 are left
        "Sampling: done in 75.0 s, 100 tokens/s",
    ]


def test_a_terminal_shows_tokens_beside_the_rate(clock: list[float]):
    shown = StringIO()
    columns = (progress._RateColumn(),)
    with Progress(*columns, console=Console(file=shown, force_terminal=True), get_time=lambda: clock[0]) as bar:
        task = bar.add_task("Sampling", total=8, tokens=0)
        for done, tokens in ((0, 0), (4, 400), (8, 800)):
            clock[0] += 4
            bar.update(task, completed=done, tokens=tokens)
    assert "1/s, 67 tokens/s" in shown.getvalue()  # 4 completions in 4 s; 800 tokens in 12 s


def test_short_work_gets_two_lines(capsys: pytest.CaptureFixture[str]):
    with progress_bar("Grading", 3) as advance:
        for done in range(4):
            advance(done)
    assert len(capsys.readouterr().out.splitlines()) == 2
