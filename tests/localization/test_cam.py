"""Class activation maps: their definition, the search for the layer, output strides, and encoders without them."""

import pytest
import torch
from torch import nn

from automix_transfer.errors import UserError
from automix_transfer.localization.cam import ClassActivation
from automix_transfer.models.encoders import create_encoder


def encoder(name="resnet10_32", classes=5):
    torch.manual_seed(0)
    return create_encoder(name, classes).eval()


def test_a_cam_is_the_mean_over_channels_of_weight_times_feature():
    net, images, labels = encoder(), torch.randn(3, 3, 64, 64), torch.tensor([0, 4, 2])
    cam, logits = ClassActivation(net, 64)(images, labels)
    with torch.no_grad():
        features = net.forward_features(images)
        expected = (net.fc.weight[labels][:, :, None, None] * features).mean(1)
        torch.testing.assert_close(logits, net(images))
    torch.testing.assert_close(cam, expected)
    # the spatial mean of the evidence is the logit without its bias
    torch.testing.assert_close(cam.mean((1, 2)) * net.fc.in_features + net.fc.bias[labels], logits[torch.arange(3), labels])


def test_without_labels_the_predicted_class_is_taken():
    net, images = encoder(), torch.randn(4, 3, 64, 64)
    activation = ClassActivation(net, 64)
    cam, logits = activation(images, None)
    torch.testing.assert_close(cam, activation(images, logits.argmax(1))[0])


@pytest.mark.parametrize("name, layer", [("resnet18", "layer4"), ("tf_efficientnet_lite0", "bn2"), ("regnety_002", "final_conv")])
def test_the_layer_is_found(name, layer):
    activation = ClassActivation(encoder(name), 64)
    assert (activation.layer, activation.stride, activation.map_shape) == (layer, 32, (2, 2))


@pytest.mark.parametrize("name", ["resnet10_32", "resnet18d", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_output_stride(name, stride):
    net = encoder(name)
    before = [getattr(module, "stride", None) for module in net.modules()]
    activation = ClassActivation(net, 96, stride)
    cam, logits = activation(torch.randn(2, 3, 96, 96), torch.tensor([1, 2]))
    assert cam.shape == (2, 96 // stride, 96 // stride) and logits.shape == (2, 5) and activation.stride == stride
    assert [getattr(module, "stride", None) for module in net.modules()] == before  # the caller's encoder is left alone
    assert all(module.dilation == (1, 1) for module in activation.encoder.modules() if isinstance(module, nn.Conv2d))


def test_a_stride_that_cannot_be_reached_is_refused():
    with pytest.raises(UserError, match="output stride 4 is unknown"):
        ClassActivation(encoder(), 64, 4)
    with pytest.raises(UserError, match="has a stride that cannot be removed"):
        ClassActivation(create_encoder("vgg11", 5), 64, 8)


def test_encoders_without_a_cam_are_refused_with_the_reason():
    with pytest.raises(UserError, match="class token"):
        ClassActivation(create_encoder("vit_tiny_patch16_224", 5), 224)
    with pytest.raises(UserError, match="no linear classifier"):
        ClassActivation(nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 64)
    with pytest.raises(UserError, match="single cell"):
        ClassActivation(encoder(), 32)
