"""AutoMix in a loop of plain torch and torchvision, by its two calls.

python examples/automix_plain_loop.py --data /data/imagenet --output encoder.pth

--data is a folder with train/CLASS/ and val/CLASS/, e.g. datasets/imagenet of
``automix-transfer data synthetic --out datasets``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torchvision
from torch.utils.data import DataLoader
from torchvision import transforms

from automix_transfer.mixing import AutoMix


def main() -> None:
    args = parser(__doc__).parse_args()
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    torch.manual_seed(args.seed)
    loader, test_loader, classes = loaders(args)

    encoder = torchvision.models.get_model(args.model, num_classes=classes)
    method = AutoMix(encoder, feature_layer="layer3").to(
        device
    )  # the encoder as q, its average k, a Mix Block
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=args.lr, momentum=0.9, weight_decay=1e-4)
    steps = args.epochs * len(loader)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)

    step = 0
    for epoch in range(args.epochs):
        method.train()
        for images, labels in loader:
            output = method(images.to(device), labels.to(device))  # the first call: Eq. 8
            optimizer.zero_grad()
            output.loss.backward()
            optimizer.step()
            scheduler.step()
            step += 1
            method.after_step(step / steps)  # the second call: Eq. 12, k follows q
        found = accuracy(method.inference_encoder(), test_loader, device)
        print(f"epoch {epoch + 1}: loss {output.loss.item():.3f}, top-1 {found:.2f} %", flush=True)
    torch.save(method.inference_encoder().state_dict(), args.output)


def loaders(args: argparse.Namespace) -> tuple[DataLoader, DataLoader, int]:
    to_tensor = [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    crop = [transforms.RandomResizedCrop(args.size), transforms.RandomHorizontalFlip()]
    centre = [transforms.Resize(args.size), transforms.CenterCrop(args.size)]
    train, test = (
        torchvision.datasets.ImageFolder(args.data / split, transforms.Compose(how + to_tensor))
        for split, how in (("train", crop), ("val", centre))
    )
    shared = {"batch_size": args.batch_size, "num_workers": args.workers}
    # a last batch of one image would have no partner
    return (
        DataLoader(train, shuffle=True, drop_last=True, **shared),
        DataLoader(test, **shared),
        len(train.classes),
    )


@torch.no_grad()
def accuracy(encoder: torch.nn.Module, loader: DataLoader, device: torch.device) -> float:
    """Top-1 accuracy in percent."""
    encoder.eval()
    right = [(encoder(x.to(device)).argmax(dim=1) == y.to(device)).float() for x, y in loader]
    return 100 * torch.cat(right).mean().item()


def parser(about: str | None) -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=about, formatter_class=argparse.RawTextHelpFormatter)
    result.add_argument("--data", type=Path, required=True, help="folder with train/CLASS/ and val/CLASS/")
    result.add_argument("--output", type=Path, default=Path("encoder.pth"), help="file of the weights")
    result.add_argument("--model", default="resnet18", help="of torchvision, with a layer3")
    result.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    result.add_argument("--epochs", type=int, default=100)
    result.add_argument("--batch-size", type=int, default=128)
    result.add_argument("--lr", type=float, default=0.05)
    result.add_argument("--workers", type=int, default=4)
    result.add_argument("--seed", type=int, default=0)
    return result


if __name__ == "__main__":
    main()
