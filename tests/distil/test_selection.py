import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng
from PIL import Image
from scipy.stats import wasserstein_distance

from dgs_lightning.data.records import ImageRecord, manifest_line, read_manifest, write_manifest
from dgs_lightning.distil.selection import Method, Selected, Selection, Smoothing, difficulties
from dgs_lightning.errors import InputError
from dgs_lightning.selection.distribution import Floats, histogram
from dgs_lightning.selection.search import smooth_pair
from dgs_lightning.selection.smoothing import smoothing_settings

SIZES = {"cat": 30, "dog": 24}


def make_set(
    folder: Path, sizes: Mapping[str, int] = SIZES, *, easy: float = 1.0, estimator: str | None = "net"
) -> Path:
    """A scored image set; difficulties are uniform to the power ``easy``. Images are tiny noise."""
    rng = default_rng(0)
    records = []
    for label, count in sizes.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            name = f"{label}/{index:05}.png"
            Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(folder / name)
            difficulty = float(rng.random() ** easy)
            predicted = label if difficulty < 0.6 else "cow"
            scores = {"difficulty": difficulty, "estimator": estimator, "predicted": predicted}
            records.append(ImageRecord(name, label, index=index, **scores))  # type: ignore[arg-type]
    if estimator is not None:
        write_manifest(folder, records)
    return folder


def run(**selection: Any) -> Selected:  # noqa: ANN401
    plain: dict[str, Any] = {name: str(v) if isinstance(v, Path) else v for name, v in selection.items()}
    return Selection(**plain).run()


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("sets") / "pool", easy=3)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("sets") / "original", {"cat": 80, "dog": 50})


def scored(*folders: Path) -> list[list[ImageRecord]]:
    return [read_manifest(folder) for folder in folders]


def of_class(records: Sequence[ImageRecord], label: str) -> Floats:
    return difficulties([record for record in records if record.label == label])


def names(selected: Selected) -> list[str]:
    return [record.file_name for record in selected.records]


@pytest.mark.parametrize("method", get_args(Method))
def test_each_method_selects_ipc_images_of_every_class(method: str, pool: Path, original: Path) -> None:
    selected = run(pool=pool, original=original, ipc=5, method=method)
    expected = SIZES if method == "all" else dict.fromkeys(SIZES, 5)
    assert Counter(record.label for record in selected.records) == expected
    assert len(set(names(selected))) == sum(expected.values())
    assert run(pool=pool, original=original, ipc=5, method=method) == selected


@pytest.mark.filterwarnings("ignore:smoothing found")
@settings(deadline=None, max_examples=20)
@given(
    data=st.data(),
    method=st.sampled_from(["dgs", "transport", "random", "ccs", "easy", "first"]),
    ipc=st.integers(1, 8),
)
def test_the_order_of_files_changes_nothing(data: st.DataObject, method: str, ipc: int) -> None:
    scores = data.draw(st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.97, 1.0]), min_size=8, max_size=20))
    records = [ImageRecord(f"a/{k}.png", "a", difficulty=s, estimator="net") for k, s in enumerate(scores)]
    found = []
    for listed in (records, data.draw(st.permutations(records))):
        with TemporaryDirectory() as folder:
            Path(folder, "a").mkdir()
            for record in listed:
                Path(folder, record.file_name).touch()
            Path(folder, "metadata.jsonl").write_text("".join(manifest_line(record) for record in listed))
            found.append(run(pool=folder, ipc=ipc, method=method, smoothing_forks={"extremes": "zero"}))
    assert found[0] == found[1]


def test_difficulty_guided_sampling_gives_its_account(pool: Path, original: Path) -> None:
    selected = run(pool=pool, original=original, ipc=10, shortage="nearest")
    report = selected.report
    assert report["estimator"] == "net"
    assert report["smoothing"]["extremes"] == "clip"
    for label, size in SIZES.items():
        account = report["classes"][label]
        assert sum(account["target"]) == sum(account["taken"]) + sum(account["filled"]) == account["selected"] == 10
        assert sum(account["available"]) == sum(account["raw"]["pool"]["counts"]) == size
        reached = np.add(account["taken"], account["filled"]).tolist()
        assert account["smoothed"]["distilled"]["counts"] == reached
        chosen = [record for record in selected.records if record.label == label]
        assert Counter(record.interval for record in chosen) == {
            k: n for k, n in enumerate(account["raw"]["distilled"]["counts"]) if n
        }
        assert np.mean([record.extra["smoothed"] for record in chosen]) == pytest.approx(
            account["smoothed"]["distilled"]["mean"]
        )


