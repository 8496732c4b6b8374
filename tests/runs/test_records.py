import json
from pathlib import Path

import pytest

from dgs_lightning.errors import InputError
from dgs_lightning.runs.records import DONE, RUNNING, Records


def test_a_stage_is_done_with_its_settings_and_results_alone(tmp_path: Path) -> None:
    records = Records(tmp_path)
    assert records.status("pools/dit", "key", "pools/dit") == "new"
    records.write("pools/dit", "predict", "key", RUNNING)
    assert records.status("pools/dit", "key", "pools/dit") == "resume"
    records.write("pools/dit", "predict", "key", DONE, seconds=1.5, device="cpu")
    assert records.status("pools/dit", "key", "pools/dit") == "resume"  # without results
    (tmp_path / "pools" / "dit").mkdir(parents=True)
    assert records.status("pools/dit", "key", "pools/dit") == DONE
    assert records.status("pools/dit", "another key", "pools/dit") == "changed"
    records.reopen("pools/dit")
    assert records.status("pools/dit", "key", "pools/dit") == "resume"
    assert records.read("pools/dit")["seconds"] == 1.5


def test_a_run_of_version_0_1_0_is_refused_with_what_to_do(tmp_path: Path) -> None:
    records = Records(tmp_path)
    path = records.path("data")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"name": "data", "command": "prepare", "key": "k", "status": "done", "seconds": 1.0}))
    with pytest.raises(InputError, match=r"a run of version 0\.1\.0.*another --output.*'dgs report' reads its results"):
        records.status("data", "k", "data")
