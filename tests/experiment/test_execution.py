from collections.abc import Callable
from pathlib import Path

import yaml

from dgs_lightning.experiment.execution import Job, run_stage


def test_a_stage_that_ends_leaves_nothing_of_killed_writers_in_its_folder(
    make_set: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_set("tree", {label: ["1.png", "2.png"] for label in ("cat", "dog")})
    left, kept = tmp_path / "run" / "data" / ".tmpAb3dE6", tmp_path / "run" / ".tmpAb3dE6"
    left.parent.mkdir(parents=True)
    for path in (left, kept):
        path.write_bytes(b"of safetensors")
    config = tmp_path / "run" / "stages" / "data.yaml"
    config.parent.mkdir()
    config.write_text(yaml.safe_dump({"data": str(data), "output": str(left.parent)}))
    outcome = run_stage(Job("data", "prepare", str(config), tmp_path / "run"), lambda done, total: None)
    assert "data/train/cat/1.png" in outcome.results or "data/val/cat/1.png" in outcome.results
    assert not left.exists()
    assert kept.exists()  # beside the stage's folder, where nothing proves that it is the run's
