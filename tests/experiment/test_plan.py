from dataclasses import replace
from pathlib import Path

import pytest

from dgs_lightning.distil.selection import BY_FEATURES
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.settings import Experiment, load_experiment
from dgs_lightning.experiment.stage import Given, InRun, Stage, one_of_each_kind, stage_keys
from dgs_lightning.reporting.names import show_row
from dgs_lightning.runs.fingerprints import fingerprints
from dgs_lightning.runs.layout import Training
from dgs_lightning.runs.methods import FEATURE_RULES, METHODS, MadeBy, Method, Use, register
from dgs_lightning.seeding import draw_and_repeat, draw_seed

SMALL = Experiment(
    title="small",
    methods=["random", "dit", "dit_dgs", "minimax_dgs", "full"],
    ipc=[10, 20],
    networks=["convnet2"],
    draws=1,
    repeats=2,
    output="runs/small",
    data="digits",
    prepare={},
)


def stages(experiment: Experiment) -> list[Stage]:
    return Plan(experiment).everything()


def keys(experiment: Experiment) -> dict[str, str]:
    planned = stages(experiment)
    return stage_keys(planned, fingerprints(path for stage in planned for path in stage.inputs))


def test_methods_share_pools_scores_and_models() -> None:
    names = [stage.name for stage in stages(SMALL)]
    assert len(names) == len(set(names))
    assert [name for name in names if name.startswith("pools/")] == ["pools/dit", "pools/minimax"]
    assert sum(name.startswith("evaluation/") for name in names) == 2 * (2 * 4 + 1)
    assert names[-1] == "report"


def test_a_stage_comes_after_what_it_needs() -> None:
    seen: set[str] = set()
    for stage in stages(SMALL):
        assert {needed.name for needed in stage.needs} <= seen
        seen.add(stage.name)


def test_one_pool_serves_every_ipc() -> None:
    by_name = {stage.name: stage for stage in stages(SMALL)}
    assert by_name["pools/dit"].config["data"]["init_args"]["images_per_class"] == 100
    assert by_name["distilled/dit_dgs-ipc10"].config["pool_images"] == 50


def test_a_changed_setting_changes_its_stage_and_all_that_depend_on_it_and_no_other() -> None:
    before, after = keys(SMALL), keys(replace(SMALL, finetune={"trainer": {"max_steps": 7}}))
    changed = {name for name in before if before[name] != after[name]}
    assert {"finetune", "pools/minimax", "scores/minimax", "distilled/minimax_dgs-ipc10", "report"} <= changed
    assert not {"data", "latents", "pretrain", "pools/dit", "distilled/dit-ipc10", "scores/original"} & changed


@pytest.mark.parametrize("output", ["elsewhere/run", "data", "seed", "pools", "model", "fit", "."])
def test_the_run_folder_is_no_part_of_the_keys(output: str) -> None:
    assert keys(SMALL) == keys(replace(SMALL, output=output))


def test_the_settings_of_a_stage_name_paths_in_the_run_folder() -> None:
    by_name = {stage.name: stage for stage in stages(SMALL)}
    settings = by_name["distilled/dit_dgs-ipc10"].settings(Path("runs/small"))
    assert settings["pool"] == "runs/small/pools/dit"
    assert settings["output"] == "runs/small/distilled/dit_dgs-ipc10"
    assert by_name["report"].settings(Path(".")) == {"runs": ["."], "threads": 1}


def test_a_stage_needs_the_stages_whose_folders_its_settings_name() -> None:
    by_name = {stage.name: stage for stage in stages(SMALL)}
    needs = {name: {needed.name for needed in stage.needs} for name, stage in by_name.items()}
    assert needs["finetune"] == {"latents", "pretrain"}
    assert needs["distilled/dit_dgs-ipc10"] == {"data", "scores/original", "scores/dit", "pools/dit"}
    assert needs["evaluation/random-ipc10/convnet2/seed0"] == {"data", "distilled/random-ipc10"}
    assert needs["report"] == set(by_name) - {"report"}


def test_data_that_were_moved_change_no_key(tmp_path: Path) -> None:
    folders = [tmp_path / place / "photos" for place in ("here", "there")]
    (folders[0] / "a").mkdir(parents=True)
    (folders[0] / "a" / "1.png").write_bytes(b"one")
    before = keys(replace(SMALL, data=str(folders[0])))
    folders[1].parent.mkdir()
    folders[0].rename(folders[1])
    assert keys(replace(SMALL, data=str(folders[1]))) == before