def test_the_account_has_the_draw_without_smoothing_as_if_it_were_asked_for(pool: Path, original: Path) -> None:
    smoothed, plain = (
        run(pool=pool, original=original, ipc=10, smoothing=name).report["classes"] for name in ("paper", "none")
    )
    for label in SIZES:
        assert smoothed[label]["unsmoothed"] == plain[label]["raw"] == plain[label]["unsmoothed"]
        assert smoothed[label]["unsmoothed"] != smoothed[label]["raw"]


@pytest.mark.filterwarnings("ignore:smoothing found")
@pytest.mark.parametrize("smoothing", get_args(Smoothing))
def test_the_account_has_the_distance_to_the_originals_before_and_after_smoothing(
    pool: Path, original: Path, smoothing: str
) -> None:
    selected = run(pool=pool, original=original, ipc=10, smoothing=smoothing)
    for label, account in selected.report["classes"].items():
        ours, theirs, candidates = (of_class(records, label) for records in (selected.records, *scored(original, pool)))
        assert account["raw"]["distance"] == pytest.approx(wasserstein_distance(ours, theirs))
        if smoothing == "none":
            assert account["smoothed"]["distance"] == account["raw"]["distance"]
            continue
        both = smooth_pair(candidates, theirs, 10, smoothing_settings(smoothing))
        ours = np.array([record.extra["smoothed"] for record in selected.records if record.label == label])
        assert account["smoothed"]["distance"] == pytest.approx(wasserstein_distance(ours, both.original))


def test_transport_takes_a_set_nearer_to_the_originals_than_any_other_method(pool: Path, original: Path) -> None:
    selected = run(pool=pool, original=original, ipc=8, method="transport")
    assert selected.report["estimator"] == "net"
    others: list[dict[str, Any]] = [{"method": "random", "seed": seed} for seed in range(20)]
    others += [{"method": "first"}, {"smoothing": "paper"}, {"smoothing": "none", "shortage": "nearest"}]
    for label, account in selected.report["classes"].items():
        [theirs] = (of_class(records, label) for records in scored(original))
        distance = wasserstein_distance(of_class(selected.records, label), theirs)
        assert account["selected"] == 8
        assert account["raw"]["distance"] == distance
        assert account["raw"]["distilled"]["counts"] == histogram(of_class(selected.records, label)).tolist()
        found = [of_class(run(pool=pool, original=original, ipc=8, **other).records, label) for other in others]
        assert distance < min(wasserstein_distance(each, theirs) for each in found)


def test_without_originals_the_set_follows_the_pool(pool: Path) -> None:
    for changes in ({"smoothing": "none"}, {"method": "transport"}):
        account = run(pool=pool, ipc=10, **changes).report["classes"]["cat"]
        assert account["raw"]["original"] == account["raw"]["pool"]
        assert sum(account.get("filled", ())) == 0
        assert account["raw"]["distance"] < 0.06


def test_a_pool_as_small_as_the_ipc_is_taken_whole(pool: Path, original: Path) -> None:
    selected = run(pool=pool, original=original, ipc=24, pool_images=24, method="transport")
    assert Counter(record.label for record in selected.records) == {"cat": 24, "dog": 24}


def test_a_named_distribution_needs_no_originals(pool: Path) -> None:
    account = run(pool=pool, ipc=10, distribution="cliff").report["classes"]["cat"]
    assert account["target"] == [6, 3, 0, 1, 0, 0, 0, 0, 0, 0]
    assert run(pool=pool, ipc=10, distribution=[1, 1], intervals=2).report["classes"]["cat"]["target"] == [5, 5]


def test_scores_may_lie_in_folders_of_their_own(pool: Path, tmp_path: Path) -> None:
    bare, scores = tmp_path / "bare", tmp_path / "scores"
    shutil.copytree(pool, bare)
    scores.mkdir()
    (bare / "metadata.jsonl").rename(scores / "metadata.jsonl")
    assert names(run(pool=bare, pool_scores=scores, ipc=5)) == names(run(pool=pool, ipc=5))


