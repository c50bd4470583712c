import pytest

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
        "Sampling: 300 of 1,000, 10/s, 0:01:10 left",
        "Sampling: 600 of 1,000, 10/s, 0:00:40 left",
        "Sampling: 900 of 1,000, 10/s, 0:00:10 left",
        "Sampling: done in 100.0 s",
    ]


def test_what_an_earlier_run_has_done_does_not_count_for_the_rate(
    clock: list[float], capsys: pytest.CaptureFixture[str]
):
    with progress_bar("Tokenizing", 1000, done=800) as advance:
        clock[0] += 40
        advance(820)  # 20 in 40 seconds; 180 are left
    assert "Tokenizing: 820 of 1,000, 0.5/s, 0:06:00 left" in capsys.readouterr().out


def test_short_work_gets_two_lines(capsys: pytest.CaptureFixture[str]):
    with progress_bar("Grading", 3) as advance:
        for done in range(4):
            advance(done)
    assert len(capsys.readouterr().out.splitlines()) == 2
