"""Tables 1 to 7 of a tiny grid on the digits, with two draws and two trainings of each set."""

import json
from pathlib import Path

import pytest
import yaml

from dgs_lightning.commands.report import report
from dgs_lightning.experiment.run import ExperimentRun
from dgs_lightning.experiment.settings import load_experiment

pytestmark = pytest.mark.slow

GRID = {
    "base": "quickstart",
    "methods": ["kcenter", "dit", "dit_dgs", "hill", "pool2", "dag", "dag_30"],
    "variants": {
        "hill": {"method": "dit_dgs", "select": {"distribution": "hill"}},
        "pool2": {"method": "dit_dgs", "pool_multiple": 2},
        "dag_30": {"method": "dag", "dag": {"stop_timestep": 30}},
    },
    "validation": ["random", "easy", "scale"],
    "ipc": 1,
    "draws": 2,
    "repeats": 2,
    "networks": ["convnet1"],
    "pool_multiple": 3,
    "folds": 2,
    "judge": None,
    "jobs": 1,
    "pretrain": {"trainer": {"max_steps": 2}},
    "generate": {"model": {"init_args": {"steps": 4}}},
    "cross_fit": {"trainer": {"max_steps": 20}},
    "evaluate": {"model": {"init_args": {"width": 4}}, "trainer": {"max_steps": 2}},
}


@pytest.mark.filterwarnings("ignore:smoothing found")  # the difficulties of an untrained estimator are all alike
def test_all_tables_show_two_draws_and_the_share_of_training(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID))
    run = ExperimentRun(load_experiment(str(tmp_path / "grid.yaml"), [], str(tmp_path / "grid")))
    run.execute()
    report([str(run.output)], tables=list(range(1, 8)))
    rows = json.loads((run.output / "summary.json").read_text())["rows"]
    for row in rows:
        one_set = row["method"].startswith("kcenter")
        assert (row["sets"], row["trainings"]) == (1 if one_set else 2, 4)
        assert one_set or 0 <= row["training_share"] <= 1
    for number in range(1, 8):
        [table] = (run.output / "tables").glob(f"table{number}-*.md")
        text = table.read_text()
        assert "2 draws" in text
        assert "hill, val" not in text  # a table varies one thing
        assert text.count("±") >= 2
    text = (run.output / "summary.md").read_text()
    assert "| Training noise |" in text
    assert "Training noise: its estimated share" in text
