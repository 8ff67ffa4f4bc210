"""The report in a real browser: nothing is asked of the network, and everything works by pointer and by
keyboard."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from automix_transfer.report.page import build
from tests.report.browser import Browser
from tests.report.small import write_demo, write_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on PATH: the page cannot be tried in a browser")
    found = Browser(program, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(write_demo(tmp_path_factory.mktemp("report") / "demo"))


def quiet(browser: Browser, page: Path) -> None:
    """No error, and the page itself is all that was asked for."""
    assert browser.errors == []
    assert {address.split(":")[0] for address in browser.requests} <= {"file", "data"}
    assert {address for address in browser.requests if address.startswith("file")} == {
        page.resolve().as_uri()
    }
    browser.requests.clear()


COLUMN = (
    "[...document.querySelectorAll('#pretraining table tbody tr')].slice(0, 4).map(r => "
    "r.children[{}].textContent.trim())"
)
HEAD = "document.querySelectorAll('#pretraining thead button')[{}]"


def test_sorting_by_click_and_by_keyboard(browser, page):
    browser.open(page, 1440)
    assert browser.run("document.title").startswith("demo")
    assert browser.run(
        "[...document.images].every(i => i.loading === 'lazy' || (i.complete && i.naturalWidth > 0))"
    )
    browser.run(HEAD.format(1) + ".click()")
    assert browser.run(COLUMN.format(1)) == ["63.00", "61.25", "52.50", "9.75"]
    browser.run(HEAD.format(1) + ".focus()")
    browser.press("Enter", 13)
    assert browser.run(COLUMN.format(1)) == ["9.75", "52.50", "61.25", "63.00"]
    assert (
        browser.run("document.querySelector('#pretraining th[aria-sort]').getAttribute('aria-sort')")
        == "ascending"
    )
    # vanilla has no gain over itself: it stays at the end, whichever way
    browser.run(HEAD.format(2) + ".click()")
    assert browser.run(COLUMN.format(0))[-1] == "Vanilla"
    browser.run(HEAD.format(2) + ".click()")
    assert browser.run(COLUMN.format(0)) == ["CutMix", "MixUp", "AutoMix", "Vanilla"]
    browser.run(HEAD.format(0) + ".click()")
    assert browser.run(COLUMN.format(0)) == ["AutoMix", "CutMix", "MixUp", "Vanilla"]
    quiet(browser, page)


def test_the_slider_moves_every_strip_to_its_frame(browser, page):
    browser.open(page, 1440)
    strip = (
        "(() => { const s = document.querySelector('.mixrow.ours .strip'), i = "
        "s.querySelector('img').getBoundingClientRect();"
        " return Math.round(36 * (s.getBoundingClientRect().top - i.top) / i.height)})()"
    )
    guess = "document.querySelector('.mixrow.ours .seen small').textContent"
    # the second frame begins at row 12, its picture 2 rows below
    assert browser.run(strip) == 14 and browser.run(guess) == "50 · 50 %"
    browser.run("document.querySelector('.slider input').focus()")
    browser.press("ArrowRight", 39)
    assert browser.run(strip) == 26 and browser.run(guess) == "0 · 100 %"
    assert browser.run("document.querySelector('.slider output').textContent") == "λ = 1.00"
    assert browser.run("document.querySelector('.slider input').getAttribute('aria-valuetext')") == "1.00"
    browser.press("Home", 36)
    assert browser.run(strip) == 2 and browser.run(guess) == "100 · 0 %"
    quiet(browser, page)


LINES = "document.querySelectorAll('#curve-plot .line').length"
READ = (
    "[...document.querySelectorAll('#curve-readout tbody tr')].map(r => [...r.children].map(c => "
    "c.textContent).join(' '))"
)


def test_curves_of_chosen_runs(browser, page):
    browser.open(page, 1440)
    assert (
        browser.run(LINES) == 4
        and browser.run("document.getElementById('curve-count').textContent") == "4 of 5 drawn"
    )
    assert browser.run(READ)[0].endswith("40.00 40.00")
    browser.run("document.querySelector('#curve-runs input').focus()")
    browser.press(" ", 32)
    assert browser.run(LINES) == 3 and browser.run("document.activeElement.dataset.run") == "0", (
        "the focus stays on the run"
    )
    browser.run("document.querySelector('#curve-runs input[data-run=\"4\"]').click()")
    assert browser.run(LINES) == 4 and any("cub_automix" in row for row in browser.run(READ))
    browser.run("document.getElementById('curve-plot').focus()")
    browser.press("Home", 36)
    assert browser.run("document.querySelector('#curve-readout thead').textContent").startswith(
        "RunAt epoch 1"
    )
    assert all(row.endswith("20.00 40.00") for row in browser.run(READ))
    browser.press("ArrowRight", 39)
    assert all(row.endswith("40.00 40.00") for row in browser.run(READ))
    browser.run(
        "(q => { q.value = 'val_loss'; q.dispatchEvent(new Event('change')) "
        "})(document.getElementById('curve-quantity'))"
    )
    assert all(row.endswith("1.5 1.5") for row in browser.run(READ)) and browser.run(LINES) == 4
    browser.run("document.getElementById('curve-log').click()")
    browser.run("document.getElementById('curve-none').click()")
    assert browser.run(LINES) == 0 and browser.run("document.getElementById('curve-readout').hidden")
    quiet(browser, page)


CONTRAST = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (text) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    const d = canvas.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; };
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => { const l = c.slice(0, 3).map((v) => linear(v / 255));
    return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2]; };
  const bad = new Set(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    const hidden = !element.checkVisibility() || element.closest('script, style, option, .skip');
    if (!node.textContent.trim() || hidden) continue;
    const style = getComputedStyle(element), ink = rgba(element.closest('svg') ? style.fill : style.color);
    let ground = [255, 255, 255, 1];
    for (let e = element; e; e = e.parentElement) {
      const g = rgba(getComputedStyle(e).backgroundColor);
      if (g[3] > 0.99) { ground = g; break; }
    }
    const [a, b] = [light(ink), light(ground)].sort((x, y) => x - y), ratio = (b + 0.05) / (a + 0.05);
    const what = `${element.tagName}.${element.className}: ${node.textContent.trim().slice(0, 30)}`;
    if (ratio < 4.5) bad.add(`${ratio.toFixed(2)} ${what}`);
  }
  return [...bad];
})()"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1440])
def test_phone_and_desktop_by_day_and_by_night(browser, page, width, dark):
    browser.open(page, width, dark=dark)
    browser.run("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert browser.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert browser.run(CONTRAST) == []
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(15, 20, 25)" if dark else "rgb(244, 246, 249)")
    assert browser.run(
        "[...document.querySelectorAll('button, a, input, select, summary')].every(e => e.tabIndex >= 0)"
    )
    quiet(browser, page)


def test_a_link_to_a_run_unfolds_it(browser, page):
    browser.open(page, 1440)
    browser.run("document.querySelector('td a[href=\"#run-pretrain-automix\"]').click()")
    browser.run("new Promise(r => setTimeout(r, 200))")
    assert browser.run("document.getElementById('run-pretrain-automix').open")


def test_without_javascript_tables_and_pictures_are_there(browser, page):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page, 390)
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.run("document.querySelectorAll('#curve-plot svg .line').length") == 4
    assert browser.run("document.querySelector('#curves .controls').checkVisibility()") is False
    assert (
        browser.run("document.querySelector('.mixrow.ours .strip img').getBoundingClientRect().height") > 20
    )
    assert browser.run("document.querySelectorAll('#runs tbody tr').length") == 5
    quiet(browser, page)


def test_thousands_of_runs_in_pages(browser, tmp_path):
    write_run(tmp_path / "r0", 50.0)
    about = json.loads((tmp_path / "r0" / "run.json").read_text())
    for k in range(1, 160):
        shutil.copytree(tmp_path / "r0", tmp_path / f"r{k}")
        (tmp_path / f"r{k}" / "metrics.json").write_text(
            json.dumps({"top1_median": 50.0 + k / 10, "epochs": 2})
        )
        (tmp_path / f"r{k}" / "run.json").write_text(json.dumps(about | {"seed": k}))
    page = build(tmp_path)
    browser.open(page, 1440)
    rows = "[...document.querySelectorAll('#runs tbody tr')].map(r => r.children[2].textContent)"
    assert (
        len(browser.run(rows)) == 50
        and browser.run("document.querySelector('#runs .more span').textContent") == "50 of 160 rows"
    )
    browser.run("document.querySelectorAll('#runs thead button')[2].click()")
    assert browser.run(rows)[:2] == ["65.90", "65.80"], "all rows are sorted, not the shown ones"
    browser.run(
        "(f => { f.value = 'r157'; f.dispatchEvent(new Event('input')) })(document.querySelector('#runs "
        ".more input'))"
    )
    assert browser.run(rows) == ["65.70"]
    assert (
        browser.run(LINES) == 6 and browser.run("document.querySelectorAll('#curve-runs .chip').length") == 60
    )
    browser.run(
        "(f => { f.value = 'r159'; f.dispatchEvent(new Event('input')) "
        "})(document.getElementById('curve-filter'))"
    )
    browser.run("document.querySelector('#curve-runs input').click()")
    assert browser.run(LINES) == 7
    quiet(browser, page)