def test_a_changed_input_file_changes_the_stages_that_read_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    image = tmp_path / "a" / "1.png"
    image.write_bytes(b"one")
    experiment = replace(SMALL, data=str(tmp_path))
    before = keys(experiment)
    image.write_bytes(b"three")
    assert before["data"] != keys(experiment)["data"]


def test_a_pretrained_dit_is_not_trained_again() -> None:
    names = {stage.name for stage in stages(replace(SMALL, dit="facebook/DiT-XL-2-256"))}
    assert "pretrain" not in names
    assert "finetune" in names


def test_local_weights_of_the_estimator_serve_its_scores_and_the_features_of_its_network(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"one")
    experiment = replace(SMALL, methods=["kcenter"], ipc=10, select={"features": "timm:resnet18"})
    experiment = replace(experiment, estimator="timm:resnet18", estimator_weights=str(weights))
    before, by_name = keys(experiment), {stage.name: stage for stage in stages(experiment)}
    assert by_name["scores/original"].config["model"]["init_args"]["weights"] == Given(str(weights))
    assert by_name["distilled/kcenter-ipc10"].config["features_weights"] == Given(str(weights))
    weights.write_bytes(b"three")
    assert before["scores/original"] != keys(experiment)["scores/original"]


@pytest.mark.parametrize(
    ("name", "changes", "features"),
    [
        ("quickstart", [], InRun("estimator/fold0/weights")),
        ("quickstart", ["select.features=pixels"], "pixels"),
        ("table1", ["data=FOLDER"], "torchvision:resnet50"),
        ("imagewoof64", ["data=FOLDER"], "timm:tf_efficientnet_lite0"),
    ],
)
def test_coresets_compare_features_of_the_estimator_unless_pixels_are_asked_for(
    name: str, changes: list[str], features: object
) -> None:
    few = ["methods=[kcenter, random]", "ipc=10", "draws=1", "networks=[]"]
    selected = {stage.name: stage for stage in stages(load_experiment(name, [*few, *changes]))}
    kcenter, random = (selected[f"distilled/{method}-ipc10"] for method in ("kcenter", "random"))
    assert kcenter.config["features"] == features
    assert changes or "features" not in random.config
    if isinstance(features, InRun):
        assert "estimator/fold0" in {needed.name for needed in kcenter.needs}


def test_the_plan_knows_the_rules_that_compare_features() -> None:
    assert set(FEATURE_RULES) == set(BY_FEATURES)


def test_where_the_steps_are_given_the_whole_training_set_has_more_of_them_than_a_set() -> None:
    few = ["methods=[random, full]", "ipc=[10, 20]", "draws=1", "networks=[convnet3]"]
    more = {"steps_ipc": 10}
    for name, data, expected in (
        ("quickstart", "digits", more),
        ("own_images", "digits", more),
        ("table1", "DATA", {}),
    ):
        settings = {}
        for stage in stages(load_experiment(name, [f"data={data}", *few])):
            if stage.name.startswith("evaluation/"):
                length = next(c for c in stage.config["trainer"]["callbacks"] if c["class_path"] == "PublishedLength")
                settings[stage.name.split("/")[1].startswith("full")] = length["init_args"]
        assert settings[True] == {**settings[False], **expected}


