"""Mean and deviation of ImageNet's channels, in [0, 1] RGB; most of the field's weights expect them."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
