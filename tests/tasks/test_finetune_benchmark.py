import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "finetune.py"


def test_the_benchmark_prints_its_figures() -> None:
    options = ["--size", "digits", "--batch", "16", "--steps", "3", "--json"]
    answer = subprocess.run([sys.executable, str(BENCHMARK), *options], check=True, capture_output=True, text=True)
    figures = json.loads(answer.stdout)
    assert {"ms_per_step", "reference_ms_per_step", "ratio", "lightning_overhead"} <= figures.keys()
    assert figures["ratio"] > 0.3
    assert -0.5 < figures["lightning_overhead"] < 2
