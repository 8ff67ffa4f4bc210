"""The report: from a small folder to one file, and that file in a real browser."""

from __future__ import annotations

import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from automix_transfer.errors import UserError
from automix_transfer.report.__main__ import main
from automix_transfer.report.embed import Embedder
from automix_transfer.report.page import build, run_folders

from .browser import Browser
from .small import COMMIT, picture, write_demo, write_run


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("report") / "demo")


@pytest.fixture(scope="module")
def page(demo: Path) -> str:
    return build(demo).read_text(encoding="utf-8")


class Checker(HTMLParser):
    """Collects addresses, ids and text; every opened element has to be closed in order."""

    VOID = {"meta", "link", "img", "input", "br"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.addresses += [values[key] for key in ("src", "href") if key in values]
        self.ids += [values["id"]] if "id" in values else []
        self.images += [values] if tag == "img" else []
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        if not self.stack or self.stack[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_one_sound_file_that_asks_nothing_of_the_network(page):
    found = Checker(page)
    assert found.stack == [] and len(found.ids) == len(set(found.ids))
    assert all(address.startswith(("data:", "#")) for address in found.addresses)
    inside = {address[1:] for address in found.addresses if address.startswith("#")}
    assert inside <= set(found.ids)
    assert "http://" not in page and "https://" not in page and "@import" not in page
    assert all(image["alt"] and image["width"] and image["height"] for image in found.images)


def test_numbers_their_gains_and_where_they_come_from(page):
    text = Checker(page).text
    for expected in ("61.25", "−8.75", "+1.75", "39.50", "20.50", "+8.50", "−1.50", "+31.50", "60 of 60", "10 min 55 s", "pretrain/automix",
                     "detection/random_init", COMMIT[:10] + "+"):
        assert expected in text, expected


def test_text_from_files_is_shown_as_text(page):
    assert "<b>behind</b>" not in page and "&lt;b&gt;behind&lt;/b&gt; &amp; says so" in page
    assert "The same &lt;pairs&gt;." in page and "# &lt;as run&gt;" in page


def test_what_is_missing_is_said(page):
    text = Checker(page).text
    for sentence in ("summary.json has no number for detection.random_init.AP75", "finegrained/cub_automix/metrics.json does not exist",
                     "figures/cams.png does not exist", "figures/mixed_accuracy.png is not a picture that can be shown"):
        assert sentence in text, sentence
    assert "nan" not in text.lower().split() and "None" not in text


def test_a_single_run_without_a_chain(tmp_path):
    write_run(tmp_path / "r50", 50.0)
    text = Checker(build(tmp_path / "r50", tmp_path / "out" / "report.html").read_text()).text
    assert "50.00" in text and "summary.json does not exist" in text


@pytest.mark.parametrize("content", ["[1, 2]", "{broken", "{}", '{"pretrain": [], "seconds": 3, "notes": "x", "detection": {"cub": 5}}'])
def test_a_hand_edited_summary_does_not_break_the_page(tmp_path, content):
    write_run(tmp_path / "pretrain" / "vanilla", 50.0)
    (tmp_path / "summary.json").write_text(content)
    assert "50.00" in Checker(build(tmp_path).read_text()).text


@pytest.mark.parametrize("name", ["run.json", "metrics.json", "log.csv", "config.yaml"])
@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe\x00", b'{"starts": 3, "seed": "x", "seconds": "y", "epochs": null}'])
def test_damaged_run_folders_do_not_break_the_page(tmp_path, name, content):
    write_run(tmp_path / "pretrain" / "vanilla", 50.0)
    (tmp_path / "pretrain" / "vanilla" / name).write_bytes(content)
    Checker(build(tmp_path).read_text())


def test_nothing_to_report_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="does not exist or is not a folder"):
        build(tmp_path / "nowhere")
    with pytest.raises(UserError, match="nothing to report"):
        build(tmp_path)


def test_large_pictures_are_recoded_and_the_page_stays_within_its_budget(tmp_path):
    problems: list[str] = []
    picture(tmp_path / "large.png", 400, 300, smooth=False)
    size = (tmp_path / "large.png").stat().st_size
    first = Embedder(problems).embed(tmp_path / "large.png")
    assert first is not None and (first.width, first.height) == (400, 300)
    assert first.uri.startswith("data:image/webp") and len(first.uri) < size
    assert Embedder(problems, budget=1000).embed(tmp_path / "large.png") is None and "15 MB" in problems[0]


def test_command_line(demo, tmp_path, capsys):
    assert main(["page", str(demo), "-o", str(tmp_path / "r.html")]) == 0 and (tmp_path / "r.html").stat().st_size > 10_000
    assert main(["table", str(demo)]) == 0
    assert "MaxBoxAccV2" in capsys.readouterr().out
    (tmp_path / "summary.json").write_text("[]")
    with pytest.raises(UserError, match="not a JSON object"):
        main(["table", str(tmp_path)])


def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on PATH: the page cannot be tried in a browser")
    return found


COLUMN = "[...document.querySelectorAll('#pretraining tbody tr')].map(r => r.children[{}].textContent.trim())"
SHOWN = "[...document.querySelectorAll('#frames img')].filter(i => i.offsetHeight > 0).map(i => i.dataset.lam)"


def test_in_a_browser(demo, page, tmp_path):
    program = chromium()
    browser = Browser(program, tmp_path)
    try:
        browser.open(demo / "report.html", 1440)
        assert browser.run("document.title").startswith("demo")
        assert browser.run("[...document.images].every(i => i.loading === 'lazy' || (i.complete && i.naturalWidth > 0))")

        head = "document.querySelectorAll('#pretraining thead button')[{}]"
        browser.run(head.format(1) + ".click()")
        assert browser.run(COLUMN.format(1)) == ["63.00", "61.25", "52.50", "9.75"]
        browser.run(head.format(1) + ".focus()")
        browser.press("Enter", 13)
        assert browser.run(COLUMN.format(1)) == ["9.75", "52.50", "61.25", "63.00"]
        assert browser.run("document.querySelector('#pretraining th[aria-sort]').getAttribute('aria-sort')") == "ascending"
        browser.run(head.format(2) + ".click()")  # vanilla has no gain over itself: it stays at the end, whichever way
        assert browser.run(COLUMN.format(0))[-1] == "Vanilla"
        browser.run(head.format(2) + ".click()")
        assert browser.run(COLUMN.format(0)) == ["CutMix", "MixUp", "AutoMix", "Vanilla"]
        browser.run(head.format(0) + ".click()")
        assert browser.run(COLUMN.format(0)) == ["AutoMix", "CutMix", "MixUp", "Vanilla"]

        assert browser.run(SHOWN) == ["0.50"]
        browser.run("document.getElementById('lam').focus()")
        browser.press("ArrowRight", 39)
        assert browser.run(SHOWN) == ["1.00"] and browser.run("document.getElementById('lam-value').textContent") == "λ = 1.00"
        browser.press("Home", 36)
        assert browser.run(SHOWN) == ["0.00"]
        browser.run("document.querySelector('td a[href=\"#run-pretrain-automix\"]').click()")
        browser.run("new Promise(r => setTimeout(r, 200))")
        assert browser.run("document.getElementById('run-pretrain-automix').open")

        colours = set()
        for width in (390, 1440):
            for dark in (False, True):
                browser.open(demo / "report.html", width, dark=dark)
                assert browser.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), width
                colours.add((dark, browser.run("getComputedStyle(document.body).backgroundColor")))
        assert len(colours) == 2 and len({colour for _, colour in colours}) == 2
        assert browser.errors == []
        assert {address.split(":")[0] for address in browser.requests} <= {"file", "data"}
        assert {address for address in browser.requests if address.startswith("file")} == {(demo / "report.html").resolve().as_uri()}
    finally:
        browser.close()


def test_a_detectors_run_folder_is_not_taken_for_one_of_training(tmp_path):
    write_run(tmp_path / "pretrain" / "vanilla", 50.0)
    detector = tmp_path / "detection" / "automix"
    detector.mkdir(parents=True)
    (detector / "metrics.json").write_text('{"iteration": 19, "total_loss": 1.0}\n{"iteration": 39, "total_loss": 0.5}\n')
    (detector / "last_checkpoint").write_text("model_final.pth")
    assert run_folders(tmp_path) == [tmp_path / "pretrain" / "vanilla"]
    assert "metrics.json is not valid" not in build(tmp_path).read_text()
