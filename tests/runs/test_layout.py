from hypothesis import given
from hypothesis import strategies as st

from dgs_lightning.runs import layout
from dgs_lightning.runs.layout import SetName, Training

NAMES = st.text("abcXYZ019_-:.", min_size=1).filter(lambda name: name not in (".", ".."))
SETS = st.builds(SetName, NAMES, st.integers(1, 10**6), st.integers(0, 999)) | st.builds(
    SetName, st.text("abc_", min_size=1), st.none(), st.just(0)
)


@given(SETS)
def test_the_name_of_a_set_and_its_parts_are_inverses(name: SetName) -> None:
    assert SetName.parse(str(name)) == name


@given(st.builds(Training, SETS, NAMES, st.integers(0, 2**32 - 1), st.sampled_from(["hard", "soft"])))
def test_the_path_of_a_training_and_its_parts_are_inverses(training: Training) -> None:
    assert Training.parse(str(training)) == training


def test_the_first_draw_under_the_hard_protocol_keeps_the_short_path() -> None:
    name = SetName("dit_dgs", 10)
    assert layout.distilled(name) == "distilled/dit_dgs-ipc10"
    assert str(Training(name, "convnet2", 3)) == "evaluation/dit_dgs-ipc10/convnet2/seed3"
    assert str(Training(name._replace(draw=1), "convnet2", 3, "soft")) == (
        "evaluation/dit_dgs-ipc10-draw1/soft/convnet2/seed3"
    )


@given(st.lists(NAMES, min_size=1, max_size=3).map("/".join))
def test_the_record_of_a_stage_says_which_stage_it_is_of(stage: str) -> None:
    assert layout.stage_of(layout.stage_record(stage)) == stage
    assert layout.stage_of(layout.stage_settings(stage)) == stage
