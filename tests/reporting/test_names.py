import pytest

from dgs_lightning.reporting.names import METHODS, parse_set_name, show_method, show_variant, table_order


def test_a_set_name_says_method_variant_and_ipc() -> None:
    assert parse_set_name("minimax_dgs-ipc10") == ("minimax_dgs", "", 10)
    assert parse_set_name("minimax_dgs-hill-ipc50") == ("minimax_dgs", "hill", 50)


@pytest.mark.parametrize("name", ["minimax", "dit-ipc", "dit-ipc10-x", ".dit-ipc10.part", "-ipc10"])
def test_other_names_are_not_sets(name: str) -> None:
    assert parse_set_name(name) is None


def test_variants_with_a_number_are_written_out() -> None:
    assert [show_variant(v) for v in ("pool3", "stop40", "val_easy", "poolside")] == [
        "3 x IPC",
        "stop 40",
        "Easy",
        "poolside",
    ]


def test_unknown_methods_come_last_under_their_own_name() -> None:
    assert sorted(["zebra", "full", "random", "alpha"], key=lambda m: table_order(METHODS, m)) == [
        "random",
        "full",
        "alpha",
        "zebra",
    ]
    assert show_method("zebra") == "zebra"
