import pytest

from dgs_lightning.reporting.published import PUBLISHED, Score, Setting, first_published, published
from dgs_lightning.runs.methods import METHODS, Method


@pytest.mark.parametrize(
    ("table", "setting", "score"),
    [
        (1, Setting("imagewoof", "convnet6", "kcenter", 10), (19.4, 0.9)),
        (1, Setting("imagewoof", "resnet_ap10", "minimax_dgs", 50), (57.1, 0.9)),
        (1, Setting("imagewoof", "resnet18", "dit_dgs", 50), (53.5, 1.5)),
        (1, Setting("imagewoof", "resnet18", "full", 20), (89.3, 1.2)),
        (2, Setting("imagewoof", "resnet18", "herding", 20), (32.2, 0.6)),
        (2, Setting("imagewoof", "resnet18", "d4m_quoted", 50), (51.7, 3.2)),
        (3, Setting("imageidc", "resnet_ap10", "minimax", 20), (63.9, 0.4)),
        (3, Setting("imagenette", "resnet_ap10", "random", 50), (76.1, 1.1)),
        (4, Setting("imagewoof", "resnet_ap10", "minimax_dgs", 20, "slope"), (44.3, 0.3)),
        (5, Setting("imagewoof", "resnet_ap10", "minimax_dgs", 50, "pool6"), (54.9, 1.3)),
        (6, Setting("imagenette", "resnet_ap10", "minimax", 50, "val_easy"), (81.2, 0.7)),
        (7, Setting("imagenette", "resnet_ap10", "dag", 10, "stop40"), (63.6, 1.4)),
        (7, Setting("imagenette", "resnet_ap10", "mgd3", 50, "stop25"), (79.3, 0.2)),
    ],
)
def test_numbers_are_those_of_the_paper(table: int, setting: Setting, score: tuple[float, float]) -> None:
    assert published(table, setting) == Score(*score)


def test_every_cell_of_the_seven_tables_is_there() -> None:
    assert {table: len(cells) for table, cells in PUBLISHED.items()} == {
        1: 72,
        2: 27,
        3: 24,
        4: 15,
        5: 15,
        6: 24,
        7: 15,
    }


def test_tables_that_disagree_keep_their_own_number() -> None:
    dit = Setting("imagewoof", "resnet18", "dit", 10)
    default_pool = Setting("imagewoof", "resnet_ap10", "minimax_dgs", 10)
    assert (published(1, dit), published(2, dit)) == (Score(33.9, 0.1), Score(34.7, 0.4))
    assert published(1, default_pool) == Score(37.8, 0.3)
    assert published(5, default_pool._replace(variant="pool5")) == Score(37.4, 0.3)
    assert published(1, default_pool._replace(ipc=20)) == Score(45.4, 0.4)
    assert published(4, default_pool._replace(ipc=20, variant="scale")) == Score(45.5, 0.4)


def test_a_setting_that_a_table_lacks_has_no_published_number() -> None:
    assert published(2, Setting("imagewoof", "resnet18", "ccs", 10)) is None
    assert published(4, Setting("imagewoof", "resnet_ap10", "minimax_dgs", 10)) is None


def test_a_method_has_the_published_numbers_of_the_key_that_its_row_names(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Method("plain", "Plain", "#c0ffee", "first", published="dit")
    monkeypatch.setitem(METHODS, "plain", row)
    setting = Setting("imagewoof", "resnet18", "plain", 10)
    assert published(1, setting) == published(1, setting._replace(method="dit")) == Score(33.9, 0.1)


def test_a_setting_without_a_variant_has_the_number_of_the_default_variant() -> None:
    dag = Setting("imagenette", "resnet_ap10", "dag", 10)
    assert first_published(dag) == first_published(dag._replace(variant="stop25")) == Score(65.6, 0.3)
    assert first_published(dag._replace(method="minimax")) == published(3, dag._replace(method="minimax"))
    assert first_published(dag._replace(dataset="digits")) is None