def test_the_first_images_of_a_larger_pool_make_a_smaller_one(pool: Path) -> None:
    selected = run(pool=pool, ipc=3, method="random", pool_images=4)
    assert {record.index for record in selected.records} <= {0, 1, 2, 3}
    assert [record.index for record in run(pool=pool, ipc=2, method="first").records] == [0, 1, 0, 1]


def test_ccs_covers_as_many_strata_as_it_is_set_to(pool: Path) -> None:
    def hardest(strata: int) -> int:
        scores = [r.difficulty or 0 for r in run(pool=pool, ipc=1, method="all").records if r.label == "cat"]
        selected = run(pool=pool, ipc=6, method="ccs", strata=strata, hard_cutoff=0.0).records
        middle = (min(scores) + max(scores)) / 2
        return sum((r.difficulty or 0) > middle for r in selected if r.label == "cat")

    assert hardest(2) == 3  # half of the IPC from each half of the range
    assert hardest(1) < 3  # most images are easy


def test_a_share_is_of_the_images_of_each_class_and_is_recorded(pool: Path) -> None:
    selected = run(pool=pool, share=0.3, method="random")
    assert Counter(record.label for record in selected.records) == {"cat": 9, "dog": 7}  # of 30 and 24, rounded down
    assert selected.report["share"] == 0.3
    assert {label: found["selected"] for label, found in selected.report["classes"].items()} == {"cat": 9, "dog": 7}


def test_a_share_is_taken_as_it_is_written(tmp_path: Path) -> None:
    pool = make_set(tmp_path, {"cat": 100})
    assert len(run(pool=pool, share=0.29, method="easy").records) == 29  # 0.29 * 100 is below 29 in floating point


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"^ipc: found nothing, .*Set ipc=10 \(or share=0\.5\)"),
        ({"ipc": 5, "share": 0.5}, r"^share: found 0\.5 beside ipc: 5"),
        ({"method": "all", "share": 0.5}, r"^share: found 0\.5 beside method: all"),
        ({"share": 0.0}, r"^share: "),
        ({"share": 1.0}, r"^share: "),
    ],
)
def test_either_an_ipc_or_a_share_says_how_many_images_to_select(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(pool="no/such/folder", **settings)


def test_a_share_that_leaves_no_image_of_a_class_is_an_error(tmp_path: Path) -> None:
    pool = make_set(tmp_path, {"cat": 9, "dog": 3})
    with pytest.raises(InputError, match=r"1 classes of which a share of 0\.3 is no image \(dog: 3\)"):
        run(pool=pool, share=0.3, method="easy")


def test_easy_takes_the_easiest(pool: Path) -> None:
    everything = run(pool=pool, ipc=1, method="all").records
    easiest = sorted(r.difficulty or 0 for r in everything if r.label == "cat")[:4]
    assert (
        sorted(r.difficulty or 0 for r in run(pool=pool, ipc=4, method="easy").records if r.label == "cat") == easiest
    )


def test_coresets_need_no_scores(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "plain", estimator=None)
    for method in ("random", "kcenter", "herding", "kmeans", "first"):
        assert len(run(pool=folder, ipc=3, method=method).records) == 6


def test_seeds_change_the_draw(pool: Path) -> None:
    assert names(run(pool=pool, ipc=5, seed=0)) != names(run(pool=pool, ipc=5, seed=1))


def test_a_class_short_of_images_is_an_error_unless_fewer_are_allowed(pool: Path) -> None:
    for method in ("dgs", "transport", "random", "kcenter", "ccs"):
        with pytest.raises(InputError, match=r"1 classes with fewer images than the IPC \(dog: 24\)"):
            run(pool=pool, ipc=25, method=method)
        selected = run(pool=pool, ipc=25, method=method, allow_fewer=True)
        assert Counter(record.label for record in selected.records) == {"cat": 25, "dog": 24}


def test_a_missing_class_is_named(pool: Path, tmp_path: Path) -> None:
    one = make_set(tmp_path / "one", {"cat": 10, "emu": 10})
    with pytest.raises(InputError, match=r"1 missing label \(dog\); 1 unknown label \(emu\)"):
        run(pool=one, original=pool, ipc=5)


def test_an_unscored_pool_is_an_error_that_says_how_to_score_it(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "plain", estimator=None)
    for method in ("dgs", "transport", "ccs", "easy"):
        with pytest.raises(InputError, match=r"54 of 54 images without difficulty.*ScoringTask"):
            run(pool=folder, ipc=5, method=method)


def test_scores_of_another_estimator_are_an_error(pool: Path, tmp_path: Path) -> None:
    other = make_set(tmp_path / "other", estimator="another")
    for method in ("dgs", "transport"):
        with pytest.raises(InputError, match="estimator another, expected those of net"):
            run(pool=pool, original=other, ipc=5, method=method)
    mixed = read_manifest(other)
    mixed[0].estimator = "third"
    write_manifest(other, mixed)
    with pytest.raises(InputError, match="2 estimators"):
        run(pool=other, ipc=5)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("ipc", 0),
        ("intervals", 0),
        ("pool_images", 0),
        ("strata", 0),
        ("method", "best"),
        ("smoothing", "rough"),
        ("shortage", "none"),
        ("hard_cutoff", 1.0),
        ("distribution", "steep"),
        ("distribution", [1.0, 2.0]),
        ("smoothing_forks", {"extreme": "clip"}),
        ("smoothing_forks.extremes", {"extremes": "cut"}),
        ("smoothing_forks.epsilon", {"epsilon": "small"}),
    ],
)
def test_a_setting_out_of_range_is_named_before_anything_is_read(setting: str, value: object) -> None:
    name = setting.partition(".")[0]
    with pytest.raises(InputError, match=rf"^{setting}[.:]"):
        run(**{"pool": "no/such/folder", "ipc": 5, name: value})


