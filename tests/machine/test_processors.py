import os

import pytest

from lit_pref.machine import processors
from lit_pref.machine.processors import multiplies_bf16, tell_slow_bf16, usable_processors

THERE = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, THERE),
        ({"cpu.max": "max 100000\n"}, THERE),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),  # half a processor is one thread
        ({"cpu.max": "150000 100000\n"}, min(2, THERE)),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, THERE),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_a_quota_counts_as_processors(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_processors(tmp_path) == expected


@pytest.mark.parametrize(
    ("cpu_info", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_tile\n", True),
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", True),
        ("processor\t: 0\nmodel name\t: bf16 in the name only\n", False),
    ],
)
def test_bf16_instructions_are_read_off_the_processor(tmp_path, cpu_info, expected):
    file = tmp_path / "cpuinfo"
    file.write_text(cpu_info)
    assert multiplies_bf16(file) is expected


def test_bf16_on_a_processor_without_it_is_told_once(monkeypatch, capsys):
    tell_slow_bf16.cache_clear()
    monkeypatch.setattr(processors, "multiplies_bf16", lambda: True)
    tell_slow_bf16("--dtype bfloat16")
    assert capsys.readouterr().err == ""
    tell_slow_bf16.cache_clear()
    monkeypatch.setattr(processors, "multiplies_bf16", lambda: False)
    for _ in range(2):
        tell_slow_bf16("--dtype bfloat16")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("--dtype bfloat16: this processor has no bf16 instructions, so bf16 is slower than fp32")
    tell_slow_bf16.cache_clear()