def test_another_autoencoder_changes_the_latents_and_what_is_decoded(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text("one")
    experiment = replace(SMALL, codec=str(tmp_path))
    before = keys(experiment)
    config.write_text("three")
    changed = {name for name, key in keys(experiment).items() if key != before[name]}
    assert {"latents", "pools/dit"} <= changed
    assert not {"data", "scores/original"} & changed


def test_a_class_that_a_sections_file_names_takes_the_place_of_the_usual_one(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: {class_path: MyTask}\ndata: {init_args: {batch_size: 7}}")
    by_name = {stage.name: stage for stage in stages(replace(SMALL, evaluate={"config": str(file)}))}
    config = by_name["evaluation/full/convnet2/seed0"].config
    assert (config["model"]["class_path"], config["data"]["class_path"]) == ("MyTask", "ImageDataModule")
    assert config["data"]["init_args"]["batch_size"] == 7


def test_more_than_100_classes_are_trained_on_in_batches_of_128() -> None:
    for name, batch in (("imagenet100", 64), ("imagenet1k", 128)):
        by_name = {stage.name: stage for stage in stages(load_experiment(name, ["data=FOLDER"]))}
        data = by_name["evaluation/random-ipc10/resnet_ap10/seed0"].config["data"]["init_args"]
        assert data["batch_size"] == batch


def test_an_unknown_method_is_named_with_those_that_exist() -> None:
    with pytest.raises(InputError, match=r"'dream'.*minimax_dgs"):
        stages(replace(SMALL, methods=["dream"]))


def test_changes_on_the_command_line_reach_nested_settings() -> None:
    experiment = load_experiment("quickstart", ["finetune.trainer.max_steps=7", "ipc=[1, 2]"])
    assert experiment.finetune["trainer"]["max_steps"] == 7
    assert experiment.finetune["config"] == "minimax/digits.yaml"
    assert experiment.ipcs == [1, 2]
    assert experiment.output == "runs/quickstart"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["colour=3"], "colour"),
        (["ipc=0"], "at least 1"),
        (["repeats=many"], "repeats"),
        (["ipc"], "key=value"),
        (["folds=1"], "at least 2"),
        (["guided=pool"], "guided"),
    ],
)
def test_a_wrong_setting_is_named(changes: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_experiment("quickstart", changes)


def test_a_misspelt_experiment_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="quickstart"):
        load_experiment("quikstart", [])


def test_a_variant_shares_all_but_what_it_changes() -> None:
    hill = {"method": "dit_dgs", "select": {"distribution": "hill"}, "pool_multiple": 6}
    experiment = replace(SMALL, methods=["dit_dgs", "hill"], variants={"hill": hill}, ipc=10)
    by_name = {stage.name: stage for stage in stages(experiment)}
    assert by_name["distilled/hill-ipc10"].config["distribution"] == "hill"
    assert by_name["distilled/hill-ipc10"].config["pool_images"] == 60
    assert by_name["distilled/dit_dgs-ipc10"].config["pool_images"] == 50
    assert by_name["pools/dit"].config["data"]["init_args"]["images_per_class"] == 60


def test_the_quickstart_shows_what_smoothing_does_and_the_nearest_set_of_the_same_pool() -> None:
    shown = ["dit_dgs", "dit_dgs-unsmoothed", "dit_transport"]
    experiment = load_experiment("quickstart", [])
    assert set(shown) <= set(experiment.methods)
    configs = {stage.name: stage.config for stage in stages(replace(experiment, methods=shown, networks=[], draws=1))}
    rows = {row: configs[f"distilled/{row}-ipc10"] for row in shown}
    assert (rows["dit_dgs-unsmoothed"]["smoothing"], rows["dit_dgs-unsmoothed"]["shortage"]) == ("none", "nearest")
    assert "smoothing" not in rows["dit_dgs"]
    assert rows["dit_transport"]["method"] == "transport"
    for name in ("pool", "pool_scores", "original", "original_scores", "seed"):
        assert len({str(config[name]) for config in rows.values()}) == 1
    assert show_row("dit_dgs-unsmoothed", experiment.variants) == "DiT + DGS (unsmoothed)"


def test_the_quickstart_learns_images_by_matching_for_a_hundred_steps_a_draw() -> None:
    learned = [stage for stage in stages(load_experiment("quickstart", [])) if stage.name.startswith("matched/")]
    assert [stage.name for stage in learned] == ["matched/dm-ipc10", "matched/dm-ipc10-draw1", "matched/dm-ipc10-draw2"]
    for stage in learned:
        assert stage.config["trainer"]["max_steps"] == 100
        assert stage.config["model"]["init_args"]["network"] == "convnet2"


def test_a_variant_may_not_change_what_it_shares() -> None:
    variants = {"longer": {"method": "minimax", "finetune": {"trainer": {"max_steps": 7}}}}
    with pytest.raises(InputError, match=r"variants\.longer"):
        stages(replace(SMALL, methods=["longer"], variants=variants))


