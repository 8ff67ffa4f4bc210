"""What an output holds already, and whether it may stay, or be written over."""

from __future__ import annotations

from pathlib import Path

import pytest

from automix_transfer.errors import UserError
from automix_transfer.evaluation.kept import SAME, kept_parts, refuse_others_confusion
from automix_transfer.io import write_json

SOURCE = {**dict.fromkeys(SAME, "a"), "suite": ["clean"]}


def test_figures_of_other_images_are_not_kept_beside_new_ones(tmp_path: Path) -> None:
    """Also where the folder is the same, and its images or labels were corrected."""
    output = tmp_path / "out.json"
    write_json(output, {"top1": 71.0, "about": SOURCE})
    assert kept_parts(output, ["fgsm"], SOURCE)["top1"] == 71.0
    with pytest.raises(UserError, match="images_sha256"):
        kept_parts(output, ["fgsm"], {**SOURCE, "images_sha256": "b"})
    assert kept_parts(output, ["clean"], {**SOURCE, "images_sha256": "b"}) == {}
    older = {key: value for key, value in SOURCE.items() if key != "images_sha256"}
    write_json(output, {"top1": 71.0, "about": older})
    assert kept_parts(output, ["fgsm"], SOURCE)["top1"] == 71.0


def test_the_confusion_of_another_output_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    a, b, source = tmp_path / "a.json", tmp_path / "b.json", {"weights_sha256": "b"}
    refuse_others_confusion(b, source)
    for output, digest in ((tmp_path / "confusion.json", "a"), (a, "a"), (b, "b")):
        write_json(output, {"about": {"weights_sha256": digest}})
    refuse_others_confusion(a, {"weights_sha256": "trained further"})  # its own, which is replaced
    refuse_others_confusion(b, {"weights_sha256": "a"})
    with pytest.raises(UserError, match=r"confusion\.json"):
        refuse_others_confusion(b, source)
    refuse_others_confusion(tmp_path / "evaluation.json", source)  # a run's own, whatever it was trained to
    write_json(tmp_path / "confusion.json", {"mine": 1})
    with pytest.raises(UserError, match=r"confusion\.json"):
        refuse_others_confusion(a, source)
