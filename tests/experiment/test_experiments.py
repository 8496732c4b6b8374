"""Every shipped experiment can be planned, and every kind of stage in it has settings that its command takes."""

from pathlib import Path

import pytest
import yaml

from dgs_lightning.commands.cli import check
from dgs_lightning.configs import ROOT
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.settings import load_experiment
from dgs_lightning.experiment.stage import Stage
from dgs_lightning.reporting.names import on_subset, split_variant
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
    parts = [load_experiment(name, []) for name in EXPERIMENTS if name.partition("_")[0] == f"table{number}"]
    assert {part.classes for part in parts} == {s.dataset for s in PUBLISHED[number]}
    elsewhere = {"d4m_quoted"}  # D4M with Stable Diffusion, which stands in Table 2 by its published numbers
    for experiment in parts:
        subsets = [on_subset(row, name) for row in experiment.methods for name in experiment.validation]
        rows = [split_variant(row, experiment.variants) for row in (*experiment.methods, *subsets)]
        ours = {(method, variant or DEFAULT_VARIANTS.get(number, "")) for method, variant in rows}
        ours -= {("d4m", "")}  # with a DiT in place of Stable Diffusion, beside the published numbers
        assert ours == {(s.method, s.variant) for s in PUBLISHED[number] if s.method not in elsewhere}
        assert set(experiment.networks) == {s.network for s in PUBLISHED[number]}
        assert set(experiment.ipcs) == {s.ipc for s in PUBLISHED[number]}


def test_the_halves_of_table_3_have_names_that_differ_so_that_one_report_takes_both() -> None:
    halves = [load_experiment(f"table3_{data}", []) for data in ("imagenette", "imageidc")]
    assert [half.name for half in halves] == ["table3_imagenette", "table3_imageidc"]
    assert [half.finetune["config"] for half in halves] == ["minimax/imagenette.yaml", "minimax/imageidc.yaml"]
    with pytest.raises(InputError, match=r"config 'table3'.*one of: table3_imageidc, table3_imagenette\."):
        load_experiment("table3", [])
