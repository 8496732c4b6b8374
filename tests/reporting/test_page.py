import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dgs_lightning.reporting.album import figures_of
from dgs_lightning.reporting.folder import read_run
from dgs_lightning.reporting.page import RunReport, build_page
from dgs_lightning.reporting.style import save
from dgs_lightning.reporting.summary import summarize

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe"),
)


class Browser:
    """Headless Chromium with one page, driven by the DevTools protocol over pipes."""

    def __init__(self, profile: Path) -> None:
        commands, self._commands = os.pipe()
        self._replies, replies = os.pipe()
        shell = f'exec "$0" "$@" 3<&{commands} 4>&{replies}'
        arguments = ["bash", "-c", shell, str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(arguments, pass_fds=(commands, replies), stderr=subprocess.DEVNULL)
        os.close(commands)
        os.close(replies)
        self._pending, self._number, self._session = b"", 0, ""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def send(self, method: str, **parameters: object) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(
            self._commands,
            json.dumps(message | ({"sessionId": self._session} if self._session else {})).encode() + b"\0",
        )
        while True:
            while b"\0" not in self._pending:
                self._pending += os.read(self._replies, 1 << 20)
            reply, _, self._pending = self._pending.partition(b"\0")
            answer = json.loads(reply)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def run(self, script: str) -> Any:  # noqa: ANN401
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, path: Path, fragment: str = "") -> None:
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=f"file://{path}{fragment}")
        self.run("new Promise(done => document.readyState === 'complete' ? done() : addEventListener('load', done))")

    def press(self, key: str) -> None:
        text = {"text": "\r"} if key == "Enter" else {}
        code = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40}[key]
        for kind in ("keyDown", "keyUp"):
            more = text if kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)

    def choose(self, **values: object) -> None:
        for name, value in values.items():
            self.run(f"byId({name!r}).value = {str(value)!r}; byId({name!r}).dispatchEvent(new Event('input'))")

    def tiles(self) -> list[tuple[str, float]]:
        script = "[...document.querySelectorAll('.tile')].map(t => [t.dataset.class, +t.dataset.difficulty])"
        return [(name, difficulty) for name, difficulty in self.run(script)]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._commands)
        os.close(self._replies)


@pytest.fixture(scope="session")
def page(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    run = read_run(finished_run)
    figure = next(figures_of(run))
    figures = [(figure.caption, save(figure.draw(), folder / figure.slug)[0])]
    (folder / "index.html").write_text(build_page([RunReport(run, summarize(run), figures)], []), encoding="utf-8")
    return folder / "index.html"


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium); the page was not opened")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def test_the_page_refers_to_nothing_outside_itself(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    addresses = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", text)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"https?://|@import|url\(", text)
    assert str(Path.home()) not in text


def test_text_of_a_run_cannot_become_markup(run_folder: Path) -> None:
    run = read_run(run_folder)
    run.settings = {**run.settings, "title": "</title><script>alert(1)</script> ${title} {{ title }}"}
    shutil.move(run_folder / "distilled" / "dit-ipc4", run_folder / "distilled" / "dit-<b>-ipc4")
    run.settings["methods"].append("dit-<b>")
    shutil.move(run_folder / "distilled" / "random-ipc4", run_folder / "distilled" / "dit-<!--<script>-ipc4")
    run.settings["methods"].append("dit-<!--<script>")  # in data, a browser would look for a second end of the script
    text = build_page([RunReport(run, summarize(run), [])], [])
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt; ${title} {{ title }}</") == 2
    assert "&lt;b&gt;" in text
    assert text.count("</script>") == 2
    assert "<!--" not in text


def test_the_gallery_filters_by_set_class_and_difficulty(page: Path, browser: Browser) -> None:
    browser.open(page)
    assert browser.run("byId('count').textContent").startswith("12 of 12 images.")
    everything = browser.tiles()
    browser.choose(**{"class": 1})
    name = browser.run("byId('class').selectedOptions[0].textContent")
    assert browser.tiles() == [tile for tile in everything if tile[0] == name]
    browser.choose(**{"class": "", "from": 0.2, "to": 0.3})
    assert browser.tiles() == [tile for tile in everything if 0.2 <= tile[1] < 0.3]
    assert 0 < len(browser.tiles()) < 12
    browser.choose(set=1)
    assert browser.tiles() != [tile for tile in everything if 0.2 <= tile[1] < 0.3]


def test_the_gallery_sorts_both_ways_and_by_class(page: Path, browser: Browser) -> None:
    browser.open(page)
    tiles = browser.tiles()
    assert tiles == sorted(tiles, key=lambda tile: tile[1])
    browser.choose(sort="hard")
    assert browser.tiles() == tiles[::-1]
    browser.choose(sort="class")
    assert browser.tiles() == sorted(tiles)


def test_the_address_keeps_the_selection(page: Path, browser: Browser) -> None:
    browser.open(page)
    browser.choose(set=2, sort="hard")
    fragment, tiles = browser.run("location.hash"), browser.tiles()
    browser.open(page, fragment)
    assert fragment == "#set=2&sort=hard"
    assert browser.tiles() == tiles


def test_an_interval_of_the_histogram_limits_to_itself(page: Path, browser: Browser) -> None:
    browser.open(page)
    counts = browser.run("[...byId('intervals').children].map(b => +b.title.split(': ')[1].split(' ')[0])")
    assert sum(counts) == 12
    fullest = counts.index(max(counts))
    browser.run(f"byId('intervals').children[{fullest}].click()")
    assert len(browser.tiles()) == max(counts)
    assert all(fullest / 10 <= difficulty < (fullest + 1) / 10 for _, difficulty in browser.tiles())


def test_keys_move_between_images_and_open_and_close_one(page: Path, browser: Browser) -> None:
    browser.open(page)
    focused = "[...document.querySelectorAll('.tile')].indexOf(document.activeElement)"
    browser.run("document.querySelector('.tile').focus()")
    browser.press("ArrowRight")
    assert browser.run(focused) == 1
    browser.press("ArrowDown")
    assert browser.run(focused) > 1
    browser.press("ArrowLeft")
    here = browser.run(focused)
    browser.press("Enter")
    assert browser.run("byId('viewer').open")
    first = browser.run("byId('viewer-text').textContent")
    browser.press("ArrowRight")
    assert browser.run("byId('viewer-text').textContent") != first
    browser.press("Escape")
    browser.run("new Promise(requestAnimationFrame)")
    assert not browser.run("byId('viewer').open")
    assert browser.run(focused) == here + 1


def test_a_figure_can_be_enlarged(page: Path, browser: Browser) -> None:
    browser.open(page)
    browser.run("document.querySelector('.enlarge').click()")
    assert browser.run("byId('viewer').open && byId('viewer-image').naturalWidth") > 600
    assert browser.run("byId('viewer-text').textContent").startswith("A square shows the best accuracy")


def test_the_theme_follows_the_system_and_the_button(page: Path, browser: Browser) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    colors = {}
    for scheme in ("light", "dark"):
        browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        browser.open(page)
        colors[scheme] = browser.run(background)
    browser.run("byId('theme').click()")
    assert colors["light"] != colors["dark"]
    assert browser.run(background) == colors["light"]