def test_of_stages_that_differ_in_what_the_plan_counts_up_and_own_paths_alone_one_stands_for_all() -> None:
    later = {"method": "dag", "dag": {"stop_timestep": 30}}
    experiment = replace(SMALL, ipc=[1, 10], methods=[*SMALL.methods, "dag", "later"], variants={"later": later})
    everything = stages(experiment)
    kinds = one_of_each_kind(everything)
    assert [stage.name for stage in kinds if stage.name.startswith("evaluation/")] == [
        "evaluation/random-ipc1/convnet2/seed0",  # trained on a distilled set
    ]
    guided = [stage.config["trainer"]["callbacks"][0] for stage in kinds if stage.name.startswith("guided/")]
    assert [callback["init_args"].get("stop_timestep") for callback in guided] == [30, None]
    assert len(kinds) < len(everything) / 3


def test_a_dit_is_trained_by_a_task_of_its_stage_whose_weights_are_written_once() -> None:
    own = {"trainer": {"callbacks": [{"class_path": "dgs_lightning.WeightsWriter"}]}}
    for finetune in ({}, {"trainer": {"callbacks": [{"class_path": "SampleGrid"}]}}, own, {"config": "minimax/digits"}):
        by_name = {stage.name: stage for stage in stages(replace(SMALL, finetune=finetune))}
        tasks = {name: by_name[name].config["model"]["class_path"] for name in ("pretrain", "finetune")}
        assert tasks == {"pretrain": "DiffusionTask", "finetune": "MinimaxTask"}
        for name in tasks:
            callbacks = by_name[name].config["trainer"]["callbacks"]
            assert sum(callback["class_path"].endswith("WeightsWriter") for callback in callbacks) == 1


@pytest.mark.parametrize("finetune", [{"config": "minimax/imagewoof.yaml"}, {"trainer": {"callbacks": ["SampleGrid"]}}])
def test_sample_grids_are_decoded_by_the_codec_of_the_latents(finetune: dict[str, object]) -> None:
    experiment = replace(SMALL, finetune=finetune, codec="my/codec")
    by_name = {stage.name: stage for stage in stages(experiment)}
    callbacks = {entry["class_path"]: entry for entry in by_name["finetune"].config["trainer"]["callbacks"]}
    assert callbacks["SampleGrid"]["init_args"]["codec"] == by_name["latents"].config["model"]["init_args"]["codec"]
    assert "SampleGrid" not in callbacks_of(experiment, "pretrain")


@pytest.mark.parametrize("given", [None, False])
def test_generation_alone_of_the_predictions_has_a_logger_unless_the_user_wants_none(given: bool | None) -> None:
    generate = {} if given is None else {"trainer": {"logger": given}}
    experiment = replace(SMALL, generate=generate)
    loggers = {s.name: s.config["trainer"].get("logger") for s in stages(experiment) if s.command == "predict"}
    assert {loggers[f"pools/{name}"] for name in ("dit", "minimax")} == {given is None}
    assert not {loggers[name] for name in loggers if not name.startswith("pools/")} - {False}


def callbacks_of(experiment: Experiment, name: str) -> list[str]:
    config = next(stage.config for stage in stages(experiment) if stage.name.startswith(name))
    return [callback["class_path"] for callback in config["trainer"]["callbacks"]]


def test_every_training_of_a_classifier_writes_its_result_once() -> None:
    own = {"trainer": {"callbacks": [{"class_path": "dgs_lightning.ResultWriter"}, {"class_path": "Other"}]}}
    assert callbacks_of(SMALL, "evaluation/") == ["PublishedLength", "ResultWriter"]
    assert callbacks_of(replace(SMALL, evaluate=own), "evaluation/") == [
        "dgs_lightning.ResultWriter",
        "Other",
        "PublishedLength",
    ]
    assert callbacks_of(replace(SMALL, cross_fit=own), "estimator/") == ["ResultWriter", "Other", "PublishedLength"]


def test_the_weights_of_a_classifier_are_kept_where_another_stage_reads_them() -> None:
    found = {stage.name.split("/")[0]: stage for stage in stages(load_experiment("quickstart", []))}
    writers = {
        name: callback.get("init_args", {}).get("save_weights", False)
        for name in ("estimator", "judge", "evaluation")
        for callback in found[name].config["trainer"]["callbacks"]
        if callback["class_path"] == "ResultWriter"
    }
    assert writers == {"estimator": True, "judge": True, "evaluation": False}


def test_every_stage_says_how_many_threads_it_computes_with() -> None:
    assert {stage.config["threads"] for stage in stages(replace(SMALL, threads=3))} == {3}


