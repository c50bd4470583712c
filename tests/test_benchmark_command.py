"""What the benchmarks take on their command lines, and that they measure only what the machine can do."""

import json
import sys

import pytest
import torch

from benchmarks import command, dpo_vs_trl, model_sizes, paired


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


def test_weights_of_a_shape_are_those_that_its_model_has():
    # SmolLM2: 30 layers of 2·576² + 2·576·192 + 3·576·1536 = 3,538,944, and an embedding of 49,152·576.
    small = model_sizes.SIZES["SmolLM2-135M"]
    assert small.weights == 30 * 3_538_944 + 28_311_552 == 134_479_872  # its 61 norms of 576 make 134,515,008
    assert model_sizes.SIZES["Qwen2.5-0.5B"].weights == pytest.approx(494_032_768, rel=1e-3)
    assert model_sizes.SIZES["Llama-3.1-8B"].weights == pytest.approx(8_030_261_248, rel=1e-3)
    # LoRA of rank 16: 16·(in + out) of each matrix: 2·(576 + 576), 2·(576 + 192) and 3·(576 + 1536).
    assert small.adapter == 16 * 30 * (2304 + 1536 + 6336)
    assert model_sizes.static_bytes(small, "bfloat16", full=False) == 2 * small.weights + 16 * small.adapter


def test_times_and_memory_follow_from_what_was_measured():
    # Half of 100 GFLOP/s; a step that holds nothing.
    measured = {
        name: model_sizes.Measured(1.0, 0.5, 0, 0.0) for name in ("full float32", "lora float32", "lora bfloat16")
    }
    measured |= {"sampling float32": model_sizes.Measured(1.0, 0.25, 0, 0.0)}
    header, *rows = model_sizes.estimates(measured, {"float32": 100, "bfloat16": 200})
    row = dict(zip(header, rows[-1], strict=True))
    layers, head = 32 * (2 * 4096 * 128 * 40 + 3 * 4096 * 14_336), 128_256 * 4096
    hours = 8 * (layers * 600 + head * 400) * 1000 / 50e9 / 3600  # 6 to train and 2 for the reference
    assert row["full h"] == f"{hours:,.0f}"
    assert row["LoRA bf16 h"] == f"{hours * 6 / 8 / 2:,.0f}"
    assert row["full fp32 GB"] == f"{16 * (layers + 2 * head) / 1e9:,.0f}"
    assert row["sampling bf16 h"] == "–"
