"""Other people's sets, written by the libraries that others use, are image sets with the same images afterwards."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from tests.exchange.conftest import CLASSES, Pictures

from dgs_lightning.__main__ import main
from dgs_lightning.commands.import_set import import_set
from dgs_lightning.commands.prepare import prepare
from dgs_lightning.data.cards import read_card, write_card
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.writing import is_intact
from dgs_lightning.errors import InputError

Same = Callable[[Path], None]
MEAN, STD = [0.5, 0.25, 0.125], [0.25, 0.5, 0.125]


def first_channel(pictures: Pictures) -> torch.Tensor:
    return torch.from_numpy(pictures.pixels).permute(0, 3, 1, 2).contiguous()


def normalised(pictures: Pictures) -> torch.Tensor:
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (MEAN, STD))
    return (first_channel(pictures) / 255 - mean) / std


# ---- tensors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "settings"),
    [
        (lambda x, y, p: {"images": x, "labels": y}, {}),
        (lambda x, y, p: (x / 255, y), {}),
        (
            lambda x, y, p: {"data": [[normalised(p), y]], "accs_all_exps": {"ConvNet": [0.5]}},
            {"mean": MEAN, "std": STD},
        ),
        (lambda x, y, p: {"image": x.permute(0, 2, 3, 1).half() / 255, "targets": y[:, None].float()}, {}),
        (lambda x, y, p: {"x": x, "y": torch.nn.functional.one_hot(y), "weights": y}, {}),
        (lambda x, y, p: {"images": x, "labels": 2 - y, "classes": [*reversed(CLASSES)]}, {}),
    ],
    ids=["dictionary", "pair of floats", "Dataset Condensation", "channels last", "one-hot", "names of classes"],
)
def test_a_pt_file_has_the_same_images(
    form: Callable[..., object],
    settings: dict[str, Any],
    pictures: Pictures,
    tmp_path: Path,
    original: Path,
    same: Same,
) -> None:
    torch.save(form(first_channel(pictures), torch.from_numpy(pictures.labels), pictures), tmp_path / "set.pt")
    import_set(str(tmp_path / "set.pt"), str(tmp_path / "out"), original=str(original), **settings)
    same(tmp_path / "out")


def test_labels_may_lie_in_a_file_of_their_own(pictures: Pictures, tmp_path: Path, original: Path, same: Same) -> None:
    torch.save(first_channel(pictures), tmp_path / "images_best.pt")
    torch.save(torch.from_numpy(pictures.labels), tmp_path / "labels_best.pt")
    with pytest.raises(InputError, match=r"images_best.pt: found images without labels, .* Set labels=FILE"):
        import_set(str(tmp_path / "images_best.pt"), str(tmp_path / "out"), original=str(original))
    labels = str(tmp_path / "labels_best.pt")
    import_set(str(tmp_path / "images_best.pt"), str(tmp_path / "out"), original=str(original), labels=labels)
    same(tmp_path / "out")


def test_an_npz_file_has_the_same_images(pictures: Pictures, tmp_path: Path, original: Path, same: Same) -> None:
    names = np.array(CLASSES)[pictures.labels]
    for labels in (pictures.labels, names):
        np.savez_compressed(tmp_path / "set.npz", images=pictures.pixels, labels=labels)
        import_set(str(tmp_path / "set.npz"), str(tmp_path / "out"), original=str(original))
        same(tmp_path / "out")


def test_a_safetensors_file_has_the_same_images(pictures: Pictures, tmp_path: Path, original: Path, same: Same) -> None:
    save_file(
        {"images": pictures.pixels, "labels": 2 - pictures.labels},
        tmp_path / "set.safetensors",
        {"classes": json.dumps(CLASSES[::-1]), "card": json.dumps({"name": "theirs", "licences": ["CC BY 4.0"]})},
    )
    import_set(str(tmp_path / "set.safetensors"), str(tmp_path / "out"), original=str(original))
    same(tmp_path / "out")
    card = read_card(tmp_path / "out")
    assert card["licences"] == ["CC BY 4.0"]
    assert card["provenance"][0]["card"]["name"] == "theirs"


@pytest.mark.parametrize(
    ("change", "settings", "found"),
    [
        (lambda s: {**s, "labels": s["labels"][:5]}, {}, "found 6 images and 5 labels"),
        (lambda s: {"images": s["images"]}, {}, "found images without labels"),
        (lambda s: {**s, "labels": torch.rand(6, 3)}, {}, r"found soft labels of shape \(6, 3\)"),
        (lambda s: {**s, "labels": s["labels"] + 1}, {}, r"found 1 unknown numbers of classes \(3\), .* 0 to 2"),
        (lambda s: {**s, "labels": s["labels"] * 0}, {}, r"found 2 missing labels \(bee, cow\)"),
        (lambda s: {**s, "labels": s["labels"] - 1}, {}, r"found labels such as 1, -1, 0"),
        (lambda s: {**s, "images": s["images"] / 127.5 - 1}, {}, r"values from -1 to .* set mean=\[0.5\]"),
        (
            lambda s: {**s, "images": s["images"].float()},
            {},
            r"found values from 0 to 255, expected values from 0 to 1",
        ),
        (lambda s: {**s, "images": s["images"].long() * 3}, {}, r"expected values from 0 to 255"),
        (lambda s: {**s, "images": s["images"] / torch.zeros(1)}, {}, "expected a finite number"),
        (lambda s: {**s, "images": s["images"][:, :2]}, {}, r"found images of shape \(6, 2, 5, 5\)"),
        (lambda s: {**s, "images": s["images"][:, 0]}, {}, "found no images; the file has nothing"),
        (lambda s: {**s, "images": s["images"][:, :, :4]}, {}, "found 5 x 4 pixels, expected squares"),
        (lambda s: {**s, "images": s["images"][:, :, :4, :4]}, {}, "found 4 x 4 pixels, expected 5 x 5"),
        (lambda s: {"data": [[s["images"], s["labels"]]] * 2}, {}, "found 2 sets in the list 'data'"),
        (lambda s: [s["images"]], {}, "found a list, expected images and their labels"),
        (lambda s: s, {"labels": "other"}, "labels: found 'other', expected one of the names"),
        (lambda s: s, {"mean": [0.5], "std": [0.5]}, r"mean: found \[0.5\], expected none"),
        (lambda s: s, {"mean": [0.5]}, "std: found nothing, expected both mean and std"),
        (lambda s: {**s, "images": s["images"] / 255}, {"mean": [0.5] * 2, "std": [1.0]}, "mean: found"),
        (
            lambda s: s,
            {"classes": ["ant", "bee", "dog"]},
            r"classes: found 3 classes, of which others differ \(cow, dog\)",
        ),
        (lambda s: s, {"ipc": 3}, "found 2 images in 3 classes, such as .*, expected 3 of each class"),
    ],
)
def test_a_file_that_is_no_set_of_these_classes_is_one_clear_error(
    change: Callable[..., object],
    settings: dict[str, Any],
    found: str,
    pictures: Pictures,
    tmp_path: Path,
    original: Path,
) -> None:
    whole = {"images": first_channel(pictures), "labels": torch.from_numpy(pictures.labels)}
    whole["images"][0, 0, 0, :2] = torch.tensor([0, 255], dtype=torch.uint8)  # so that the ends of the range are known
    torch.save(change(whole), tmp_path / "set.pt")
    with pytest.raises(InputError, match=found):
        import_set(str(tmp_path / "set.pt"), str(tmp_path / "out"), original=str(original), **settings)
    assert not (tmp_path / "out").exists()


def test_learned_images_are_cut_off_where_that_is_asked_for(pictures: Pictures, tmp_path: Path) -> None:
    images = first_channel(pictures) / 255 * 3 - 1
    torch.save({"images": images, "labels": torch.from_numpy(pictures.labels)}, tmp_path / "set.pt")
    with pytest.raises(InputError, match=r"set clip=true"):
        import_set(str(tmp_path / "set.pt"), str(tmp_path / "out"))
    import_set(str(tmp_path / "set.pt"), str(tmp_path / "out"), clip=True)
    expected = (images[pictures.labels == 0][0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    with Image.open(tmp_path / "out" / "0" / "00000.png") as image:
        assert np.array_equal(np.asarray(image), expected)


def test_the_order_of_the_classes_can_be_said(pictures: Pictures, tmp_path: Path, original: Path, same: Same) -> None:
    np.savez(tmp_path / "set.npz", images=pictures.pixels, labels=(pictures.labels + 1) % 3)
    order = ["cow", "ant", "bee"]
    said = import_set(str(tmp_path / "set.npz"), str(tmp_path / "out"), original=str(original), classes=order)
    same(tmp_path / "out")
    assert "by number, in the given order cow, ant, bee" in said


# ---- Hugging Face ------------------------------------------------------------------------------------------------


def rows(pictures: Pictures) -> dict[str, list[Any]]:
    return {"image": [Image.fromarray(pixels) for pixels in pictures.pixels], "label": pictures.labels.tolist()}


def test_parquet_files_of_datasets_have_the_same_images_and_names(
    pictures: Pictures, tmp_path: Path, original: Path, same: Same
) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the package datasets")
    pyarrow = pytest.importorskip("pyarrow")
    own = {**rows(pictures), "label": (2 - pictures.labels).tolist(), "note": ["x"] * 6}
    note = datasets.Value("string")
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=[*CLASSES[::-1]]), "note": note}

    def write(path: Path, first: int, last: int, *left_out: str) -> None:
        part = {name: column[first:last] for name, column in own.items() if name not in left_out}
        kept = datasets.Features({name: features[name] for name in part})
        table = pyarrow.table(kept.encode_batch(part), kept.arrow_schema)
        datasets.Dataset(datasets.table.InMemoryTable(table), fingerprint=path.stem).to_parquet(path)

    folder = tmp_path / "set" / "data"
    folder.mkdir(parents=True)
    write(folder / "train-00000-of-00002.parquet", 0, 3)
    write(folder / "train-00001-of-00002.parquet", 3, 6)
    import_set(str(tmp_path / "set"), str(tmp_path / "out"), original=str(original))
    same(tmp_path / "out")
    write(folder / "test-00000-of-00001.parquet", 0, 6)
    with pytest.raises(InputError, match=r"found files of the splits test, train, .* Set split=test"):
        import_set(str(tmp_path / "set"), str(tmp_path / "out"), original=str(original))
    import_set(str(tmp_path / "set"), str(tmp_path / "out"), original=str(original), split="train")
    write(tmp_path / "other.parquet", 0, 6, "label")
    with pytest.raises(InputError, match=r"found images without labels, .* one of note"):
        import_set(str(tmp_path / "other.parquet"), str(tmp_path / "out2"))


def test_parquet_without_the_package_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"format parquet: found no package pyarrow, .* pip install pyarrow"):
        import_set(str(tmp_path), str(tmp_path / "out"), format="parquet")


@pytest.mark.parametrize("table", ["metadata.jsonl", "metadata.csv"])
def test_an_image_folder_with_a_list_has_the_same_images(
    table: str, pictures: Pictures, tmp_path: Path, original: Path, same: Same
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for number, image in enumerate(rows(pictures)["image"]):
        image.save(folder / f"{number}.png")
    lines = [(f"{number}.png", int(label)) for number, label in enumerate(pictures.labels)]
    text = "".join(json.dumps({"file_name": name, "label": label}) + "\n" for name, label in lines)
    if table == "metadata.csv":
        text = "file_name,label\n" + "".join(f"{name},{label}\n" for name, label in lines)
    (folder / table).write_text(text)
    import_set(str(folder), str(tmp_path / "out"), original=str(original))
    same(tmp_path / "out")
    (folder / table).write_text(text.replace("label", "note"))
    with pytest.raises(InputError, match=r"found images without labels, .* Set labels=NAME"):
        import_set(str(folder), str(tmp_path / "out"), original=str(original))
    import_set(str(folder), str(tmp_path / "out"), original=str(original), labels="note")
    (folder / "3.png").unlink()
    with pytest.raises(InputError, match=r"found 1 missing images, such as '3.png'"):
        import_set(str(folder), str(tmp_path / "out"), original=str(original), labels="note")


# ---- WebDataset --------------------------------------------------------------------------------------------------


def test_tar_files_of_webdataset_have_the_same_images(
    pictures: Pictures, tmp_path: Path, original: Path, same: Same
) -> None:
    webdataset = pytest.importorskip("webdataset", reason="needs the package webdataset")
    for label in ("cls", "json"):
        folder = tmp_path / label
        folder.mkdir()
        for shard in range(2):
            with webdataset.TarWriter(str(folder / f"set-{shard:06d}.tar")) as writer:
                for number in range(3 * shard, 3 * shard + 3):
                    value: object = int(pictures.labels[number])
                    value = {"label": CLASSES[pictures.labels[number]]} if label == "json" else value
                    writer.write({"__key__": f"{number:04d}", "png": pictures.pixels[number], label: value})
        import_set(str(folder), str(tmp_path / "out"), original=str(original))
        same(tmp_path / "out")


def test_the_card_beside_a_file_is_that_of_its_set(pictures: Pictures, tmp_path: Path, same: Same) -> None:
    card = {"name": "mine", "kind": "distilled", "licences": ["CC BY 4.0"], "labels": dict.fromkeys(CLASSES)}
    for name in ("npz", "tar"):
        write_card(tmp_path / name, card)
    np.savez(tmp_path / "npz" / "set.npz", images=pictures.pixels, labels=pictures.labels)
    files: dict[str, bytes] = {}
    for number, pixels in enumerate(pictures.pixels):
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG")
        files |= {f"{number}_png": content.getvalue(), f"{number}_cls": str(pictures.labels[number]).encode()}
    write_tar(tmp_path / "tar" / "set.tar", **files)
    for source in (tmp_path / "npz", tmp_path / "tar" / "set.tar"):
        import_set(str(source), str(tmp_path / "out"))
        same(tmp_path / "out")
        assert read_card(tmp_path / "out")["licences"] == ["CC BY 4.0"]


def write_tar(path: Path, **files: bytes) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name.replace("_", "."))
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_a_tar_file_that_is_cut_off_or_compressed_or_has_no_labels_is_refused(
    pictures: Pictures, tmp_path: Path
) -> None:
    content = io.BytesIO()
    Image.fromarray(pictures.pixels[0]).save(content, "PNG")
    whole = write_tar(tmp_path / "set.tar", a_png=content.getvalue(), a_cls=b"0")
    import_set(str(whole), str(tmp_path / "out"))
    with pytest.raises(InputError, match=r"a.png: found images without labels, .* Add a file cls, json, txt beside it"):
        import_set(str(write_tar(tmp_path / "b.tar", a_png=content.getvalue())), str(tmp_path / "out"))
    with pytest.raises(InputError, match=r"a.png: found no readable image"):
        import_set(str(write_tar(tmp_path / "c.tar", a_png=b"no image", a_cls=b"0")), str(tmp_path / "out"))
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:600])
    with pytest.raises(InputError, match=r"cut.tar: found a broken file"):
        import_set(str(tmp_path / "cut.tar"), str(tmp_path / "out"))
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as archive:
        archive.add(whole, "x")
    with pytest.raises(InputError, match=r"packed.tar: found a broken file"):
        import_set(str(tmp_path / "packed.tar"), str(tmp_path / "out"))


# ---- folders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", [CLASSES, ("Ant", "BEE", "c o w"), ("0", "1", "2")], ids=["labels", "names", "numbers"]
)
def test_class_folders_of_any_names_have_the_same_images(
    names: tuple[str, ...], pictures: Pictures, tmp_path: Path, original: Path, same: Same
) -> None:
    for number, pixels in enumerate(pictures.pixels):
        place = tmp_path / "set" / names[pictures.labels[number]]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"image{number}.bmp")
    import_set(str(tmp_path / "set"), str(tmp_path / "out"), original=str(original))
    same(tmp_path / "out")
    assert (tmp_path / "out" / "cow" / "image0.png").is_file()


def test_names_of_imagenets_classes_become_wordnet_ids(tmp_path: Path) -> None:
    wordnet = {"Shih-Tzu": "n02086240", "English_foxhound": "n02089973"}
    for number, (name, label) in enumerate(wordnet.items()):
        for folder, inside in ((tmp_path / "set", name), (tmp_path / "original", label)):
            (folder / inside).mkdir(parents=True)
            Image.new("RGB", (4, 4), (number, 9, 0)).save(folder / inside / "0.png")
    import_set(str(tmp_path / "set"), str(tmp_path / "out"), original=str(tmp_path / "original"))
    assert sorted(record.label for record in read_set(tmp_path / "out")) == sorted(wordnet.values())
    assert read_card(tmp_path / "out")["licences"][0].startswith("ImageNet terms")
    (tmp_path / "set" / "Shih-Tzu").rename(tmp_path / "set" / "a dog")
    with pytest.raises(InputError, match=r"found 1 unknown label \(a dog\)"):
        import_set(str(tmp_path / "set"), str(tmp_path / "out"), original=str(tmp_path / "original"))


def test_images_of_several_sizes_need_an_image_size(tmp_path: Path) -> None:
    for label, side in (("ant", 4), ("bee", 6)):
        (tmp_path / "set" / label).mkdir(parents=True)
        Image.new("L", (side, side)).save(tmp_path / "set" / label / "0.png")
    with pytest.raises(InputError, match=r"found images of 2 sizes \(4 x 4, 6 x 6\), .* Set image_size"):
        import_set(str(tmp_path / "set"), str(tmp_path / "out"))
    import_set(str(tmp_path / "set"), str(tmp_path / "out"), image_size=3)
    with Image.open(tmp_path / "out" / "bee" / "0.png") as image:
        assert (image.size, image.mode) == ((3, 3), "L")


def test_an_imported_set_is_whole_and_says_where_it_comes_from(
    pictures: Pictures, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "set.npz", images=pictures.pixels, labels=pictures.labels)
    source, output = str(tmp_path / "set.npz"), str(tmp_path / "out")
    assert main(["import", source, output, "--licence", "CC BY 4.0", "--classes=[ant, bee, cow]"]) == 0
    assert "6 images, 2 of a class" in capsys.readouterr().out
    card = read_card(tmp_path / "out")
    assert (card["kind"], card["images"], card["licences"]) == ("imported", 6, ["CC BY 4.0"])
    assert card["settings"]["classes"] == "by number, in the given order ant, bee, cow"
    assert card["provenance"] == [{"role": "source", "place": "set.npz", "card": {}}]
    assert is_intact(tmp_path / "out")
    again = str(tmp_path / "again")
    assert main(["import", output, again]) == 0
    copy = read_card(Path(again))
    assert copy["licences"] == ["CC BY 4.0"]
    assert copy["provenance"][0]["card"] == json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert copy["hashes"]["images"] == card["hashes"]["images"]


def test_imported_splits_are_data_that_can_be_distilled_with_their_licence(pictures: Pictures, tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=pictures.pixels, labels=pictures.labels)
    for split in ("train", "val"):
        import_set(str(tmp_path / "set.npz"), str(tmp_path / "photos" / split), licence="CC BY 4.0")
    prepare(str(tmp_path / "photos"), str(tmp_path / "data"))
    card = read_card(tmp_path / "data" / "train")
    assert card["licences"] == ["CC BY 4.0"]
    assert card["provenance"][0]["place"] == "set.npz"


class FakeHub:
    """Gives the files of a folder, one after another, until its connection breaks."""

    folder: Path
    files = 100
    asked: list[Path]

    def dataset_info(self, name: str) -> SimpleNamespace:
        if not self.files:
            raise RuntimeError("no route to host")  # as libraries that the hub's own one uses raise it
        return SimpleNamespace(sha="1a2b")

    def snapshot_download(self, name: str, *, repo_type: str, revision: str, local_dir: Path) -> None:
        FakeHub.asked.append(local_dir)
        for number, path in enumerate(sorted(path for path in self.folder.rglob("*") if path.is_file())):
            if number == self.files:
                raise RuntimeError("the connection broke")
            place = local_dir / path.relative_to(self.folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())


def test_a_hub_that_fails_says_what_to_do_and_an_earlier_import_stays(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: Same
) -> None:
    for number, pixels in enumerate(pictures.pixels):
        place = tmp_path / "there" / CLASSES[pictures.labels[number]]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"image{number}.png")
    write_card(tmp_path / "there", {"name": "theirs", "licences": ["CC BY 4.0"]})
    monkeypatch.setattr("huggingface_hub.HfApi", FakeHub)
    monkeypatch.setattr(FakeHub, "folder", tmp_path / "there", raising=False)
    monkeypatch.setattr(FakeHub, "asked", [], raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    import_set("hf://me/mine", str(tmp_path / "out"))
    card = read_card(tmp_path / "out")
    assert card["provenance"][0]["place"] == "hf://me/mine at revision 1a2b"
    assert card["licences"] == ["CC BY 4.0"]
    for files in (0, 3):
        monkeypatch.setattr(FakeHub, "files", files)
        with pytest.raises(
            InputError, match=r"hf://me/mine: found a data set that the hub does not give .*hf auth login"
        ):
            import_set("hf://me/mine", str(tmp_path / "out"))
        same(tmp_path / "out")
        assert read_card(tmp_path / "out") == card
    monkeypatch.setattr(FakeHub, "files", 100)
    import_set("hf://me/mine", str(tmp_path / "out"))  # into the same folder of the cache, so that a download goes on
    assert len(FakeHub.asked) == 3
    assert len(set(FakeHub.asked)) == 1
    with pytest.raises(InputError, match=r"hf://mine: found no name of a data set"):
        import_set("hf://mine", str(tmp_path / "out"))


# ---- broken and hostile files ------------------------------------------------------------------------------------


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code was run",)


@pytest.mark.parametrize("name", ["set.pt", "set.npz", "set.safetensors", "set.parquet", "set.tar"])
@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"PK\x03\x04", b"PAR1", b"<!DOCTYPE html>", b"\xff" * 2000])
def test_a_file_that_is_none_is_one_clear_error(name: str, content: bytes, tmp_path: Path) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="needs the package pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        import_set(str(tmp_path / name), str(tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_code_in_a_file_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"images": torch.zeros(1, 1, 2, 2), "labels": Harmful()}, tmp_path / "set.pt")
    np.savez(tmp_path / "set.npz", images=np.zeros((1, 1, 2, 2)), labels=np.array([Harmful()]), allow_pickle=True)
    for name in ("set.pt", "set.npz"):
        with pytest.raises(InputError, match=name):
            import_set(str(tmp_path / name), str(tmp_path / "out"))
    assert "code was run" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["set.pt", "set.npz", "set.safetensors"])
def test_a_file_that_is_cut_off_anywhere_is_one_clear_error(name: str, pictures: Pictures, tmp_path: Path) -> None:
    images, labels = first_channel(pictures), torch.from_numpy(pictures.labels)
    path = tmp_path / name
    if name == "set.pt":
        torch.save({"images": images, "labels": labels}, path)
    elif name == "set.npz":
        np.savez_compressed(path, images=images.numpy(), labels=labels.numpy())
    else:
        save_file({"images": images.numpy(), "labels": labels.numpy()}, path)
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match=name):
            import_set(str(path), str(tmp_path / "out"))
