"""The report: from a small folder to one file."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from automix_transfer.errors import UserError
from automix_transfer.figures.sheet import drawn
from automix_transfer.figures.style import draw_lines, subplots
from automix_transfer.paper.trained import epochs_done
from automix_transfer.report.cli import main
from automix_transfer.report.embed import Embedder
from automix_transfer.report.html import environment
from automix_transfer.report.page import DETAILS, build
from automix_transfer.runs.collect import collect
from automix_transfer.runs.folder import read_metrics, read_run, settings
from automix_transfer.shown import clean_lines
from automix_transfer.text_files import MOST_BYTES
from tests.report.small import COMMIT, picture, write_demo, write_run


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

    def handle_startendtag(self, tag, attrs):  # of SVG
        pass

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        if not self.stack or self.stack[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def sound(file: Path) -> str:
    """The text of a page after the checks that every page must pass."""
    text = file.read_text(encoding="utf-8")
    found = Checker(text)
    assert found.stack == [] and len(found.ids) == len(set(found.ids))
    assert all(address.startswith(("data:", "#")) for address in found.addresses)
    assert {address[1:] for address in found.addresses if address.startswith("#")} <= set(found.ids)
    return found.text


def test_one_sound_file_that_asks_nothing_of_the_network(demo, page):
    sound(demo / "report.html")
    found = Checker(page)
    outside = page.replace("http://www.w3.org/2000/svg", "")  # the name of SVG, which nobody fetches
    assert "http://" not in outside and "https://" not in outside and "@import" not in page
    assert all(image["alt"] and image["width"] and image["height"] for image in found.images)


def test_numbers_their_gains_and_where_they_come_from(page):
    text = Checker(page).text
    for expected in (
        "61.25",
        "−8.75",
        "+1.75",
        "39.50",
        "20.50",
        "+8.50",
        "60 / 60",
        "10 min 55 s",
        "pretrain/automix",
        "detection/random",
        COMMIT[:10] + "+",
        "wsol/automix.json",
    ):
        assert expected in text, expected


def test_evaluations_confusions_and_timings(page):
    text = Checker(page).text
    for expected in (
        "62.25",
        "7.50",
        "88.00",
        "1.250",
        "37.50",
        "ECE 7.5 %",
        "7 of 20",
        "Wren <small>",
        "0.300",
        "3.00",
        "disc",
        f"pretrain/vanilla/evaluation.json @ {COMMIT[:10]} ← pretrain/vanilla @ {COMMIT[:10]}+",
    ):
        assert expected in text, expected
    assert page.count("<svg") == 3 and 'aria-label="Accuracy against confidence for ' in page


def test_text_from_files_is_shown_as_text(page):
    assert "<b>behind</b>" not in page and "&lt;b&gt;behind&lt;/b&gt; &amp; says so" in page
    assert "The same &lt;pairs&gt;." in page and "# &lt;as run&gt;" in page
    assert "Wren <small>" not in page


def test_what_is_missing_is_said(page):
    text = Checker(page).text
    for sentence in (
        "summary.json has no number for pretrain.cutmix.mixed_top1",
        "finegrained/cub_automix/metrics.json does not exist",
        "figures/mixed_accuracy.png is not a picture that can be shown",
        "finegrained/cub_automix/confusion/gone.png is not a picture",
    ):
        assert sentence in text, sentence
    assert "nan" not in text.lower().split() and "None" not in text


def test_several_folders_are_one_page(demo, tmp_path):
    write_run(tmp_path / "more" / "seed1", 50.0)
    write_run(tmp_path / "more" / "seed2", 51.5)
    text = sound(build([tmp_path / "more", demo, tmp_path / "more" / "seed1"], tmp_path / "out.html"))
    for expected in (
        "more/seed1",
        "more/seed2",
        "demo/pretrain/automix",
        "51.50",
        "demo/steps.json",
        "3 folders",
    ):
        assert expected in text, expected
    assert (tmp_path / "out.html").read_text().count('id="run-more-seed1"') == 1, (
        "a folder given twice is shown once"
    )


def test_a_single_run_without_a_chain(tmp_path):
    write_run(tmp_path / "r50", 50.0)
    text = sound(build(tmp_path / "r50", tmp_path / "out" / "report.html"))
    assert "50.00" in text and "Runs and results: r50" in text


def test_runs_on_several_labels_stand_with_their_map(tmp_path):
    for name, of in (("voc", "map"), ("coco", "map"), ("cub", "top1")):
        run = tmp_path / "runs" / name
        write_run(run, 41.25)
        metrics = (run / "metrics.json").read_text().replace("top1", of)
        (run / "metrics.json").write_text(metrics)
    page = build(tmp_path / "runs", tmp_path / "r.html").read_text()
    assert "Median top-1 or mAP" in page and page.count("41.25 mAP") == 2 and page.count("42.25 mAP") == 2
    shutil.rmtree(tmp_path / "runs" / "cub")
    page = build(tmp_path / "runs", tmp_path / "r.html").read_text()
    assert "Median mAP" in page and "41.25 mAP" not in page and "41.25" in page


@pytest.mark.parametrize(
    "content",
    ["[1, 2]", "{broken", "{}", '{"pretrain": [], "seconds": 3, "notes": "x", "detection": {"cub": 5}}'],
)
def test_a_hand_edited_summary_does_not_break_the_page(tmp_path, content):
    write_run(tmp_path / "pretrain" / "vanilla", 50.0)
    (tmp_path / "summary.json").write_text(content)
    assert "50.00" in sound(build(tmp_path))


@pytest.mark.parametrize("name", ["run.json", "metrics.json", "log.csv", "config.yaml"])
@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff\xfe\x00", b'{"starts": 3, "seed": "x", "seconds": "y", "epochs": null}']
)
def test_damaged_run_folders_do_not_break_the_page(tmp_path, name, content):
    write_run(tmp_path / "pretrain" / "vanilla", 50.0)
    (tmp_path / "pretrain" / "vanilla" / name).write_bytes(content)
    assert "vanilla" in sound(build(tmp_path))


VALUES = (
    None,
    True,
    -1,
    1e400,
    math.nan,
    "x<y",
    "",
    [],
    {},
    [[1, 2], "z"],
    {"a": {"b": None}},
    10**400,
    "\u2028</script>",
)


def mutated(value, chance: random.Random):
    """A JSON value with something in it exchanged for something else, left out, or doubled."""
    if chance.random() < 0.12:
        return chance.choice(VALUES)
    if isinstance(value, dict):
        kept = [
            (key if chance.random() > 0.04 else f"{key}<", item)
            for key, item in value.items()
            if chance.random() > 0.06
        ]
        return {key: mutated(item, chance) for key, item in kept}
    if isinstance(value, list):
        return [mutated(item, chance) for item in value] * chance.choice((1, 1, 1, 2))
    return value


def test_files_with_anything_in_them(demo, tmp_path):
    """Every JSON file of a demo, hand-edited in all ways: no traceback, a sound page, and the other files are
    still shown."""
    for seed in range(12):
        chance = random.Random(seed)
        folder = shutil.copytree(demo, tmp_path / str(seed))
        for file in sorted(folder.rglob("*.json")):
            if chance.random() < 0.5:
                text = json.dumps(mutated(json.loads(file.read_text()), chance))
                file.write_text(text if chance.random() < 0.9 else text[: len(text) // 2])
        sound(build(folder, render=False))
        shutil.rmtree(folder)


def test_files_that_are_cut_off_or_of_other_kinds(demo, tmp_path):
    for seed in range(6):
        chance = random.Random(seed)
        folder = shutil.copytree(demo, tmp_path / str(seed))
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            if chance.random() < 0.4:
                data = bytearray(file.read_bytes()[: chance.randrange(1, 4000)])
                for _ in range(chance.randrange(4)):
                    data[chance.randrange(len(data))] = chance.randrange(256)
                file.write_bytes(bytes(data))
            elif chance.random() < 0.1:
                file.unlink()
                file.mkdir()
        sound(build(folder, tmp_path / "out.html", render=False))
        shutil.rmtree(folder)


def test_nothing_to_report_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "nowhere"))):
        build(tmp_path / "nowhere")
    with pytest.raises(UserError, match="nothing to report"):
        build(tmp_path)
    (tmp_path / "package.json").write_text('{"name": "foreign", "about": 3}')
    (tmp_path / "notes.json").write_text("[1, 2]")
    with pytest.raises(UserError, match="nothing to report"):
        build(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="not a folder"):
        build([tmp_path, tmp_path / "file"])


def test_thousands_of_runs(tmp_path):
    """The page stays small, names every run, and says what it leaves out."""
    write_run(tmp_path / "runs" / "r0000", 50.0)
    about = json.loads((tmp_path / "runs" / "r0000" / "run.json").read_text())
    for k in range(1, 300):
        shutil.copytree(tmp_path / "runs" / "r0000", tmp_path / "runs" / f"r{k:04d}")
        (tmp_path / "runs" / f"r{k:04d}" / "run.json").write_text(json.dumps(about | {"seed": k}))
    (tmp_path / "runs" / "r0007" / "config.yaml").write_text("method:\n  name: mixup\n")
    (tmp_path / "runs" / "r0299" / "metrics.json").unlink()
    page = build(tmp_path / "runs")
    text = sound(page)
    assert all(f"r{k:04d}" in text for k in range(300)) and "method.name mixup" in text
    assert "r0299/metrics.json does not exist" in text
    raw = page.read_text()
    assert raw.count("<details id=") == DETAILS and "data-paged" in raw and page.stat().st_size < 600_000


def test_large_pictures_are_recoded_and_the_page_stays_within_its_budget(tmp_path):
    problems: list[str] = []
    picture(tmp_path / "large.png", 400, 300, smooth=False)
    size = (tmp_path / "large.png").stat().st_size
    first = Embedder(problems).embed(tmp_path / "large.png")
    assert first is not None and (first.width, first.height) == (400, 300)
    assert first.uri.startswith("data:image/webp") and len(first.uri) < size
    assert Embedder(problems, budget=1000).embed(tmp_path / "large.png") is None and "15 MB" in problems[0]


def test_command_line(demo, tmp_path, capsys):
    assert main(["page", str(demo), str(demo / "pretrain"), "-o", str(tmp_path / "r.html")]) == 0
    assert (tmp_path / "r.html").stat().st_size > 10_000
    assert main(["table", str(demo)]) == 0
    assert "CutMix" in capsys.readouterr().out
    (tmp_path / "summary.json").write_text("[]")
    with pytest.raises(UserError, match="not a JSON object"):
        main(["table", str(tmp_path)])


def test_a_detectors_run_folder_is_not_taken_for_one_of_training(tmp_path):
    write_run(tmp_path / "pretrain" / "vanilla", 50.0)
    detector = tmp_path / "detection" / "automix"
    detector.mkdir(parents=True)
    (detector / "metrics.json").write_text(
        '{"iteration": 19, "total_loss": 1.0}\n{"iteration": 39, "total_loss": 0.5}\n'
    )
    (detector / "last_checkpoint").write_text("model_final.pth")
    found = collect([tmp_path])
    assert found.runs == [tmp_path / "pretrain" / "vanilla"] and found.detectors == [detector]
    raw = build(tmp_path).read_text()
    assert "metrics.json is not valid" not in raw and '"total_loss":[[20,40],[1,0.5]]' in raw


def test_names_of_any_bytes_reach_the_page_without_control(tmp_path):
    """ESC, C1 and bidirectional controls, wherever a template puts a name; bytes that are no UTF-8."""
    folder = tmp_path / os.fsdecode(b"caf\xe9 \x1b]0;x\x07 \xe2\x80\xae \xc2\x9b31m")
    write_run(folder / "a\x1b[2Jb", 50.0)
    write_run(folder / "b", 40.0)
    text = build(folder, tmp_path / "page.html", render=False).read_text()
    assert not set(re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)) and "\\x1b[2Jb" in text


@pytest.mark.parametrize("about", [5, "backbones", ["backbones"], None, {"backbones": 3}])
def test_an_answer_about_nothing_does_not_break_the_page(about, tmp_path):
    write_run(tmp_path / "run", 50.0)
    content = {"about": about, "rows": [{"task": "knn", "scores": []}, 7]}
    (tmp_path / "answer.json").write_text(json.dumps(content))
    assert "</html>" in build(tmp_path, tmp_path / "page.html", render=False).read_text()


def test_a_picture_of_very_many_pixels_is_left_out(tmp_path):
    """Its file is small, and its WebP would take minutes."""
    Image.new("L", (8000, 8000)).save(tmp_path / "x.png")
    problems: list[str] = []
    assert Embedder(problems).embed(tmp_path / "x.png") is None and "x.png" in problems[0]


def test_a_picture_outside_of_its_folder_is_not_embedded(tmp_path: Path) -> None:
    """Neither by its path nor by a link: whoever gets the page must not get other files with it."""
    run = tmp_path / "run"
    run.mkdir()
    for file in (tmp_path / "secret.png", run / "own.png"):
        Image.new("RGB", (4, 4)).save(file)
    (run / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "moved").symlink_to(run)
    problems: list[str] = []
    embedder = Embedder(problems)
    for name in ("own.png", "../run/own.png"):
        assert embedder.embed(tmp_path / "moved" / name, tmp_path / "moved")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "link.png"):
        assert embedder.embed(run / name, run) is None and Path(name).name in problems.pop()
    assert embedder.embed(run / "link.png") is None


def test_no_name_reorders_the_page_or_is_a_formula_in_a_figure() -> None:
    template = environment().from_string("{{ name }} {{ {name: 1} | script }}")
    assert clean_lines(template.render(name="a\u202eb<")) == r'a\u202eb&lt; {"a\\u202eb\u003c":1}'

    @drawn
    def figure() -> Figure:
        made, [axis] = subplots(2, 2)
        draw_lines(axis, {"_$a$": ([0, 1], [0, 1])})
        [text] = axis.legend().get_texts()
        assert text.get_text() == " _$a$" and not text.get_parse_math()
        return made

    figure()


def test_pipes_in_a_run_folder_are_not_waited_for(tmp_path):
    for name in ("config.yaml", "log.csv", "metrics.json", "run.json"):
        os.mkfifo(tmp_path / name)
    run = read_run(tmp_path)
    assert not run.history and any("config.yaml" in problem for problem in run.problems)
    assert read_metrics(tmp_path, run.problems) == [] and "metrics.json" in run.problems[-1]
    assert epochs_done(tmp_path) == 0


def test_a_line_of_metrics_that_is_nested_without_end_is_passed_over(tmp_path):
    (tmp_path / "metrics.json").write_text("[" * 100_000 + '\n{"iteration": 3}\n')
    assert [row["iteration"] for row in read_metrics(tmp_path, [])] == [3]


def test_the_settings_of_a_config_with_very_many_lines(tmp_path):
    assert settings("a:\n  b:\n  - x\n  - y\nc: 1\n") == {"a.b": "x, y", "c": "1"}
    (tmp_path / "config.yaml").write_text("a:\n" + "- x\n" * (MOST_BYTES // 4))  # larger than any config
    run = read_run(tmp_path)
    assert run.config == "" and any("config.yaml" in problem for problem in run.problems)
