"""Everything that Detectron2 loads in part, or in a wrong way, without an error: here each is one."""

import pickle

import numpy as np
import pytest
import torch

from automix_transfer.errors import UserError
from tests.detection.tiny import CONFIGS, detector, write_backbone


@pytest.fixture(scope="module")
def r50_c4():
    return detector("voc_R50_C4_24k.yaml")[0]


@pytest.fixture(scope="module")
def r50_arrays(r50_c4):
    from automix_transfer.detection.weights.weights_check import backbone_keys

    state = r50_c4.state_dict()
    return {name: state[key].numpy().copy() for name, key in backbone_keys(r50_c4).items()}


def test_c4_takes_every_key_of_backbone_and_res5(r50_c4, r50_arrays, tmp_path):
    from automix_transfer.detection.weights.weights_check import load_weights

    changed = {name: value + 1 for name, value in r50_arrays.items()}
    changed["stem.fc.weight"] = np.zeros((10, 2048), np.float32)  # some converters leave it
    report = load_weights(r50_c4, str(write_backbone(tmp_path / "x.pkl", changed)))
    assert report.matched == report.total == 265 and "classifier" in str(report)
    state = r50_c4.state_dict()
    assert torch.equal(
        state["roi_heads.res5.2.conv3.weight"], torch.from_numpy(changed["res5.2.conv3.weight"])
    )
    assert torch.equal(
        state["backbone.stem.conv1.norm.running_var"],
        torch.from_numpy(changed["stem.conv1.norm.running_var"]),
    )


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "encoder."])
def test_left_prefix(r50_c4, r50_arrays, tmp_path, prefix):
    from automix_transfer.detection.weights.weights_check import load_weights

    before = {key: value.clone() for key, value in r50_c4.state_dict().items()}
    file = write_backbone(tmp_path / "x.pkl", {prefix + name: value for name, value in r50_arrays.items()})
    with pytest.raises(UserError, match=rf"0 of 265 keys match.*start with '{prefix}'"):
        load_weights(r50_c4, str(file))
    assert all(torch.equal(before[key], value) for key, value in r50_c4.state_dict().items()), (
        "nothing may be loaded in part"
    )


def test_torchvision_names(r50_c4, tmp_path):
    from automix_transfer.detection.weights.weights_check import load_weights

    arrays = {
        "conv1.weight": np.zeros((64, 3, 7, 7), np.float32),
        "layer1.0.conv1.weight": np.zeros((64, 64, 1, 1), np.float32),
    }
    file = write_backbone(tmp_path / "x.pkl", arrays)
    with pytest.raises(UserError, match="torchvision"):
        load_weights(r50_c4, str(file))


def test_resnext_weights_in_a_resnet_config(r50_c4, tmp_path):
    from automix_transfer.detection.weights.weights_check import backbone_keys, load_weights

    model, _ = detector(
        "voc_R50_C4_24k.yaml", "MODEL.RESNETS.NUM_GROUPS", "32", "MODEL.RESNETS.WIDTH_PER_GROUP", "4"
    )
    state = model.state_dict()
    file = write_backbone(
        tmp_path / "x.pkl", {name: state[key].numpy() for name, key in backbone_keys(model).items()}
    )
    with pytest.raises(UserError, match="another shape.*NUM_GROUPS"):
        load_weights(r50_c4, str(file))


def test_missing_key_and_unused_key(r50_c4, r50_arrays, tmp_path):
    from automix_transfer.detection.weights.weights_check import load_weights

    arrays = dict(r50_arrays)
    arrays["res6.0.conv1.weight"] = arrays.pop("res4.5.conv3.weight")
    with pytest.raises(UserError, match=r"264 of 265 keys match.*res4\.5\.conv3\.weight.*res6"):
        load_weights(r50_c4, str(write_backbone(tmp_path / "x.pkl", arrays)))


@pytest.mark.parametrize("depth", ["18", "34"])
def test_basic_blocks_in_a_bottleneck_c4(depth):
    from automix_transfer.detection.config import load_config

    with pytest.raises(UserError, match="bottlenecks"):
        load_config(
            CONFIGS / "voc_R50_C4_24k.yaml", ["MODEL.WEIGHTS", "", "MODEL.RESNETS.DEPTH", depth], num_gpus=0
        )


@pytest.mark.parametrize(
    ("key", "value", "both"),
    [
        ("MODEL.RESNETS.STRIDE_IN_1X1", "True", ("True", "False")),
        ("INPUT.FORMAT", "BGR", ("BGR", "RGB")),
        ("MODEL.PIXEL_STD", "[1.0, 1.0, 1.0]", ("1.0", "60.0")),
        ("MODEL.PIXEL_MEAN", "[103.53, 116.28, 123.675]", ("103.53", "120.0")),
        ("MODEL.RESNETS.NUM_GROUPS", "32", ("32", "1")),
        ("MODEL.RESNETS.DEPTH", "18", ("18", "10")),
    ],
)
def test_config_that_contradicts_the_overlay(r10, key, value, both):
    from automix_transfer.detection.config import load_config

    with pytest.raises(UserError) as error:
        load_config(CONFIGS / "embedded_R10_FPN.yaml", ["MODEL.WEIGHTS", str(r10), key, value], 0)
    assert key in str(error.value) and all(shown in str(error.value) for shown in both)


