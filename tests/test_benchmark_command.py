"""What the benchmarks take on their command lines, and that they measure only what the machine can do."""

import json
import sys

import pytest
import torch

from benchmarks import command, dpo_vs_trl, paired


@pytest.mark.parametrize(("given", "runs"), [([], 4), (["--quick"], 1), (["--quick", "--runs", "2"], 2)])
def test_a_quick_run_measures_once_unless_told_otherwise(monkeypatch, given, runs):
    monkeypatch.setattr(sys, "argv", ["benchmark", *given])
    assert command.parse(command.parser("About.", runs=4)).runs == runs


def test_bf16_is_not_measured_where_the_processor_lacks_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(paired, "multiplies_bf16", lambda: False)
    measured = []

    def rate(dtype: torch.dtype, device: str) -> float:
        measured.append(dtype)
        return 1e9

    monkeypatch.setattr(paired, "matmul_rate", rate)
    monkeypatch.setattr(dpo_vs_trl, "compare", lambda *_: pytest.fail("compared"))
    monkeypatch.setattr(sys, "argv", ["b", "--workloads", "docstrings:bf16", "--json", str(tmp_path / "figures.json")])
    threads = torch.get_num_threads()
    dpo_vs_trl.main()
    torch.set_num_threads(threads)
    assert measured == [torch.float32]
    told = capsys.readouterr().out
    assert "no bf16 instructions" in told and "docstrings:bf16: left out" in told


def test_a_quick_comparison_is_one_short_workload(monkeypatch, tmp_path):
    compared = []

    def compare(workload, precision, device, runs, compiled, quick):
        compared.append((workload.name, workload.steps, precision, runs, quick))
        names = ("ours_tokens_per_second", "trl_tokens_per_second", "ratio", "ratio_whole", "share_of_matmul_rate")
        return dict.fromkeys(names, 1.0)

    monkeypatch.setattr(paired, "matmul_rate", lambda *_: 1e9)
    monkeypatch.setattr(dpo_vs_trl, "compare", compare)
    file = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["dpo_vs_trl", "--quick", "--json", str(file)])
    threads = torch.get_num_threads()
    dpo_vs_trl.main()
    torch.set_num_threads(threads)
    assert compared == [("docstrings", 3, "fp32", 1, True)]
    assert json.loads(file.read_text())["docstrings"]["ratio"] == 1.0
