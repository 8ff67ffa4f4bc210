"""Channel statistics of ImageNet, in [0, 1] RGB: the normalisation that torchvision's and most of timm's
weights expect."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
