"""Class maps: each method against its formula written out image by image, the search for the layer, output
strides, refusals."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from automix_transfer.errors import UserError
from automix_transfer.localization.maps.cam import ClassActivation
from automix_transfer.models.encoders import create_encoder


def encoder(name="resnet10_32", classes=5):
    torch.manual_seed(0)
    return create_encoder(name, classes).eval()


def vit(**options):
    torch.manual_seed(0)
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 5, "num_heads": 2, "num_classes": 5}
    return timm.models.VisionTransformer(**small, **options).eval()


def features_and_gradient(net, layer, image, label):
    """The layer's output for one image and the gradient of one class's score to it, by a plain backward pass
    through everything."""
    kept = []
    handle = net.get_submodule(layer).register_forward_hook(
        lambda _m, _i, output: (output.retain_grad(), kept.append(output)) and None
    )
    net(image[None])[0, label].backward()
    handle.remove()
    return kept[0][0].detach(), kept[0].grad[0]


def gradcam(a, g):
    total = torch.zeros(a.shape[1:])
    for k in range(len(a)):
        total += g[k].mean() * a[k]
    return total.clamp(min=0)


def gradcam_plus_plus(a, g):
    total = torch.zeros(a.shape[1:])
    for k in range(len(a)):
        weight = 0.0
        for y in range(a.shape[1]):
            for x in range(a.shape[2]):
                d = float(g[k, y, x])
                below = 2 * d**2 + float(a[k].sum()) * d**3
                weight += (d**2 / below if below else 0.0) * max(d, 0.0)
        total += weight * a[k]
    return total.clamp(min=0)


def layercam(a, g):
    total = torch.zeros(a.shape[1:])
    for k in range(len(a)):
        total += g[k].clamp(min=0) * a[k]
    return total.clamp(min=0)


ORACLES = {"gradcam": gradcam, "gradcam++": gradcam_plus_plus, "layercam": layercam}


def test_a_cam_is_the_mean_over_channels_of_weight_times_feature():
    net, images, labels = encoder(), torch.randn(3, 3, 64, 64), torch.tensor([0, 4, 2])
    cam, logits = ClassActivation(net, 64)(images, labels)
    with torch.no_grad():
        features = net.forward_features(images)
        expected = (net.fc.weight[labels][:, :, None, None] * features).mean(1)
        torch.testing.assert_close(logits, net(images))
    torch.testing.assert_close(cam, expected)
    # the spatial mean of the evidence is the logit without its bias
    torch.testing.assert_close(
        cam.mean((1, 2)) * net.fc.in_features + net.fc.bias[labels], logits[torch.arange(3), labels]
    )


@pytest.mark.parametrize(
    "name, layer", [("resnet10_32", "layer4"), ("resnet10_32", "layer3"), ("tf_efficientnet_lite0", "bn2")]
)
@pytest.mark.parametrize("method", ORACLES)
def test_methods_with_gradients_equal_their_formulas(method, name, layer):
    net, images, labels = encoder(name), torch.randn(3, 3, 64, 64), torch.tensor([0, 4, 2])
    activation = ClassActivation(net, 64, method=method, layer=layer)
    maps, logits = activation(images, labels)
    assert (
        activation.layer == layer
        and not maps.requires_grad
        and not logits.requires_grad
        and torch.is_grad_enabled()
    )
    torch.testing.assert_close(logits, net(images).detach())
    for image, label, found in zip(images, labels, maps, strict=True):
        expected = ORACLES[method](*features_and_gradient(net, layer, image, label))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6 * float(expected.max()) + 1e-12)
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_with_a_linear_head_gradcam_is_the_rectified_cam():
    net, images, labels = encoder(), torch.randn(3, 3, 64, 64), torch.tensor([0, 4, 2])
    cam, grad = (ClassActivation(net, 64, method=method)(images, labels)[0] for method in ("cam", "gradcam"))
    torch.testing.assert_close(grad * cam.shape[1] * cam.shape[2], cam.relu() * net.fc.in_features)
    assert cam.relu().any()


@pytest.mark.slow
def test_scorecam_equals_its_formula():
    """One channel, one masked image, one forward pass at a time; scores are differences from a black image,
    which must not matter."""
    net, images, labels = encoder(), torch.randn(2, 3, 32, 32), torch.tensor([3, 1])
    maps, _ = ClassActivation(net, 32, 8, method="scorecam")(images, labels)
    net = ClassActivation(net, 32, 8).encoder
    with torch.no_grad():
        for image, label, found in zip(images, labels, maps, strict=True):
            features = net.forward_features(image[None])[0]
            baseline = net(torch.zeros(1, 3, 32, 32))[0, label]
            scores = []
            for channel in features:
                mask = F.interpolate(channel[None, None], (32, 32), mode="bilinear")[0, 0]
                flat = bool(channel.max() == channel.min())
                masked = image * (
                    torch.zeros_like(mask) if flat else (mask - mask.min()) / (mask.max() - mask.min())
                )
                scores.append(float("-inf") if flat else float(net(masked[None])[0, label] - baseline))
            weights = torch.tensor(scores).softmax(0)
            expected = sum(weight * channel for weight, channel in zip(weights, features, strict=True)).clamp(
                min=0
            )
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", ["cam", "gradcam", "layercam"])
def test_without_labels_the_predicted_class_is_taken(method):
    net, images = encoder(), torch.randn(4, 3, 64, 64)
    activation = ClassActivation(net, 64, method=method)
    maps, logits = activation(images, None)
    torch.testing.assert_close(maps, activation(images, logits.argmax(1))[0])


def test_patch_tokens_of_a_vision_transformer():
    """CAM where the classifier reads their mean; otherwise what enters the last block, the last place whose
    patches count."""
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([1, 4])
    net = vit(global_pool="avg", fc_norm=False)
    activation = ClassActivation(net, 32)
    maps, _ = activation(images, labels)
    tokens = net.forward_features(images)[:, 1:].detach()
    expected = torch.stack(
        [(tokens[i] * net.head.weight[label].detach()).mean(-1).view(4, 4) for i, label in enumerate(labels)]
    )
    torch.testing.assert_close(maps, expected)
    assert activation.stride == 8

    net = vit(class_token=True, global_pool="token")
    activation = ClassActivation(net, 32, method="gradcam")
    assert activation.layer == "blocks.4.norm1" and activation.map_shape == (4, 4)
    maps, _ = activation(images, labels)
    for image, label, found in zip(images, labels, maps, strict=True):
        a, g = (
            x[1:].T.unflatten(1, (4, 4)) for x in features_and_gradient(net, "blocks.4.norm1", image, label)
        )
        torch.testing.assert_close(found, gradcam(a, g), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    "name, layer", [("swin_tiny_patch4_window7_224", "layers.3"), ("convnext_atto", "stages.3")]
)
def test_maps_of_any_stage(name, layer):
    activation = ClassActivation(encoder(name), 224, method="layercam", layer=layer)
    maps, _ = activation(torch.randn(1, 3, 224, 224), torch.tensor([1]))
    assert maps.shape == (1, 7, 7) and maps.count_nonzero()


def test_maps_of_hiera_are_in_the_order_of_the_image():
    """Its tokens lie window by window until the last pooling."""
    torch.manual_seed(0)
    net = create_encoder("hiera_tiny_224", 5, image_size=64).eval()
    nn.init.normal_(net.head.fc.weight)  # 0 at the start
    image = torch.randn(3, 64, 64)
    maps, _ = ClassActivation(net, 64, method="gradcam", layer="blocks.2")(image[None], torch.tensor([1]))
    a, g = (
        net.reroll(x[None], 2)[0].permute(2, 0, 1) for x in features_and_gradient(net, "blocks.2", image, 1)
    )
    torch.testing.assert_close(maps[0], gradcam(a, g), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    "name, layer", [("resnet18", "layer4"), ("tf_efficientnet_lite0", "bn2"), ("regnety_002", "final_conv")]
)
def test_the_layer_is_found(name, layer):
    for method in ("cam", "gradcam"):
        activation = ClassActivation(encoder(name), 64, method=method)
        assert (activation.layer, activation.stride, activation.map_shape) == (layer, 32, (2, 2))


@pytest.mark.parametrize("name", ["resnet10_32", "resnet18d", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_output_stride(name, stride):
    net = encoder(name)
    before = [getattr(module, "stride", None) for module in net.modules()]
    activation = ClassActivation(net, 96, stride)
    cam, logits = activation(torch.randn(2, 3, 96, 96), torch.tensor([1, 2]))
    assert (
        cam.shape == (2, 96 // stride, 96 // stride)
        and logits.shape == (2, 5)
        and activation.stride == stride
    )
    # the caller's encoder is left alone
    assert [getattr(module, "stride", None) for module in net.modules()] == before
    assert all(
        module.dilation == (1, 1) for module in activation.encoder.modules() if isinstance(module, nn.Conv2d)
    )


def test_a_stride_that_cannot_be_reached_is_refused():
    with pytest.raises(UserError, match="output stride 4 is unknown"):
        ClassActivation(encoder(), 64, 4)
    with pytest.raises(UserError, match="has a stride that cannot be removed"):
        pools = [layer for _ in range(5) for layer in (nn.LazyConv2d(4, 3, padding=1), nn.MaxPool2d(2))]
        ClassActivation(nn.Sequential(*pools, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(5)), 64, 8)


def test_encoders_without_a_cam_are_refused_with_the_reason_and_the_alternatives():
    for net, size, word in (
        (vit(), 32, "class token"),
        (encoder("convnext_atto"), 64, "between pooling and classifier"),
        (
            nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            64,
            "no linear classifier",
        ),
    ):
        with pytest.raises(UserError, match=word) as error:
            ClassActivation(net, size)
        assert "--method gradcam, gradcam++, layercam or scorecam" in str(error.value)
    with pytest.raises(UserError, match="single cell"):
        ClassActivation(encoder(), 32)


@pytest.mark.parametrize(
    "options, word",
    [
        ({"method": "eigencam"}, "'eigencam' is unknown"),
        ({"layer": "layer3"}, "no choice of layer"),
        ({"method": "gradcam", "layer": "layer9"}, "does not exist"),
        ({"method": "gradcam", "layer": "global_pool"}, "not a feature map"),
        ({"method": "gradcam", "layer": "fc"}, "not a feature map"),
    ],
)
def test_methods_and_layers_that_cannot_be(options, word):
    with pytest.raises(UserError, match=word):
        ClassActivation(encoder(), 64, **options)
