"""Strips of mixed samples, from a tiny network: frames where the page expects them, and the same pictures as
the mixers make."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from automix_transfer.errors import UserError
from automix_transfer.mixing import build_method
from automix_transfer.models.encoders import EncoderInfo, create_encoder
from automix_transfer.report import slider
from automix_transfer.report.curves import Line, curve_data, thinned
from automix_transfer.report.embed import Embedder
from automix_transfer.report.gallery import slider_views
from automix_transfer.report.svg import line_plot
from automix_transfer.runs.collect import collect
from automix_transfer.runs.folder import differences, settings

INFO = EncoderInfo("resnet10_32", 3, image_size=32)
LAMS = (0.0, 0.5, 1.0)


class Samples:
    labels = np.array([0, 1, 2, 0])
    classes = ["n01440764", "b", "c"]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return (
            torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(index)),
            int(self.labels[index]),
            index,
        )


@pytest.fixture(scope="module")
def strips(tmp_path_factory: pytest.TempPathFactory) -> slider.Strips:
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("root")
    (root / "LOC_synset_mapping.txt").write_text("n01440764 tench, Tinca tinca\nbroken\n")
    method = build_method("automix", create_encoder("resnet10_32", 3), {"init_std": 1.0}).eval()
    return slider.render(method, INFO, Samples(), count=2, lams=LAMS, root=root)


def test_every_row_goes_from_image_j_to_image_i(strips):
    assert set(strips.rows) == set(slider.rows())
    for name in ("mixup", "cutmix", "fmix"):
        assert strips.rows[name].shape == (2, 3, 32, 32, 3)
        np.testing.assert_array_equal(strips.rows[name][:, 0], strips.images_j)
        np.testing.assert_array_equal(strips.rows[name][:, -1], strips.images_i)
    half = (strips.images_i.astype(int) + strips.images_j) / 2
    clipped = (
        (strips.images_i > 0) & (strips.images_i < 255) & (strips.images_j > 0) & (strips.images_j < 255)
    )
    assert np.abs(strips.rows["mixup"][:, 1] - half)[clipped].max() <= 1
    assert {name for pair in strips.classes for name in pair} <= {"tench, Tinca tinca", "b", "c"}
    for values in strips.seen.values():
        assert values.shape == (2, 3, 2) and (values >= 0).all() and (values.sum(axis=2) <= 1 + 1e-6).all()


def test_files_are_strips_of_padded_frames(strips, tmp_path):
    about = slider.write(tmp_path / "slider", strips, {"source": "runs/x"}, LAMS)
    content = json.loads(about.read_text())
    picture = np.asarray(Image.open(tmp_path / "slider" / content["rows"]["mixup"][0]).convert("RGB"))
    assert picture.shape == (3 * (32 + 2 * slider.PAD), 32, 3)
    luma = np.array([0.299, 0.587, 0.114])
    middle = picture[36 + slider.PAD : 72 - slider.PAD] @ luma
    likeness = [
        np.corrcoef(middle.ravel(), (frame @ luma).ravel())[0, 1] for frame in strips.rows["mixup"][0]
    ]
    # WebP keeps light, not colour, of noise
    assert likeness[1] > 0.6 and likeness[1] > likeness[0] and likeness[1] > likeness[2], likeness
    problems: list[str] = []
    (view,) = slider_views(collect([tmp_path]), Embedder(problems), [])
    assert view.source == "runs/x" and len(view.rows) == 8 and problems == []
    (tmp_path / "slider" / "fmix_1.webp").write_bytes(b"RIFF")
    found = collect([tmp_path])
    assert slider_views(found, Embedder(problems), []) == [] and str(about) in found.problems[-1]


def test_a_run_without_checkpoint_gets_no_slider_and_a_sentence(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    found = collect([tmp_path])
    assert slider_views(found, Embedder(found.problems), [tmp_path]) == []
    assert "has no λ slider" in found.problems[-1]


def test_other_methods_have_no_slider():
    with pytest.raises(UserError, match="no Mix Block"):
        slider.render(build_method("mixup", create_encoder("resnet10_32", 3)), INFO, Samples())


def test_settings_and_what_differs():
    a = "seed: 0\nmethod:\n  name: mixup\n  blocks:\n  - 2\n  - 4\noutput: x\n"
    assert settings(a) == {"seed": "0", "method.name": "mixup", "method.blocks": "2, 4", "output": "x"}
    assert differences([a, a, a.replace("seed: 0", "seed: 1").replace("output: x", "output: y")]) == [
        {},
        {},
        {"seed": "1"},
    ]
    assert differences(["", a])[0] == {} and settings(":::\n- x\n\t\x00") == {}


def test_curves_within_a_budget():
    lines = [
        Line(f"g/r{k}", "mixup", {"top1": ([float(e) for e in range(500)], [e / 7 for e in range(500)])})
        for k in range(50)
    ]
    problems: list[str] = []
    whole = curve_data(lines, problems)
    assert (
        len(whole["runs"]) == 50
        and len(whole["runs"][0]["curves"]["top1"][0]) == 160
        and problems == []
        and len(whole["chosen"]) == 6
    )
    small = curve_data(lines, problems, budget=3000)
    assert (
        0 < len(small["runs"]) < 50
        and len(json.dumps(small)) < 6000
        and f"{50 - len(small['runs'])} runs are left out" in problems[0]
    )
    x, y = thinned(list(range(1000)), [float(v) for v in range(1000)], 10)
    assert x[0] == 0 and x[-1] == 999 and len(x) == 10 and y == x


def test_ticks_and_plots():
    many = {f"line {k}": ([1, 2, 3], [10, 5, 20]) for k in range(8)}
    svg = line_plot({"a<b": ([1, 2, 3], [10, 5, 20]), **many, "$one": ([2], [7])}, "a<b & c", "$x<", "y")
    assert svg.count('aria-label="a&lt;b &amp; c"') == 1 and "$x&lt;" in svg and "$one" in svg
    assert svg.count('class="line"') == 10 and svg.count('<li class="s1 dashed">') == 1
    assert "nan" not in svg and "#" not in str(svg).replace('href="#', "") and "<style" not in svg
    for lines in ({}, {"flat": ([1], [1])}):
        assert line_plot(lines, "few", "x", "y").startswith('<svg class="plot"')
