"""Other authors' methods, from one command to their rows, on a few digits."""

import json
from collections import Counter
from pathlib import Path

import pytest

from dgs_lightning.data.cards import read_card
from dgs_lightning.data.folders import read_set
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.run import ExperimentRun
from dgs_lightning.experiment.settings import load_experiment
from dgs_lightning.reporting.folder import read_run
from dgs_lightning.reporting.summary import paired_comparisons
from dgs_lightning.runs.methods import METHODS

PLUGGED = {
    **{"mgd3_dgs": "mgd3", "d4m_dgs": "d4m", "d3hr_dgs": "d3hr"},
    **{"cao2_dgs": "cao2_pool", "rded_dgs": "rded", "igd_dgs": "igd"},
}
ROWS = [*PLUGGED, *PLUGGED.values(), "cao2_select", "cao2"]
SHORT = [
    *("ipc=2", "jobs=1", "folds=2", "draws=1", "pool_multiple=3", "options.rded.mipc=12"),
    "options.d3hr={index: 2, groups: 20, model: {init_args: {steps: 4}}}",
    *("pretrain.trainer.max_steps=4", "generate.model.init_args.steps=4", "soft.trainer.max_epochs=1"),
    "options.igd={config: classify/surrogate_digits.yaml, first: 2, last: 1}",
    *(
        f"{part}.trainer.callbacks=[{{class_path: PublishedLength, init_args: {{steps: 4}}}}]"
        for part in ("cross_fit", "evaluate", "judge")
    ),
]


def test_difficulty_guided_sampling_is_compared_with_the_method_whose_images_it_takes() -> None:
    for row, base in PLUGGED.items():
        assert (METHODS[row].compared_with, METHODS[row].maker) == (base, METHODS[base].maker)
        assert METHODS[row].family == METHODS[base].family == base
        assert METHODS[row].by_chance


def test_a_pool_of_a_method_with_centres_has_several_images_for_each_of_the_same_centres() -> None:
    experiment = load_experiment("rivals_digits", ["methods=[mgd3, mgd3_dgs, d4m_dgs]", "draws=1", "ipc=[2, 10]"])
    stages = {stage.name: stage.config for stage in Plan(experiment).everything()}
    for ipc in (2, 10):
        pool, base = (stages[f"guided/{row}-ipc{ipc}"]["data"]["init_args"] for row in ("mgd3_dgs", "mgd3"))
        assert pool == {**base, "images_per_class": 5 * ipc, "images_per_center": 5}
        selected = stages[f"distilled/mgd3_dgs-ipc{ipc}"]
        assert (selected["method"], selected["pool_images"]) == ("dgs", 5 * ipc)
    started = stages["guided/d4m_dgs-ipc10"]["trainer"]["callbacks"][0]
    assert started == {"class_path": "PrototypeStart", "init_args": {"strength": 0.3}}  # its base's setting


def test_crops_are_cut_once_for_both_rules_by_the_teacher_of_the_run() -> None:
    changes = ["methods=[rded, rded_dgs]", "draws=2", "options.rded={mipc: 50, view: enlarged, quality: 75}"]
    stages = {stage.name: stage for stage in Plan(load_experiment("rivals_digits", changes)).everything()}
    assert [name for name in stages if name.startswith("crops")] == ["crops", "crops-draw1"]
    cut = stages["crops"].config
    assert (cut["mipc"], cut["view"], cut["teacher"].path) == (50, "enlarged", "judge/weights")
    for row, rule in (("rded", "easy"), ("rded_dgs", "dgs")):
        made = stages[f"stitched/{row}-ipc10-draw1"].config
        assert (made["method"], made["quality"], made["crops"].path) == (rule, 75, "crops-draw1")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:smoothing found")
def test_every_rival_runs_from_one_command_to_its_rows_under_both_protocols(tmp_path: Path) -> None:
    run = ExperimentRun(
        load_experiment("rivals_digits", [*SHORT, f"methods=[{', '.join(ROWS)}]"], str(tmp_path / "run"))
    )
    run.execute()
    rows = json.loads((run.output / "summary.json").read_text())["rows"]
    assert Counter(row["network"] for row in rows) == {"convnet2": len(ROWS), "soft/convnet2": len(ROWS)}
    assert all(row["accuracy_last_mean"] > 0 and row["mean_difficulty"] > 0 for row in rows)
    for row in ROWS:
        records = read_set(run.output / "distilled" / f"{row}-ipc2")
        assert set(Counter(record.label for record in records).values()) == {2}
    assert {"patches"} <= read_set(run.output / "stitched" / "rded-ipc2")[0].extra.keys()
    assert read_card(run.output / "stitched" / "rded-ipc2")["settings"]["method"] == "easy"
    compared = {(first, second) for first, second, *_ in paired_comparisons(read_run(run.output))}
    assert set(PLUGGED.items()) | {("cao2_select", "cao2_pool"), ("cao2", "cao2_pool")} == compared
    base, pool = (run.output / "guided" / f"{row}-ipc2" for row in ("mgd3", "mgd3_dgs"))
    for record in read_set(base):  # the first of each centre
        assert (pool / record.file_name).read_bytes() == (base / record.file_name).read_bytes()
    assert (run.output / "figures" / "accuracy.png").is_file()
    again = ExperimentRun(load_experiment("rivals_digits", [*SHORT, f"methods=[{', '.join(ROWS)}]"], str(run.output)))
    assert {again.status(stage) for stage in again.stages} == {"done"}


def test_igd_trains_one_surrogate_for_its_set_and_for_the_pool_of_its_plug_in() -> None:
    changes = ["methods=[igd, igd_dgs]", "draws=2", "pool_multiple=3", "options.igd.scale=10"]
    stages = {stage.name: stage.config for stage in Plan(load_experiment("rivals_digits", changes)).everything()}
    assert [name for name in stages if name.startswith("surrogate")] == ["surrogate"]
    trained = stages["surrogate"]
    assert (trained["model"]["init_args"]["network"], trained["trainer"]["max_epochs"]) == ("convnet2", 30)
    assert trained["data"]["init_args"]["val"].path == "data/val"
    for row, images in (("igd", 10), ("igd_dgs", 30)):
        made = stages[f"guided/{row}-ipc10-draw1"]
        guidance = made["trainer"]["callbacks"][0]
        assert guidance["class_path"] == "InfluenceGuidance"
        assert guidance["init_args"].pop("surrogate").path == "surrogate/influence"
        assert guidance["init_args"] == {"chunk": 10, "scale": 10}
        assert made["model"]["init_args"]["keep_latents"] is True
        assert made["data"]["init_args"]["images_per_class"] == images


def test_a_setting_that_igd_does_not_have_is_refused() -> None:
    with pytest.raises(InputError, match=r"igd: found 'strength', expected one of config, scale, deviation_scale"):
        Plan(load_experiment("rivals_digits", ["methods=[igd]", "options.igd={strength: 1}"])).everything()
