from typing import Any

from dgs_lightning.reporting.names import (
    on_subset,
    show,
    show_row,
    split_variant,
    table_order,
    trained_row,
)


def test_a_variant_is_named_by_what_it_changes() -> None:
    variants: dict[str, dict[str, Any]] = {
        "bell": {"method": "dit_dgs", "select": {"distribution": "hill"}},
        "wide": {"method": "dit_dgs", "pool_multiple": 6},
        "late": {"method": "dag", "dag": {"stop_timestep": 40}},
        "low": {"method": "dag", "dag": {"stop_timestep": 40, "guided": "below"}},
        "released": {"method": "dit_dgs", "select": {"smoothing": "released"}},
        "dit-val_original": {"method": "dit"},
    }
    assert split_variant("bell", variants) == ("dit_dgs", "hill")
    assert split_variant("wide", variants) == ("dit_dgs", "pool6")
    assert split_variant("late", variants) == ("dag", "stop40")
    assert split_variant("low", variants) == ("dag", "stop40-below")
    assert show_row("low", variants) == "DAG (stop 40, below)"
    assert split_variant("released", variants) == ("dit_dgs", "released")
    assert split_variant("dit-val_original", variants) == ("dit", "val_original")
    assert show_row("wide", variants) == "DiT + DGS (6 x IPC)"


def test_a_row_that_is_no_variant_is_a_method_with_perhaps_a_variant_in_its_name() -> None:
    assert split_variant("dit_dgs", {}) == ("dit_dgs", "")
    assert split_variant("minimax-val_easy", {}) == ("minimax", "val_easy")
    assert show_row("minimax-val_easy", {}) == "Minimax (Easy)"


def test_a_row_on_a_subset_of_the_validation_images_is_named_by_row_and_subset() -> None:
    variants = {"bell": {"method": "dit_dgs", "select": {"distribution": "hill"}}}
    assert (on_subset("minimax", "easy"), on_subset("bell", "easy")) == ("minimax-val_easy", "bell-val_easy")
    assert split_variant("bell-val_easy", variants) == ("dit_dgs", "hill, val_easy")
    assert show_row("bell-val_easy", variants) == "DiT + DGS (Hill, Easy)"
    assert [trained_row(row, variants) for row in ("bell-val_easy", "minimax-val_easy", "dit")] == [
        *("bell", "minimax", "dit"),
    ]


def test_variants_with_a_number_are_written_out() -> None:
    assert [show("variant", v) for v in ("pool3", "stop40", "poolside")] == ["3 x IPC", "stop 40", "poolside"]


def test_unknown_methods_come_last_under_their_own_name() -> None:
    order = sorted(["zebra", "full", "random", "alpha"], key=lambda method: table_order("method", method))
    assert order == ["random", "full", "alpha", "zebra"]
    assert show("method", "zebra") == "zebra"