def test_rows_with_the_same_centres_share_the_stage_that_computes_them() -> None:
    later = {"method": "dag", "dag": {"stop_timestep": 30}}
    smoothed = {"method": "dag", "dag": {"smoothing": "paper"}}
    experiment = replace(
        SMALL, ipc=10, methods=["dag", "later", "smoothed"], variants={"later": later, "smoothed": smoothed}
    )
    by_name = {stage.name: stage for stage in stages(experiment)}
    centers = {
        row: by_name[f"guided/{row}-ipc10"].config["data"]["init_args"]["centers"].path for row in experiment.methods
    }
    assert centers["dag"] == centers["later"] == "centers/dag-ipc10/centers.safetensors"
    assert centers["smoothed"] == "centers/smoothed-ipc10/centers.safetensors"


def test_d4m_starts_from_the_centres_of_mode_guidance_at_its_strength() -> None:
    experiment = replace(SMALL, ipc=10, methods=["mgd3", "d4m"], options={"d4m": {"strength": 0.3}})
    by_name = {stage.name: stage for stage in stages(experiment)}
    assert [name for name in by_name if name.startswith("centers/")] == ["centers/mgd3-ipc10"]
    started = by_name["guided/d4m-ipc10"].config
    assert started["trainer"]["callbacks"][0] == {"class_path": "PrototypeStart", "init_args": {"strength": 0.3}}
    assert started["data"] == by_name["guided/mgd3-ipc10"].config["data"]
    assert METHODS["d4m_quoted"].quoted
    assert METHODS["d4m"].title != METHODS["d4m_quoted"].title


def test_cao2_selects_from_the_candidates_of_its_base_which_have_a_scale_of_their_own() -> None:
    changed = {"model": {"init_args": {"guidance_scale": 1.5}}}
    for options, scale in (({}, 2.7), ({"cao2": changed}, 1.5)):
        experiment = replace(SMALL, ipc=10, methods=["dit", "cao2_select", "cao2_pool"], options=options)
        by_name = {stage.name: stage for stage in stages(experiment)}
        assert by_name["pools/cao2"].config["model"]["init_args"]["guidance_scale"] == scale
        assert "guidance_scale" not in by_name["pools/dit"].config["model"]["init_args"]
        sets = [by_name[f"distilled/{row}-ipc10"].config for row in ("cao2_pool", "cao2_select")]
        assert [config["method"] for config in sets] == ["first", "right_confident"]
        assert [config["pool"] for config in sets] == [InRun("pools/cao2")] * 2
        assert [config["pool_scores"] for config in sets] == [InRun("scores/cao2")] * 2


def test_cao2_refines_what_it_selected_with_the_settings_of_its_candidates() -> None:
    options = {"cao2": {"lr": 0.005, "preset": "released", "model": {"init_args": {"guidance_scale": 1.5}}}}
    experiment = replace(SMALL, ipc=10, methods=["cao2_select", "cao2"], options=options, draws=2)
    by_name = {stage.name: stage for stage in stages(experiment)}
    for draw in ("", "-draw1"):
        chosen, refined = (by_name[f"{part}/cao2-ipc10{draw}"] for part in ("selected", "refined"))
        pool, row = by_name[f"pools/cao2{draw}"].config, by_name[f"distilled/cao2_select-ipc10{draw}"].config
        for name in ("method", "ipc", "seed", "pool", "pool_scores", "pool_images"):
            assert chosen.config[name] == row[name]
        assert refined.config["data"]["init_args"]["images"] == InRun(chosen.name)
        assert refined.config["model"] == {
            "class_path": "RefinementTask",
            "init_args": {**pool["model"]["init_args"], "refinement": {"lr": 0.005, "preset": "released"}},
        }
        assert pool["model"]["class_path"] == "GenerationTask"
        assert by_name[f"distilled/cao2-ipc10{draw}"].config["pool"] == InRun(refined.name)
    assert METHODS["cao2_select"].maker == METHODS["cao2_pool"].maker == METHODS["cao2"].maker == "cao2"


