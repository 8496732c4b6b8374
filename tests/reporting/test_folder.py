import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from dgs_lightning.data.records import MANIFEST, read_manifest
from dgs_lightning.errors import InputError
from dgs_lightning.reporting.folder import read_run
from dgs_lightning.reporting.published import Setting
from dgs_lightning.reporting.records import Recognition
from dgs_lightning.runs.layout import SetName


def test_a_run_knows_its_name_seed_and_data_set(finished_run: Path) -> None:
    run = read_run(finished_run)
    assert (run.name, run.seed, run.dataset) == ("three-digits", 5, "digits")
    assert run.readable("three") == "the three"
    assert run.readable("n02086240") == "Shih-Tzu"


def test_a_run_has_the_intervals_of_its_selections(run_folder: Path) -> None:
    assert read_run(run_folder).intervals == 10
    for path in run_folder.glob("distilled/*/selection.json"):
        path.write_text(path.read_text().replace('"intervals": 10', '"intervals": 4'))
    assert read_run(run_folder).intervals == 4


def test_evaluations_are_read_with_row_ipc_network_and_seed(finished_run: Path) -> None:
    found = read_run(finished_run).evaluations
    assert len(found) == 10
    dit = [e for e in found if e.row == "dit"]
    assert [(e.ipc, e.network, e.training.seed, e.accuracy_last, e.accuracy_best) for e in dit] == [
        (4, "convnet3", 5, 0.6, 0.61),
        (4, "convnet3", 6, 0.62, 0.63),
    ]
    assert {e.ipc for e in found if e.row == "full"} == {None}


def test_results_that_the_settings_no_longer_ask_for_are_left_out(run_folder: Path) -> None:
    settings = yaml.safe_load((run_folder / "experiment.yaml").read_text())
    settings |= {"methods": ["dit", "random"], "repeats": 1}
    (run_folder / "experiment.yaml").write_text(yaml.safe_dump(settings))
    run = read_run(run_folder)
    assert [(e.row, e.training.seed) for e in run.evaluations] == [("dit", 5), ("random", 5)]
    assert run.distilled == [SetName("dit", 4), SetName("random", 4)]


def test_a_row_is_keyed_as_the_papers_tables(finished_run: Path) -> None:
    run = read_run(finished_run)
    assert run.setting("flat", 4, "convnet3") == Setting("digits", "convnet3", "dit_dgs", 4, "ground")


def test_difficulties_are_those_of_the_scores_folder_by_label(finished_run: Path) -> None:
    difficulties = read_run(finished_run).difficulties("original")
    scores = read_manifest(finished_run / "scores" / "original")
    assert list(difficulties) == ["eight", "three", "zero"]
    for label, found in difficulties.items():
        np.testing.assert_array_equal(found, sorted(r.difficulty or 0 for r in scores if r.label == label))


def test_a_set_without_scores_of_its_own_has_those_in_its_manifest(finished_run: Path) -> None:
    found = read_run(finished_run).difficulties("dit_dgs-ipc4")
    lines = read_manifest(finished_run / "distilled" / "dit_dgs-ipc4")
    assert sorted(np.concatenate(list(found.values()))) == sorted(r.difficulty or 0 for r in lines)


def test_the_full_set_has_the_originals_difficulties(finished_run: Path) -> None:
    run = read_run(finished_run)
    assert run.difficulties("full").keys() == run.difficulties("original").keys()


def test_images_come_from_easy_to_hard(finished_run: Path) -> None:
    images = read_run(finished_run).images_by_label("dit")
    scores = [score for _, score in images["zero"] if score is not None]
    assert list(images) == ["eight", "three", "zero"]
    assert len(scores) == 20
    assert scores == sorted(scores)
    assert all(path.is_file() for path, _ in images["zero"])


def test_images_without_any_metadata_are_found_by_their_folders(run_folder: Path) -> None:
    (run_folder / "distilled" / "dit-ipc4" / MANIFEST).unlink()
    images = read_run(run_folder).images_by_label("dit-ipc4")
    assert {label: len(paths) for label, paths in images.items()} == {"eight": 4, "three": 4, "zero": 4}
    assert read_run(run_folder).difficulties("dit-ipc4") == {}


def test_a_pool_from_elsewhere_is_found_where_it_was_scored(run_folder: Path, tmp_path: Path) -> None:
    shutil.move(run_folder / "pools" / "dit", tmp_path / "elsewhere")
    shutil.move(run_folder / "scores" / "dit", run_folder / "scores" / "pool")
    config = {"data": {"class_path": "ImageDataModule", "init_args": {"predict": str(tmp_path / "elsewhere")}}}
    (run_folder / "stages" / "scores").mkdir()
    (run_folder / "stages" / "scores" / "pool.yaml").write_text(yaml.safe_dump(config))
    run = read_run(run_folder)
    assert run.pools == ["pool"]
    assert run.image_folder("pool") == tmp_path / "elsewhere"
    assert run.image_folder("dit") is None


def test_legible_is_the_share_of_images_that_the_judge_gives_their_label(run_folder: Path) -> None:
    path = run_folder / "scores" / "judge-dit" / MANIFEST
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for number, line in enumerate(lines):
        line["predicted"] = line["label"] if number % 4 else "other"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = read_run(run_folder)
    assert run.legible("dit") == Recognition(0.75, labels=4)
    assert run.legible("minimax") is None


def test_costs_are_of_finished_stages_with_the_images_they_wrote(run_folder: Path) -> None:
    record = run_folder / "stages" / "pools" / "dit.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "device": "H200"}))
    costs = {cost.stage: cost for cost in read_run(run_folder).costs}
    assert (costs["pools/dit"].seconds, costs["pools/dit"].images, costs["pools/dit"].device) == (6.0, 60, "H200")
    assert (costs["data"].seconds, costs["data"].images, costs["data"].device) == (1.5, None, None)


def test_a_stage_is_unfinished_until_its_record_says_done(run_folder: Path) -> None:
    assert read_run(run_folder).unfinished == []
    (run_folder / "stages" / "report.yaml").write_text("{}")
    (run_folder / "stages" / "finetune.yaml").write_text("{}")
    (run_folder / "stages" / "pools" / "dit.json").write_text(
        '{"name": "pools/dit", "status": "running", "seconds": 0}'
    )
    assert read_run(run_folder).unfinished == ["finetune", "pools/dit"]


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_folder_that_is_no_run_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="the folder of a run"):
        read_run(tmp_path / name)


@pytest.mark.parametrize("text", ['{"accuracy_last": 0.5}', '{"accuracy_last": "high", "accuracy_best": 1}', '{"accu'])
def test_a_broken_result_is_an_error_that_names_the_file(run_folder: Path, text: str) -> None:
    path = run_folder / "evaluation" / "dit-ipc4" / "convnet3" / "seed5" / "result.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"dit-ipc4/convnet3/seed5/result\.json"):
        _ = read_run(run_folder).evaluations


def test_numbered_classes_are_in_the_order_in_which_people_count(run_folder: Path) -> None:
    path = run_folder / "scores" / "original" / MANIFEST
    names = {"zero": "class 10", "three": "class 2", "eight": "class 1"}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    renamed = [{**line, "label": names[line["label"]], "file_name": str(n)} for n, line in enumerate(lines)]
    path.write_text("".join(json.dumps(line) + "\n" for line in renamed))
    assert list(read_run(run_folder).difficulties("original")) == ["class 1", "class 2", "class 10"]
