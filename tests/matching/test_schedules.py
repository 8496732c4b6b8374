import json
from pathlib import Path

import pytest

from dgs_lightning.matching.schedules import idc_schedule, rounds
from dgs_lightning.tasks.learned_images import ImageSettings
from dgs_lightning.tasks.matching_network import training_of_idc


@pytest.mark.golden
def test_the_settings_of_idc_are_the_published_ones(golden: Path) -> None:
    path = golden / "matching" / "idc_settings.json"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    for row in json.loads(path.read_text()):
        name = f"imagenet{row['classes']}" if row["dataset"] == "imagenet" else row["dataset"]
        found = idc_schedule(name, row["ipc"], row["factor"])
        assert found.rate == pytest.approx(row["lr_img"])
        share = row["mix_p"] if row["mixup_net"] == "cut" else 0
        assert found._replace(rate=0) == (
            *(row["metric"], 0, row["niter"], row["early"], row["n_data"], row["batch_real"]),
            *(tuple(row["aug_type"].split("_")), row["lr"], row["weight_decay"], share),
            row["batch_syn_max"] if row["decode_type"] == "bound" else None,
        )
        assert ImageSettings().momentum == row["mom_img"]
        assert (training_of_idc(found).momentum, training_of_idc(found).rounds) == (row["momentum"], row["inner_loop"])


def test_rounds_of_dc_are_the_published_ones() -> None:
    assert [rounds(ipc) for ipc in (1, 10, 20, 30, 40, 50)] == [
        (1, 1),
        (10, 50),
        (20, 25),
        (30, 20),
        (40, 15),
        (50, 10),
    ]
    assert rounds(5) == (1, 1)
    assert rounds(200) == (50, 10)
