import pytest

from dgs_lightning.experiment.progress import Progress


def test_brackets_and_colons_in_names_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(1)
    with progress:
        progress.begin("distilled/[red]", "dgs select --config runs/[a]:smile:/x.yaml")
        progress.step("distilled/[red]", 1, 2)
        progress.finish("distilled/[red]", 1.0)
    assert capsys.readouterr().out.splitlines() == [
        "distilled/[red]: dgs select --config runs/[a]:smile:/x.yaml",
        "[1/1] distilled/[red]: done in 1.0 s",
    ]
