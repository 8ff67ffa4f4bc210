"""A detector's settings and data are checked, and a step of it is timed, before anything runs."""

from __future__ import annotations

import pytest

from automix_transfer.commands import transfer
from automix_transfer.detection.rehearsal import rehearse
from automix_transfer.errors import UserError
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.recipes.find import find_recipe
from automix_transfer.transfer import backbones, transfer_settings
from automix_transfer.transfer.transfer_run import prepare

RECIPE = str(find_recipe("embedded_R10_FPN", "detection"))
NETWORK = EncoderInfo("resnet10_32", 3)


def seconds(voc, *overrides: str, weights: str = "") -> float:
    return rehearse(RECIPE, (*overrides, "MODEL.WEIGHTS", weights), voc, 0, NETWORK)


def test_the_seconds_grow_with_the_iterations(voc) -> None:
    # the same sizes, and enough images that the timing's noise is small beside a factor of twenty
    few, many = (seconds(voc, "SOLVER.MAX_ITER", str(n)) for n in (100, 2000))
    assert 0 < 3 * few < many


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (("SOLVER.MAX_ITERS", "5"), "SOLVER.MAX_ITERS"),
        (("MODEL.ROI_HEADS.NUM_CLASSES", "77"), "NUM_CLASSES"),
        (("MODEL.FPN.IN_FEATURES", "['res9']"), "IN_FEATURES"),
        (("MODEL.RESNETS.NORM", "FrozenBN"), "FrozenBN"),
    ],
)
def test_what_the_job_would_refuse_is_refused_now(voc, overrides, named) -> None:
    with pytest.raises(UserError, match=named):
        seconds(voc, *overrides)


def test_weights_that_are_exported_later_may_be_frozen(voc) -> None:
    assert seconds(voc, "MODEL.RESNETS.NORM", "FrozenBN", weights="ours.pkl") > 0


def test_a_plan_of_detectors_says_their_hours_and_refuses_their_wrong_keys(voc, tmp_path) -> None:
    def planned(*overrides: str) -> str:
        data = transfer_settings.parse_data([f"tiny={voc}"])
        chosen = transfer_settings.Settings(
            tmp_path / "out",
            ("detection",),
            data,
            (1,),
            "embedded_R10_FPN",
            overrides={"detection": overrides},
            rehearse=rehearse,
        )
        names = ["vanilla=random", "ours=random"]
        return prepare(chosen, backbones.parse_backbones(names, ["resnet10_32"])).text()

    said = planned("SOLVER.MAX_ITER", "100000")
    assert "core-hours are left" in said and "not known" not in said
    assert not list(tmp_path.iterdir())  # and nothing is written
    assert "core-hours" not in planned("SOLVER.BASE_RL", "1")
    words = ["--backbones", "random", "--encoder", "resnet10_32", "--tasks", "detection", "--data", str(voc)]
    with pytest.raises(UserError, match="BASE_RL"):
        transfer.main([*words, "--output", str(tmp_path / "out"), "--plan", "detection.SOLVER.BASE_RL=1"])
