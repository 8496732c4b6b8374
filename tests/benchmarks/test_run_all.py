import json
import platform
from pathlib import Path

import pytest
import run_all
from page import page
from run_all import machine, measure, processor, renewed
from topics import TOPICS, Measured, Topic

MEASURED = {"images_per_second": 77.0, "reference_images_per_second": 7.0, "ratio": 11.0}
# Run by test_programs.py.
APART = ("launchers.py", "imagenet_scale.py", "scoring_forms.py", "encoding.py")


def test_the_processor_has_the_name_that_the_system_gives_it() -> None:
    assert processor("processor\t: 0\nmodel name\t: Swift 9000 @ 3GHz\n" * 2) == "Swift 9000 @ 3GHz"
    assert processor("processor\t: 0\nBogoMIPS\t: 50.00\n") == platform.machine()


def test_the_page_names_neither_host_nor_folder() -> None:
    text = page([Measured(TOPICS[0], {"as released": {}}, {}, machine())], short=False)
    assert {"processor", "cores", "threads", "memory", "python", "torch"} <= machine().keys()
    assert platform.node() not in text.split()
    assert str(Path.home()) not in text


def test_one_topic_is_measured_and_the_others_stay_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {"on": {"torch": "0.1"}, "cases": {"a case that is gone": {}}, "growth": {}}
    kept = {
        "Selection": {**old, "cases": {"as released": {"seconds": 11.5}}},
        "Scoring": {**old, "growth": {"100": {"ratio": 3}, "5": {}}},
    }
    (tmp_path / "measured.json").write_text(json.dumps(kept))
    monkeypatch.setattr(run_all, "KEPT", tmp_path / "measured.json")
    monkeypatch.setattr(run_all, "run", lambda program, options: MEASURED)
    run_all.main(["--only", "scoring", "--output", str(tmp_path)])
    after = json.loads((tmp_path / "measured.json").read_text())
    assert after["Selection"] == kept["Selection"]
    assert after["Scoring"]["on"] == machine()
    assert after["Scoring"]["growth"]["100"] == MEASURED
    text = (tmp_path / "benchmarks.md").read_text()
    selection, scoring = (text.split(f"## {title}\n")[1].split("\n## ")[0] for title in ("Selection", "Scoring"))
    assert "| as released (`--preset released --classes 1000`) | 11.5 | - |" in selection
    assert "*Measured on: torch 0.1.*" in selection
    assert "| 77 | 7 | 11 | - |" in scoring
    assert f"torch {machine()['torch']}" in scoring


@pytest.mark.parametrize(("torch", "cases"), [("9", ["as released", "as in the paper"]), ("8", ["as in the paper"])])
def test_one_case_is_measured_and_the_others_stay_if_machine_and_versions_are_the_same(
    torch: str, cases: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_all, "run", lambda program, options: MEASURED)
    old = Measured(TOPICS[0], {"as released": {"ratio": 1.0}}, {}, {"torch": torch})
    result = renewed(old, measure(TOPICS[0], short=False, only=["as in"]), {"torch": "9"})
    assert list(result.cases) == cases
    assert result.cases["as in the paper"] == MEASURED
    assert (result.growth, result.on) == ({}, {"torch": "9"})


@pytest.mark.slow
@pytest.mark.parametrize(
    "topic", [topic for topic in TOPICS if topic.program not in APART], ids=lambda topic: topic.title
)
def test_the_short_form_fills_a_row_of_the_table(topic: Topic) -> None:
    text = page([measure(topic, short=True)], short=True)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len([row for row in rows if "`" in row]) == 1 + (topic.growth is not None)