def test_overlay_is_applied_by_itself(r10):
    from automix_transfer.detection.config import load_config

    cfg, _ = load_config(CONFIGS / "embedded_R10_FPN.yaml", ["MODEL.WEIGHTS", str(r10)], 0)
    assert list(cfg.MODEL.PIXEL_MEAN) == [120.0, 115.0, 100.0]
    same, _ = load_config(
        CONFIGS / "embedded_R10_FPN.yaml", ["MODEL.WEIGHTS", str(r10), "MODEL.PIXEL_STD", "[60, 60.0, 60]"], 0
    )
    assert list(same.MODEL.PIXEL_STD) == [60.0, 60.0, 60.0]


def _caffe2(arrays):
    """The names that Caffe2 gives to the arrays of a ResNet."""
    found = {
        "pred_w": np.zeros((1000, 2048), np.float32),
        "pred_b": np.zeros(1000, np.float32),
        "conv1_w_momentum": np.zeros(1),
    }
    blocks = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "branch1"}
    norms = {"weight": "gamma", "bias": "beta", "running_mean": "rm", "running_var": "riv"}
    for name, value in arrays.items():
        parts = name.split(".")
        layer = "_".join([*parts[:2], blocks[parts[2]]]) if parts[0] != "stem" else "conv1"
        if "norm" not in parts:
            found[f"{layer}_w"] = value
        else:
            found[("res_conv1" if parts[0] == "stem" else layer) + f"_bn_{norms[parts[-1]]}"] = value
    return found


@pytest.mark.slow
@pytest.mark.parametrize("wrapped", ["model", "blobs", "bare"])
def test_caffe2_weights_bring_their_own_input(r50_arrays, tmp_path, wrapped):
    """MSRA's ResNets: BGR, no deviation, the stride in the 1x1 convolution; every key by a table."""
    from detectron2.modeling import build_model

    from automix_transfer.detection.config import load_config
    from automix_transfer.detection.weights.weights_check import load_weights

    arrays, file = _caffe2(r50_arrays), tmp_path / "R-50.pkl"
    content = {
        "model": {"model": arrays, "__author__": "Caffe2"},
        "blobs": {"blobs": arrays},
        "bare": arrays,
    }[wrapped]
    file.write_bytes(pickle.dumps(content, protocol=2))
    cfg, _ = load_config(CONFIGS / "voc_R50_C4_24k.yaml", ["MODEL.WEIGHTS", str(file)], num_gpus=0)
    assert (cfg.INPUT.FORMAT, list(cfg.MODEL.PIXEL_STD), cfg.MODEL.RESNETS.STRIDE_IN_1X1) == (
        "BGR",
        [1.0, 1.0, 1.0],
        True,
    )
    assert list(cfg.MODEL.PIXEL_MEAN) == [103.53, 116.28, 123.675]
    if wrapped == "model":
        model = build_model(cfg)
        assert load_weights(model, str(file)).matched == 265
        assert torch.equal(
            model.state_dict()["backbone.res3.0.shortcut.norm.running_var"],
            torch.from_numpy(r50_arrays["res3.0.shortcut.norm.running_var"]),
        )
        with pytest.raises(
            UserError, match="INPUT.FORMAT is 'RGB', but the weights .*R-50.pkl were trained with 'BGR'"
        ):
            load_config(
                CONFIGS / "voc_R50_C4_24k.yaml",
                ["MODEL.WEIGHTS", str(file), "INPUT.FORMAT", "RGB"],
                num_gpus=0,
            )
        # Detectron 1 folds the statistics in
        fused = {name: value for name, value in arrays.items() if not name.endswith(("_rm", "_riv"))}
        file.write_bytes(pickle.dumps({"model": fused, "__author__": "Caffe2"}))
        with pytest.raises(UserError, match="159 of 265 keys match.*running_mean"):
            load_weights(model, str(file))


@pytest.mark.parametrize(
    "text, key",
    [
        ("MODEL: {LOAD_PROPOSALS: true}", "MODEL.LOAD_PROPOSALS"),
        ("DATASETS: {PROPOSAL_FILES_TRAIN: [x.pkl]}", "DATASETS.PROPOSAL_FILES_TRAIN"),
        ("OUTPUT_DIR: /tmp", "OUTPUT_DIR"),
        ("SOLVER: {BASE_LR: 9.0}", "SOLVER.BASE_LR"),
        ("_BASE_: https://example.org/x.yaml", "_BASE_"),
        ("MODEL: {RESNETS: {DEPTH: 1000000000}}", "MODEL.RESNETS.DEPTH"),
        ("MODEL: {RESNETS: {DEPTH: true}}", "MODEL.RESNETS.DEPTH"),
        ("MODEL: {PIXEL_STD: [1, 0, 1]}", "MODEL.PIXEL_STD"),
        ("MODEL: {PIXEL_MEAN: [1, .nan, 1]}", "MODEL.PIXEL_MEAN"),
        ("MODEL: {PIXEL_MEAN: [1]}", "MODEL.PIXEL_MEAN"),
        ("INPUT: {FORMAT: L}", "INPUT.FORMAT"),
        ("MODEL: !!python/object/apply:os.system ['echo hostile']", "line 1"),
    ],
)
def test_an_overlay_holds_what_an_export_writes_and_nothing_else(tmp_path, text, key):
    from automix_transfer.detection.config import load_config

    (tmp_path / "x.pkl").write_bytes(b"")
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"x\.yaml.*{key}"):
        load_config(CONFIGS / "embedded_R10_FPN.yaml", ["MODEL.WEIGHTS", str(tmp_path / "x.pkl")], 0)


