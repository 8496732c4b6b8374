import warnings
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry
from PIL import Image

from dgs_lightning.reporting import style
from dgs_lightning.reporting.style import new_figure, picture, place, save, styled, use_style


def draw() -> Figure:
    figure = new_figure(2, 1)
    figure.subplots().plot([0, 1], [1, 0])
    return figure


def test_a_figure_is_saved_as_the_same_bytes_each_time_without_dates_or_programs(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in save(draw(), tmp_path / "one" / "figure")]
    second = [path.read_bytes() for path in save(draw(), tmp_path / "two" / "figure")]
    assert first == second
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["figure.pdf", "figure.png"]
    assert b"Matplotlib" not in first[0] + first[1]
    assert b"CreationDate" not in first[1]


def test_drawing_leaves_matplotlibs_settings_alone_and_heeds_none_of_them() -> None:
    before = mpl.rcParams["lines.linewidth"]
    plain = styled(draw)().axes[0].lines[0].get_linewidth()
    with mpl.rc_context({"lines.linewidth": 9}):
        assert styled(draw)().axes[0].lines[0].get_linewidth() == plain
        assert mpl.rcParams["lines.linewidth"] == 9
    assert mpl.rcParams["lines.linewidth"] == before


def test_a_style_in_use_is_that_of_the_projects_own_figures() -> None:
    with mpl.rc_context():
        mpl.rcParams["lines.linewidth"] = 9
        use_style()
        in_use, own = draw().axes[0], styled(draw)().axes[0]
        assert in_use.lines[0].get_linewidth() == own.lines[0].get_linewidth()
        assert in_use.spines["top"].get_visible() == own.spines["top"].get_visible() is False


def test_small_images_are_enlarged_in_whole_pixels_and_wide_ones_cropped_to_the_middle() -> None:
    _, axes = picture(0, 2, 1, 1)
    small = np.arange(64, dtype=np.uint8).reshape(8, 8)
    place(axes, Image.fromarray(small), 0, 0)
    enlarged = np.asarray(axes.images[0].get_array())
    assert enlarged.shape == (96, 96, 3)
    np.testing.assert_array_equal(enlarged[6::12, 6::12], np.dstack([small] * 3))  # grey stays grey
    wide = np.zeros((100, 300, 3), np.uint8)
    wide[:, 100:200] = 255
    place(axes, Image.fromarray(wide), 1, 0)
    assert np.asarray(axes.images[1].get_array()).min() == 255


def test_a_pictures_cells_are_square_and_of_the_size_asked_for() -> None:
    figure, axes = picture(0.5, 3, 2, 0.75, "title")
    width, height = figure.get_size_inches()
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert np.isclose(width / (right - left), 0.75)
    assert np.isclose(height / (bottom - top), 0.75)


def test_no_figure_in_the_projects_look_reads_names_as_mathematics(tmp_path: Path) -> None:
    name = "$x_{$"
    with mpl.rc_context():
        use_style()
        figure = new_figure(2, 2)
        axes = figure.subplots()
        axes.bar([name, "US$ 5$"], [1, 2], label=name)
        axes.set(title=name, xlabel=name, ylabel=name)
        axes.legend()
        figure.savefig(tmp_path / "shown.png")  # as a notebook shows it
        save(figure, tmp_path / "saved")
    assert (tmp_path / "shown.png").stat().st_size


def named_in_chinese() -> Figure:
    figure = new_figure(2, 1)
    figure.subplots().set_title("猫与犬")
    return figure


def test_characters_that_no_font_has_are_told_once_and_not_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(style, "font_families", lambda: ["DejaVu Sans"], raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("one", "two"):
            save(styled(named_in_chinese)(), tmp_path / name)
    assert [record.message for record in caplog.records if "boxes" in record.message] == caplog.messages
    assert len(caplog.messages) <= 1  # none where an earlier test has seen it


def test_a_font_of_the_system_has_the_characters_that_the_projects_own_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    fonts = {"Noto Sans CJK JP": "中あ", "Nanum Gothic": "한", "Century Gothic": "", "Times": "中あ한"}
    entries = [FontEntry(fname=name, name=name) for name in fonts]

    def get_font(path: str) -> SimpleNamespace:
        return SimpleNamespace(get_char_index=lambda code: int(chr(code) in fonts[path]))

    monkeypatch.setattr("matplotlib.font_manager.fontManager.ttflist", entries)
    monkeypatch.setattr(style, "get_font", get_font)
    assert style.font_families.__wrapped__() == ["DejaVu Sans", "Noto Sans CJK JP", "Nanum Gothic"]