def test_a_degenerate_search_warns_once(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "pool", easy=0.0)  # every difficulty is 1
    with pytest.warns(UserWarning, match=r"in 2 of 2 classes \(cat, dog\)") as caught:
        run(pool=folder, ipc=5)
    assert len(caught) == 1


def test_methods_draw_independently_of_each_other(tmp_path: Path) -> None:
    one_interval = make_set(tmp_path, {"cat": 300}, easy=40)  # nearly all difficulties are 0: both draw from all images
    drawn = [set(names(run(pool=one_interval, ipc=60, method=m, smoothing="none"))) for m in ("random", "dgs")]
    assert len(drawn[0] & drawn[1]) < 30  # 60 from one permutation, 12 by chance


@pytest.mark.parametrize("method", ["right_confident", "right_unsure"])
def test_recognised_images_come_first_and_then_those_with_the_most_of_their_own_class(
    method: str, pool: Path, tmp_path: Path
) -> None:
    records = read_manifest(pool)
    few = {r.file_name for r in records if r.predicted == r.label and r.label == "cat"}
    chosen = run(pool=pool, ipc=len(few) + 2, method=method, allow_fewer=True)
    cats = {name for name in names(chosen) if name.startswith("cat/")}
    others = sorted((r.difficulty or 0, r.file_name) for r in records if r.label == "cat" and r.file_name not in few)
    assert cats == few | {name for _, name in others[:2]}
    three = of_class(run(pool=pool, ipc=3, method=method).records, "cat")
    right = np.sort(difficulties([r for r in records if r.file_name in few]))
    assert np.sort(three).tolist() == (right[:3] if method == "right_confident" else right[-3:]).tolist()


def test_filling_as_released_needs_the_largest_probability(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scores without 'confidence'.*confidence: true of ScoringTask"):
        run(pool=pool, ipc=3, method="right_confident", fill="released")
    copy = Path(shutil.copytree(pool, tmp_path / "copy"))
    records = [
        ImageRecord(
            r.file_name,
            r.label,
            index=r.index,
            difficulty=r.difficulty,
            estimator="net",
            predicted="cow",
            extra={"confidence": (r.index or 0) / 100},
        )
        for r in read_manifest(pool)
    ]
    write_manifest(copy, records)
    found = names(run(pool=copy, ipc=2, method="right_confident", fill="released"))
    assert found == ["cat/00028.png", "cat/00029.png", "dog/00022.png", "dog/00023.png"]
    write_manifest(copy, [ImageRecord(r.file_name, r.label, difficulty=0.5, estimator="net") for r in records])
    with pytest.raises(InputError, match="scores without 'predicted'"):
        run(pool=copy, ipc=2, method="right_unsure")
