r"""A linear probe: an encoder as it is, with a new classifier, and so CAMs, for a data set's classes.

  python benchmarks/wsol_linear_probe.py \
      --weights tf_efficientnet_lite0.safetensors --encoder tf_efficientnet_lite0 \
      --dataset cub --root /data/CUB_200_2011 --image-size 160 --output probe.pt

The training images, resized straight to a square as for localization, pass through the network once; a
softmax regression with weight decay is fitted to the classifier's inputs by L-BFGS. Nothing but the
classifier changes. The output is a checkpoint for automix-transfer localize and automix-transfer finetune
(encoder.weights=probe.pt encoder.classifier=keep).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.data.registry import DATASETS
from automix_transfer.data.settings import DataConfig
from automix_transfer.data.transforms import eval_transform
from automix_transfer.errors import run_script
from automix_transfer.evaluation.probing.features import read_features
from automix_transfer.io import save_torch
from automix_transfer.models.classifier import find_classifier
from automix_transfer.models.weights import load_encoder
from automix_transfer.models.weights_file import CHECKPOINT_FORMAT
from automix_transfer.progress import Progress


def softmax_regression(features: Tensor, labels: Tensor, classes: int, weight_decay: float) -> nn.Linear:
    """The linear layer that minimises cross-entropy + weight_decay / 2 · |W|² on (N, D) features."""
    layer = nn.Linear(features.shape[1], classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(layer(features), labels) + weight_decay / 2 * layer.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return layer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE")
    parser.add_argument("--encoder", metavar="NAME", help="where the file does not say it")
    parser.add_argument("--dataset", required=True, choices=("cub", "tiny_imagenet"))
    parser.add_argument("--root", type=Path, required=True, metavar="DIR")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--weight-decay", type=float, default=1e-3)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.pt")
    args = parser.parse_args()
    listing = DATASETS[args.dataset](args.root, "train")
    encoder, info = load_encoder(args.weights, args.encoder)
    classifier = find_classifier(encoder)
    name = next(name for name, module in encoder.named_modules() if module is classifier)
    transform = eval_transform(
        DataConfig(
            root=str(args.root),
            image_size=args.image_size,
            test_crop="squash",
            mean=list(info.mean),
            std=list(info.std),
        )
    )
    encoder.to(memory_format=torch.channels_last)
    dataset, progress = ClassificationDataset(listing, transform), Progress("features")
    read = read_features(
        encoder, dataset, torch.device("cpu"), 25, say=lambda done: progress(done, len(dataset))
    )
    features, labels = read.values, read.labels
    probe = softmax_regression(features, labels, len(listing.classes), args.weight_decay)
    accuracy = 100 * (probe(features).argmax(1) == labels).float().mean().item()
    encoder.set_submodule(name, probe)
    info = replace(
        info, num_classes=len(listing.classes), image_size=args.image_size, class_names=tuple(listing.classes)
    )
    model = {f"encoder.{key}": value.contiguous() for key, value in encoder.state_dict().items()}
    save_torch(
        args.output,
        {
            "format": CHECKPOINT_FORMAT,
            "encoder": info.to_dict(),
            "encoders": {"encoder": "encoder."},
            "model": model,
        },
    )
    print(f"{args.output}: {len(labels):,} training images, training accuracy {accuracy:.2f} %")


if __name__ == "__main__":
    run_script(main)
