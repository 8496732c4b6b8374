"""Every shipped experiment can be planned, and every kind of stage in it has settings that its command takes."""

from pathlib import Path

import pytest
import yaml

from dgs_lightning.commands.cli import check
from dgs_lightning.configs import ROOT
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.settings import load_experiment
from dgs_lightning.experiment.stage import Stage
from dgs_lightning.reporting.names import split_variant
from dgs_lightning.reporting.published import DEFAULT_VARIANTS, PUBLISHED

EXPERIMENTS = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))


def kind(stage: Stage) -> tuple[str, str]:
    """What two stages share that differ in paths and numbers alone."""
    return stage.command, stage.name.split("/")[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_shipped_experiment_has_valid_stages(name: str, tmp_path: Path) -> None:
    plan = Plan(load_experiment(name, [f"data={tmp_path}", f"pool={tmp_path}"], str(tmp_path / "run")))
    stages = {kind(stage): stage for stage in plan.everything()}
    assert ("report", "report") in stages
    for stage in stages.values():
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump(stage.settings(tmp_path / "run")))
        check(stage.command, ["--config", str(config)])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_shipped_config_opens_with_the_command_that_runs_it(name: str) -> None:
    first = (ROOT / "experiments" / f"{name}.yaml").read_text().splitlines()[0]
    assert first.startswith("# The published settings" if name == "imagenet" else f"# dgs run {name}")


@pytest.mark.parametrize("number", PUBLISHED)
def test_the_rows_of_a_tables_experiment_are_those_of_the_table(number: int) -> None:
    experiment = load_experiment(f"table{number}", [])
    rows = [split_variant(row, experiment.variants) for row in experiment.methods]
    ours = {(method, variant or DEFAULT_VARIANTS.get(number, "")) for method, variant in rows}
    elsewhere = {"dm", "idc1", "d4m"}  # methods of other authors, which stand in Table 2 by their published numbers
    assert ours == {(s.method, s.variant) for s in PUBLISHED[number] if s.method not in elsewhere}
    assert set(experiment.networks) == {s.network for s in PUBLISHED[number]}
    assert set(experiment.ipcs) == {s.ipc for s in PUBLISHED[number]}
    assert experiment.classes in {s.dataset for s in PUBLISHED[number]}
