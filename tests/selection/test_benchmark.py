import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "selection.py"


@pytest.mark.parametrize("preset", ["released", "paper"])
def test_the_plain_reference_chooses_the_same_images(preset: str) -> None:
    """The benchmark itself stops where they differ."""
    options = ["--preset", preset, "--classes", "5", "--originals", "300", "--references", "2", "--json"]
    answer = subprocess.run([sys.executable, str(BENCHMARK), *options], check=True, capture_output=True, text=True)
    figures = json.loads(answer.stdout)
    assert set(figures) == {"seconds", "reference_seconds_per_class", "seconds_per_class", "ratio", "peak_mb"}
    assert figures["ratio"] > 10