def test_d3hr_inverts_once_and_starts_at_the_index_of_the_inversion() -> None:
    options = {"d3hr": {"index": 20, "groups": 50, "model": {"init_args": {"steps": 40}}}}
    experiment = replace(SMALL, ipc=[10, 20], methods=["d3hr", "d3hr_dgs"], options=options, draws=2)
    by_name = {stage.name: stage.config for stage in stages(experiment)}
    assert [name for name in by_name if name.startswith("inverted/")] == ["inverted/d3hr-ipc10"]
    inverted = by_name["inverted/d3hr-ipc10"]["model"]
    assert inverted["class_path"] == "InversionTask"
    for row, kept, images in (("d3hr", None, 20), ("d3hr_dgs", 5, 100)):
        drawn, made = (by_name[f"{part}/{row}-ipc20-draw1"] for part in ("centers", "guided"))
        assert (drawn["latents"], drawn["groups"], drawn.get("kept")) == (InRun("inverted/d3hr-ipc10"), 50, kept)
        assert drawn["seed"] == draw_seed(0, 1)
        assert made["trainer"]["callbacks"][0] == {"class_path": "InvertedStart", "init_args": {"index": 20}}
        model = made["model"]["init_args"]
        assert (model["sampler"], model["steps"], model["dit"]) == ("ddim", 40, inverted["init_args"]["dit"])
        assert (inverted["init_args"]["steps"], inverted["init_args"]["index"]) == (40, 20)
        assert made["data"]["init_args"]["images_per_class"] == images


@pytest.mark.parametrize(
    ("row", "setting"),
    [("cao2", "rate"), ("d3hr_dgs", "rate"), ("cao2_select", "rate"), ("mgd3", "rate"), ("rded", "lr")],
)
def test_a_setting_that_no_stage_of_a_method_has_is_refused(row: str, setting: str) -> None:
    owner = METHODS[row].maker
    options = {"mgd3": {setting: 1}} if owner == "mgd3" else {"options": {owner: {setting: 1}}}
    with pytest.raises(InputError, match=f"^{owner}.*{setting}.*Correct the setting"):
        stages(replace(SMALL, ipc=10, methods=[row], **options))


def test_rows_that_are_left_out_change_no_pool() -> None:
    variants = {"pool6": {"method": "dit_dgs", "pool_multiple": 6}}
    for rows in (["dit"], ["dit", "pool6"]):
        by_name = {s.name: s.config for s in stages(replace(SMALL, ipc=10, methods=rows, variants=variants))}
        assert by_name["pools/dit"]["data"]["init_args"]["images_per_class"] == 60
        assert by_name["distilled/dit-ipc10"]["pool_images"] == 50


def test_a_row_whose_pool_has_other_settings_has_a_pool_of_its_own() -> None:
    scaled = {"options": {"dit": {"model": {"init_args": {"guidance_scale": 4}}}}}
    variants = {"strong": {"method": "dit", **scaled}, "both": {"method": "dit_dgs", **scaled}}
    rows = ["dit", "strong", "both", "dit_dgs"]
    by_name = {s.name: s.config for s in stages(replace(SMALL, ipc=10, methods=rows, variants=variants, draws=2))}
    for draw in ("", "-draw1"):
        pools = [by_name[f"distilled/{row}-ipc10{draw}"]["pool"].path for row in rows]
        assert pools == [f"pools/dit{draw}", f"pools/dit-strong{draw}", f"pools/dit-strong{draw}", f"pools/dit{draw}"]
        scored = by_name[f"distilled/both-ipc10{draw}"]["pool_scores"].path
        assert by_name[scored]["data"]["init_args"]["predict"].path == f"pools/dit-strong{draw}"
        own, shared = (by_name[pool]["model"]["init_args"] for pool in (pools[1], pools[0]))
        assert (own.get("guidance_scale"), shared.get("guidance_scale")) == (4, None)


def test_a_method_with_an_ipc_of_its_own_has_rows_for_that_one_alone() -> None:
    changes = ["methods=[random, dm, dsa]", "ipc=[1, 10]", "options.dsa={ipc: 1, trainer: {max_steps: 5}}"]
    experiment = load_experiment("quickstart", changes)
    assert experiment.rows == [("random", 1), ("dm", 1), ("dsa", 1), ("random", 10), ("dm", 10)]
    by_name = {stage.name: stage.config for stage in stages(experiment)}
    assert [name for name in by_name if name.startswith("matched/dsa-")] == [
        f"matched/dsa-ipc1{d}" for d in ("", "-draw1", "-draw2")
    ]
    assert by_name["matched/dsa-ipc1"]["model"]["init_args"]["images"]["ipc"] == 1
    assert "ipc" not in by_name["matched/dsa-ipc1"]


