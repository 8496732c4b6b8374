import json
import os
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "generation.py"


def test_the_plain_reference_makes_the_same_images() -> None:
    """The benchmark itself stops where they differ; it makes fewer here than a rate takes."""
    options = ["--images", "20", "--repetitions", "1", "--json"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(BENCHMARK), *options]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    figures = json.loads(answer.stdout)
    assert set(figures) == {"images_per_second", "reference_images_per_second", "ratio"}
    assert figures["ratio"] > 1
