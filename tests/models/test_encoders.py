"""Encoders by name, and where layers 1 to 4 are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from automix_transfer.errors import UserError
from automix_transfer.models import EncoderInfo, create_encoder, feature_layer, features
from automix_transfer.models.encoders import check_size, plain_info
from automix_transfer.models.weights import load_file
from tests.models.files import assert_same, random_encoder, write_checkpoint


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("resnet10_32", ["layer1", "layer2", "layer3", "layer4"]),
        ("resnet18", ["layer1", "layer2", "layer3", "layer4"]),
        ("torchvision/resnet18", ["layer1", "layer2", "layer3", "layer4"]),
        ("tf_efficientnet_lite0", ["blocks.1", "blocks.2", "blocks.4", "blocks.6"]),
        # FACTS: DeiT-S taps after block 6 of 12
        ("deit_small_patch16_224", ["blocks.2", "blocks.5", "blocks.8", "blocks.11"]),
        ("swin_tiny_patch4_window7_224", ["layers.0", "layers.1", "layers.2", "layers.3"]),
    ],
)
def test_layers_one_to_four(name: str, layers: list[str]) -> None:
    with torch.device("meta"):
        encoder = create_encoder(name, 10)
    assert [feature_layer(encoder, number) for number in (1, 2, 3, 4)] == layers
    assert feature_layer(encoder, "3") == layers[2]
    assert feature_layer(encoder, "auto") == layers[1 if name.startswith("deit") else 2]
    for wrong in (0, 5):
        with pytest.raises(UserError, match=f"layer {wrong} "):
            feature_layer(encoder, wrong)


def test_features_stop_at_the_layer_and_need_no_square_input() -> None:
    encoder = create_encoder("cifar_resnet8", 10).eval()
    images = torch.randn(2, 3, 33, 20)
    found = features(encoder, images, "layer2")
    assert found.shape == (2, 32, 17, 10)
    with pytest.raises(UserError, match="did you mean|for example"):
        features(encoder, images, "layer9")


def test_cifar_resnets() -> None:
    encoder = create_encoder("cifar_resnet20", 10)
    assert sum(p.numel() for p in encoder.parameters()) == 269_722  # 0.27 M in Table 6 of He et al. (2016)
    assert create_encoder("cifar_resnet8", 0)(torch.zeros(2, 3, 32, 32)).shape == (2, 64)
    for name in ("cifar_resnet18", "cifar_resnet", "cifar_resnet2", "cifar_resnetx"):
        with pytest.raises(UserError, match="depth 6n \\+ 2"):
            create_encoder(name, 10)


@pytest.mark.parametrize(("name", "millions"), [("wrn_28_10", 36.5), ("wrn_40_4", 8.9), ("wrn_16_8", 11.0)])
def test_wide_resnets(name: str, millions: float) -> None:
    with torch.device("meta"):
        encoder = create_encoder(name, 10)
    # Table 5 of Zagoruyko and Komodakis (2016)
    assert round(sum(p.numel() for p in encoder.parameters()) / 1e6, 1) == millions
    assert [feature_layer(encoder, number) for number in (1, 2, 3, 4)] == [
        "conv1",
        "block1",
        "block2",
        "block3",
    ]


def test_wide_resnets_of_no_depth_or_width() -> None:
    assert create_encoder("wrn_10_1", 0)(torch.zeros(2, 3, 32, 32)).shape == (2, 64)
    for name in ("wrn_28", "wrn_27_8", "wrn_4_8", "wrn_28_0", "wrn_x_y"):
        with pytest.raises(UserError, match="depth 6n \\+ 4"):
            create_encoder(name, 10)


def test_a_transformer_is_built_for_the_size_of_its_images() -> None:
    encoder = create_encoder("deit_tiny_patch16_224", 5, image_size=48).eval()
    assert encoder(torch.zeros(1, 3, 48, 48)).shape == (1, 5)
    with pytest.raises(UserError, match="data.image_size=50"):
        create_encoder("deit_tiny_patch16_224", 5, image_size=50)
    assert EncoderInfo("swin_tiny_patch4_window7_224", 5, image_size=56).build()(
        torch.zeros(1, 3, 56, 56)
    ).shape == (1, 5)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("test_resnet", 64),
        ("convnext_atto", 64),
        ("swin_tiny_patch4_window7_224", 56),
        ("vit_tiny_patch16_224", 64),
        ("deit_tiny_distilled_patch16_224", 64),
        ("hiera_tiny_224", 64),
        ("samvit_base_patch16", 64),
        ("volo_d1_224", 64),
        ("coatnet_nano_rw_224", 64),
    ],
)
def test_maps_are_those_that_timm_gives(name: str, size: int) -> None:
    """Every value at its place and in its channel, whether the network computes with channels first or last,
    tokens or windows."""
    torch.manual_seed(0)
    encoder = create_encoder(name, 3, image_size=size).eval()
    layers = [feature_layer(encoder, number) for number in (1, 2, 3, 4)]
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        expected = encoder.forward_intermediates(
            images,
            indices=[[stage["module"] for stage in encoder.feature_info].index(layer) for layer in layers],
            intermediates_only=True,
        )
        for layer, wanted in zip(layers, expected, strict=True):
            found = features(encoder, images, layer)
            assert found.shape == wanted.shape and torch.allclose(found, wanted, atol=1e-5), layer


def test_maps_of_other_layers_have_their_channels_first() -> None:
    """Inside a stage, and where timm says nothing, squares tell places from channels."""
    encoder = create_encoder("swin_tiny_patch4_window7_224", 5, image_size=56).eval()
    images = torch.zeros(1, 3, 56, 56)
    # channels first in a network that has them last
    assert features(encoder, images, "patch_embed.proj").shape == (1, 96, 14, 14)
    assert features(encoder, images, "layers.1.blocks.0").shape == (1, 192, 7, 7)
    assert features(create_encoder("torchvision/swin_t", 5).eval(), images, "features.3").shape == (
        1,
        192,
        7,
        7,
    )
    assert features(create_encoder("resnet10_32", 5).eval(), torch.zeros(1, 3, 128, 96), "layer1").shape == (
        1,
        32,
        32,
        24,
    )


def test_tokens_whose_places_are_not_known_are_refused() -> None:
    with pytest.raises(UserError, match="'blocks.1.norm1'.*Hiera"):
        features(
            create_encoder("hiera_tiny_224", 5, image_size=64).eval(),
            torch.zeros(1, 3, 64, 64),
            "blocks.1.norm1",
        )
    with pytest.raises(UserError, match="'blocks.0'.* 33 tokens"):
        encoder = create_encoder("vit_tiny_patch16_224", 5, image_size=64, dynamic_img_size=True).eval()
        features(encoder, torch.zeros(1, 3, 64, 128), "blocks.0")


def test_unknown_names_are_answered_with_close_ones() -> None:
    with pytest.raises(UserError, match="did you mean resnet50"):
        create_encoder("resnet_50", 10)
    with pytest.raises(UserError, match="torchvision/resnet50"):
        create_encoder("torchvision/resnet_50", 10)
    with pytest.raises(UserError, match="stem 'tiny' is unknown"):
        create_encoder("resnet18", 10, stem="tiny")
    with pytest.raises(UserError, match="has no CIFAR stem"):
        create_encoder("tf_efficientnet_lite0", 10, stem="cifar")


@pytest.mark.parametrize(
    ("name", "size", "own"),
    [
        ("levit_128s", 200, 224),
        ("maxvit_tiny_rw_224", 200, 224),
        ("vgg11", 16, 224),
        ("crossvit_tiny_240", 224, 240),
    ],
)
def test_sizes_that_a_network_does_not_take(name: str, size: int, own: int) -> None:
    encoder = create_encoder(name, 5, image_size=size).train()
    with pytest.raises(UserError, match=rf"'{name}' .*data.test_size={size} .*{own}$"):
        check_size(encoder, name, size, "data.test_size")
    assert all(module.training for module in encoder.modules())


def test_what_is_known_of_an_encoder_without_a_file() -> None:
    assert plain_info("tf_efficientnet_lite0", 1000).mean == (0.5, 0.5, 0.5)
    assert plain_info("cifar_resnet20", 10).image_size == 32
    assert plain_info("torchvision/resnet18", 10) == EncoderInfo("torchvision/resnet18", 10)


def test_info_survives_primitive_types() -> None:
    info = EncoderInfo("resnet18", 3, class_names=("a", "b", "c"))
    assert EncoderInfo.from_dict(info.to_dict()) == info


# He et al., Table 1, and Xie et al., Table 1, at 224 pixels
RESIDUAL = [(256, 4), (512, 8), (1024, 16), (2048, 32)]
BASIC = [(64, 4), (128, 8), (256, 16), (512, 32)]
HIERARCHICAL = [(96, 4), (192, 8), (384, 16), (768, 32)]  # Swin-T and ConvNeXt-T
#: (encoder, stem, side in pixels) of Tables 1 to 5, and channels and strides of layers 1 to 4
PAPER_ENCODERS = [
    (("resnet18", "imagenet", 224), BASIC),
    (("resnet34", "imagenet", 224), BASIC),
    (("resnet50", "imagenet", 224), RESIDUAL),
    (("resnet101", "imagenet", 224), RESIDUAL),
    (("resnext50_32x4d", "imagenet", 224), RESIDUAL),
    (("resnext101_32x4d", "imagenet", 224), RESIDUAL),
    (("mobilenetv2_100", "imagenet", 224), [(24, 4), (32, 8), (96, 16), (320, 32)]),
    (("efficientnet_b0", "imagenet", 224), [(24, 4), (40, 8), (112, 16), (320, 32)]),
    (("convnext_tiny", "imagenet", 224), HIERARCHICAL),
    (("deit_small_patch16_224", "imagenet", 224), [(384, 16)] * 4),
    (("swin_tiny_patch4_window7_224", "imagenet", 224), HIERARCHICAL),
    (("resnet18", "cifar", 32), [(c, s // 4) for c, s in BASIC]),
    (("resnext50_32x4d", "cifar", 32), [(c, s // 4) for c, s in RESIDUAL]),
    (("resnet18", "cifar", 64), [(c, s // 4) for c, s in BASIC]),
    (("resnext50_32x4d", "cifar", 64), [(c, s // 4) for c, s in RESIDUAL]),
    (("wrn_28_8", "cifar", 32), [(16, 1), (128, 1), (256, 2), (512, 4)]),
]


@pytest.mark.parametrize(
    ("encoder", "expected"), PAPER_ENCODERS, ids=["-".join(map(str, case[0])) for case in PAPER_ENCODERS]
)
def test_taps_of_the_papers_encoders(encoder: tuple[str, str, int], expected: list[tuple[int, int]]) -> None:
    name, stem, size = encoder
    with torch.device("cpu" if name.startswith("swin") else "meta"):
        network, images = create_encoder(name, 10, stem).eval(), torch.zeros(1, 3, size, size)
    with torch.no_grad():
        maps = [features(network, images, feature_layer(network, layer)) for layer in (1, 2, 3, 4)]
    assert [(m.shape[1], size // m.shape[2]) for m in maps] == expected
    assert feature_layer(network, "auto") == feature_layer(network, 2 if name.startswith("deit") else 3)


def test_a_network_whose_stages_are_not_known_wants_a_submodule() -> None:
    with pytest.raises(UserError, match="layer 3.*submodule"):
        feature_layer(create_encoder("torchvision/squeezenet1_1", 5), 3)


def test_weights_from_files(tmp_path: Path) -> None:
    """Torchvision's and timm's files, our checkpoints and exports: everything fits, or nothing is loaded."""
    source = random_encoder("resnet10_32", 4, "cifar")
    torch.save(source.state_dict(), tmp_path / "plain.pth")
    info = EncoderInfo("resnet10_32", 4, "cifar", 32)
    ours = write_checkpoint(
        tmp_path / "last.pt", {"k": source, "q": random_encoder("resnet10_32", 4, "cifar", seed=1)}, info
    )

    def loaded(path: Path, *encoder: Any, **options: Any) -> nn.Module:
        network = create_encoder(*encoder)
        load_file(network, path, encoder[0], *encoder[2:], **options)
        return network

    ours_encoder = ("resnet10_32", 4, "cifar")
    for path in (tmp_path / "plain.pth", ours):
        assert_same(loaded(path, *ours_encoder), source)
    assert not torch.equal(loaded(ours, *ours_encoder, which="q").fc.weight, source.fc.weight)
    other = loaded(ours, "resnet10_32", 9, "cifar", classifier="new")
    assert torch.equal(other.conv1.weight, source.conv1.weight) and other.fc.weight.shape == (9, 256)
    for encoder, path, message in (
        (("resnet10_32", 9, "cifar"), ours, "encoder.classifier=new"),
        (("resnet10_32", 4), ours, "stem=cifar"),
        (("resnet10_32", 4), tmp_path / "plain.pth", r"conv1.weight.*encoder.stem=cifar"),
        (("resnet18", 4, "cifar"), ours, "'resnet10_32'.*'resnet18'"),
        (("resnet18", 4, "cifar"), tmp_path / "plain.pth", "does not fit encoder"),
        (("resnet10_32", 4, "cifar"), tmp_path / "none.pth", "none.pth does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            loaded(path, *encoder)