def test_methods_that_have_no_row_at_all_are_refused() -> None:
    experiment = load_experiment("quickstart", ["methods=[dsa]", "ipc=10", "options.dsa={ipc: 1}"])
    with pytest.raises(InputError, match=r"methods: found dsa, which options give another ipc than 10"):
        stages(experiment)


@pytest.mark.parametrize("ipc", ["0", "ten", "[1, 10]"])
def test_an_ipc_of_a_method_that_is_no_number_is_refused(ipc: str) -> None:
    with pytest.raises(InputError, match=r"options.dsa.ipc.*expected the one IPC"):
        load_experiment("quickstart", [f"options.dsa={{ipc: {ipc}}}"])


@pytest.mark.parametrize(("row", "other"), [("d4m_transport", "d4m_dgs"), ("cao2_transport", "cao2_dgs")])
def test_transport_takes_from_the_pool_of_guided_sampling(row: str, other: str) -> None:
    by_name = {stage.name: stage.config for stage in stages(replace(SMALL, ipc=10, methods=[other, row]))}
    ours, theirs = (by_name[f"distilled/{name}-ipc10"] for name in (row, other))
    assert (ours["method"], theirs["method"]) == ("transport", "dgs")
    assert (ours["pool"], ours["pool_images"]) == (theirs["pool"], theirs["pool_images"])


def test_the_side_of_the_stop_reaches_the_guidance_of_a_method() -> None:
    later = {"method": "dag", "dag": {"stop_timestep": 50}}
    experiment = replace(SMALL, ipc=10, methods=["mgd3", "later"], variants={"later": later}, dag={"guided": "below"})
    by_name = {stage.name: stage for stage in stages(experiment)}
    for row, expected in (("mgd3", {}), ("later", {"stop_timestep": 50, "guided": "below"})):
        assert by_name[f"guided/{row}-ipc10"].config["trainer"]["callbacks"][0]["init_args"] == expected


def test_a_setting_that_no_stage_of_a_method_takes_is_refused() -> None:
    with pytest.raises(InputError, match=r"dag: found 'strength', expected one of smoothing, .*stop_timestep"):
        stages(replace(SMALL, ipc=10, methods=["dag"], dag={"strength": 2}))


DRAWN = replace(SMALL, methods=["random", "kcenter", "dit", "dit_dgs", "mgd3", "full"], ipc=10, draws=3, repeats=2)


def test_each_draw_has_its_own_pool_centres_and_set_and_shares_models_and_scores_of_the_originals() -> None:
    by_name = {stage.name: stage for stage in stages(DRAWN)}
    for kind in ("pools/dit", "scores/dit", "distilled/dit_dgs-ipc10", "distilled/random-ipc10", "centers/mgd3-ipc10"):
        assert {kind, f"{kind}-draw1", f"{kind}-draw2"} == {name for name in by_name if name.startswith(kind)}
    for shared in ("latents", "pretrain", "scores/original", "distilled/kcenter-ipc10"):
        assert [name for name in by_name if name.startswith(shared)] == [shared]
    second = by_name["distilled/dit_dgs-ipc10-draw1"]
    assert {"pools/dit-draw1", "scores/dit-draw1", "scores/original"} <= {needed.name for needed in second.needs}


def test_the_seeds_of_a_draw_are_named_and_those_of_the_first_are_the_runs() -> None:
    by_name = {stage.name: stage for stage in stages(replace(DRAWN, seed=7))}
    for draw, suffix in enumerate(("", "-draw1", "-draw2")):
        assert by_name[f"pools/dit{suffix}"].config["data"]["init_args"]["seed"] == draw_seed(7, draw)
        assert by_name[f"centers/mgd3-ipc10{suffix}"].config["seed"] == draw_seed(7, draw)
        assert by_name[f"distilled/random-ipc10{suffix}"].config["seed"] == draw_seed(7, draw)
    assert draw_seed(7, 0) == 7
    assert by_name["pretrain"].config["model"]["init_args"]["seed"] == 7


