import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "evaluation.py"


@pytest.mark.slow
def test_the_benchmark_prints_its_figures() -> None:
    options = ["--size", "32", "--networks", "convnet1", "--epochs", "3", "--repetitions", "1", "--json"]
    answer = subprocess.run([sys.executable, str(BENCHMARK), *options], check=True, capture_output=True, text=True)
    figures = json.loads(answer.stdout)
    assert figures.keys() == {"images_per_second", "reference_images_per_second", "ratio"}
    assert figures["ratio"] > 1