def test_export_without_its_overlay(r10, tmp_path):
    from automix_transfer.detection.weights.weights_check import read_backbone

    (tmp_path / "alone.pkl").write_bytes(r10.read_bytes())
    with pytest.raises(UserError, match="alone.yaml"):
        read_backbone(tmp_path / "alone.pkl")


class _Hostile:
    def __reduce__(self):
        return (print, ("hostile code ran",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(_Hostile()), "run code"),
        (pickle.dumps({"model": {"a": _Hostile()}}), "run code"),
        (b"", "damaged"),
        (pickle.dumps({"model": {"x": np.zeros(3)}, "__author__": "a"})[:-10], "damaged"),
        (pickle.dumps([1, 2]), "format"),
        (pickle.dumps({"model": {}}), "format"),
        (pickle.dumps({"model": {"x": np.full(3, np.nan)}, "__author__": "a"}), "NaN"),
    ],
)
def test_bad_pickles(tmp_path, content, message, capsys):
    from automix_transfer.detection.weights.weights_check import read_backbone

    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_backbone(tmp_path / "x.pkl")
    assert "hostile" not in capsys.readouterr().out


@pytest.mark.slow
def test_any_damage_to_a_pickle_is_one_error(tmp_path):
    """Flipped bytes, in the types of arrays too, where NumPy's own reader can end the interpreter."""
    from automix_transfer.detection.weights.weights_check import read_backbone

    arrays = {
        "stem.conv1.weight": np.arange(6, dtype=">f4").reshape(2, 3),
        "b": np.asfortranarray(np.ones((2, 2))),
        "c": np.zeros((0, 2)),
    }
    rng, refused = np.random.default_rng(0), 0
    for protocol in (2, 4, 5):
        content = pickle.dumps({"model": arrays, "__author__": "x"}, protocol=protocol)
        (tmp_path / "x.pkl").write_bytes(content)
        read = read_backbone(tmp_path / "x.pkl")
        assert all(np.array_equal(read[name].numpy(), value) for name, value in arrays.items())
        for _ in range(150):
            damaged = bytearray(content)
            damaged[rng.integers(len(damaged))] = rng.integers(256)
            (tmp_path / "x.pkl").write_bytes(damaged)
            try:
                read_backbone(tmp_path / "x.pkl")
            except UserError:
                refused += 1
    assert refused > 100


def test_files_of_other_kinds(r50_c4, tmp_path):
    from automix_transfer.detection.weights.weights_check import load_weights

    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "classifier.pth")
    torch.save(
        {"format": "automix_transfer/1", "encoders": {"k": "encoder_k."}, "model": {}}, tmp_path / "last.pt"
    )
    torch.save({"model": {"backbone.stem.conv1.weight": torch.zeros(64, 3, 7, 7)}}, tmp_path / "part.pth")
    for name, message in (
        ("classifier.pth", "does not hold a detector"),
        ("last.pt", "export it first"),
        ("part.pth", "missing"),
        ("none.pkl", "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            load_weights(r50_c4, str(tmp_path / name))


def test_detector_weights_are_whole(r50_c4, tmp_path):
    from automix_transfer.detection.weights.weights_check import load_weights

    torch.save({"model": r50_c4.state_dict(), "iteration": 7}, tmp_path / "model_final.pth")
    assert load_weights(r50_c4, str(tmp_path / "model_final.pth")).part == "detector"


def test_narrow_backbone_is_timms(tmp_path):
    """The Detectron2 backbone of depth 10 computes what the encoder that it was exported from computes."""
    from automix_transfer.detection.weights.exporter import detectron2_state
    from automix_transfer.detection.weights.weights_check import backbone_keys
    from automix_transfer.models import create_encoder

    torch.manual_seed(0)
    encoder = create_encoder("resnet10_32", 5).eval()
    model, _ = detector("embedded_R10_FPN.yaml")
    source, state = detectron2_state(encoder.state_dict()), model.state_dict()
    keys = backbone_keys(model)
    assert set(keys) == set(source)
    for name, key in keys.items():
        state[key].copy_(source[name])
    images = torch.randn(2, 3, 65, 97)
    found = model.backbone.bottom_up.eval()(images)["res5"]
    torch.testing.assert_close(found, encoder.forward_features(images), rtol=1e-5, atol=1e-5)