def test_every_method_has_draws_times_repeats_trainings_with_the_same_seeds() -> None:
    trainings = [Training.parse(name) for name in (s.name for s in stages(DRAWN)) if name.startswith("evaluation/")]
    seeds = {0, 1, 1000, 1001, 2000, 2001}
    for row in DRAWN.methods:
        assert {training.seed for training in trainings if training.trained_on.row == row} == seeds
    sets = {row: {t.trained_on for t in trainings if t.trained_on.row == row} for row in DRAWN.methods}
    assert {row: len(names) for row, names in sets.items()} == {
        **dict.fromkeys(DRAWN.methods, 3),
        "kcenter": 1,
        "full": 1,
    }
    assert all(draw_and_repeat(0, t.seed)[0] == t.trained_on.draw for t in trainings if len(sets[t.trained_on.row]) > 1)


def test_draws_on_a_given_pool_select_anew_from_the_one_pool() -> None:
    experiment = replace(DRAWN, methods=["pool", "pool_dgs"], pool="photos", estimator="timm:resnet18", networks=[])
    names = [stage.name for stage in stages(experiment)]
    assert [name for name in names if name.startswith("scores/pool")] == ["scores/pool"]
    assert [name for name in names if name.startswith("distilled/pool-")] == ["distilled/pool-ipc10"]
    assert sum(name.startswith("distilled/pool_dgs-") for name in names) == 3


def test_a_stage_without_the_seed_of_a_draw_is_made_once_and_what_follows_a_drawn_stage_for_each_draw() -> None:
    plain = MadeBy("crops", "select", settings={"pool": Use("train"), "method": "all"})
    drawn = replace(plain, name="mixed", settings={"pool": Use("previous"), "method": "random", "seed": Use("seed")})
    after = replace(plain, name="refined", settings={"pool": Use("previous"), "method": "all"})
    register(Method("chain", "Chain", "#000000", "all", stages=(plain, drawn, after)))
    try:
        names = {stage.name for stage in stages(replace(DRAWN, methods=["chain"], draws=2, networks=[]))}
    finally:
        del METHODS["chain"]
    assert {"crops", "mixed", "mixed-draw1", "refined", "refined-draw1"} <= names
    assert "crops-draw1" not in names


def test_table_6_evaluates_18_trainings_each_on_the_whole_validation_set_and_on_three_subsets(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    experiment = load_experiment("table6", [f"data={tmp_path}"], str(tmp_path / "run"))
    planned = stages(experiment)
    trainings = [stage for stage in planned if stage.name.startswith("evaluation/")]
    assert len(trainings) == 2 * 3 * experiment.draws * experiment.repeats == 18
    subsets = [InRun(f"validation/{name}") for name in ("random", "easy", "scale")]
    for stage in trainings:
        assert stage.config["data"]["init_args"]["val"] == [Given(f"{tmp_path}/val"), *subsets]
    by_name = {stage.name: stage for stage in planned}
    for subset in subsets:
        config = by_name[subset.path].config
        assert (config["share"], config["pool_scores"]) == (0.5, InRun("scores/val"))
        assert (config["original"], config["original_scores"]) == (f"{tmp_path}/train", InRun("scores/original"))
    names = list(by_name)
    assert max(names.index(subset.path) for subset in subsets) < names.index("finetune")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("validation=easy", r"validation: found 'easy', .*Write it as validation: \[easy\]"),
        ("validation=all", r"validation: found 'all', .*Remove it"),
        ("variants.x={method: random, validation: easy}", r"variants\.x\.validation: .*as validation: \[easy\]"),
    ],
)
def test_a_validation_set_for_some_rows_alone_is_refused_with_its_new_place(changes: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_experiment("quickstart", [changes])


def test_links_are_followed_by_the_stages_that_read_images_outside_of_the_run(tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
    data = replace(SMALL, data=str(tmp_path), prepare=None)
    plain, followed = ({s.name: s.config for s in stages(e)} for e in (data, replace(data, links="follow")))
    assert followed["distilled/random-ipc10"]["links"] == "follow"
    for name in ("latents", "scores/original", "estimator/fold0", "evaluation/full/convnet2/seed0"):
        loading = followed[name]["data"]["init_args"]["loading"]
        assert loading == plain[name]["data"]["init_args"].get("loading", {}) | {"links": "follow"}
    assert followed["pools/dit"] == plain["pools/dit"]
    prepared = {s.name: s.config for s in stages(replace(SMALL, data=str(tmp_path), links="follow"))}
    assert prepared["data"]["links"] == "follow"
    assert "loading" not in prepared["scores/original"]["data"]["init_args"]
