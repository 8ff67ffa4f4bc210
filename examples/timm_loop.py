"""Any mixup in a loop of timm's parts: `transform` stands where timm.data.Mixup does.

python examples/timm_loop.py --data /data/imagenet --mixup saliencymix --alpha 0.2

--data is a folder with train/CLASS/ and val/CLASS/, e.g. datasets/imagenet of
``automix-transfer data synthetic --out datasets``.
"""

from __future__ import annotations

import argparse

import timm
import torch
from timm.data import create_dataset, create_loader
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import AverageMeter, accuracy

from automix_transfer.mixing import METHODS, transform


def main() -> None:
    args = arguments()
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    torch.manual_seed(args.seed)

    train, test = (create_dataset("", args.data, split=split) for split in ("train", "validation"))
    classes = len(train.reader.class_to_idx)
    # Without the prefetcher, as with timm's --no-prefetcher: it has a mixup of its own, on whole numbers.
    shared = {
        "input_size": (3, args.size, args.size),
        "batch_size": args.batch_size,
        "num_workers": args.workers,
        "use_prefetcher": False,
    }
    loader = create_loader(train, is_training=True, **shared)
    test_loader = create_loader(test, is_training=False, **shared)

    model = timm.create_model(args.model, num_classes=classes).to(device)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=args.lr, weight_decay=0.05)
    scheduler = CosineLRScheduler(optimizer, t_initial=args.epochs)
    # PuzzleMix and Co-Mixup ask the network that is being trained, AttentiveMix rather a trained one.
    encoder = model if METHODS[args.mixup].needs else None
    mixup_fn = transform(args.mixup, classes, alpha=args.alpha, encoder=encoder, smoothing=args.smoothing)
    loss_fn = SoftTargetCrossEntropy()

    for epoch in range(args.epochs):
        mixup_fn.mixup_enabled = epoch < args.epochs - args.clean_epochs
        losses = train_one_epoch(model, loader, optimizer, loss_fn, mixup_fn, device)
        scheduler.step(epoch + 1)
        top1 = validate(model, test_loader, device)
        print(f"epoch {epoch + 1}: loss {losses.avg:.3f}, top-1 {top1.avg:.2f} %", flush=True)


def train_one_epoch(model, loader, optimizer, loss_fn, mixup_fn, device) -> AverageMeter:
    model.train()
    losses = AverageMeter()
    for images, labels in loader:
        images, targets = mixup_fn(images.to(device), labels.to(device))
        loss = loss_fn(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.update(loss.item(), len(images))
    return losses


@torch.no_grad()
def validate(model, loader, device) -> AverageMeter:
    model.eval()
    top1 = AverageMeter()
    for images, labels in loader:
        logits = model(images.to(device))
        top1.update(accuracy(logits, labels.to(device))[0].item(), len(images))
    return top1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train/CLASS/ and val/CLASS/")
    parser.add_argument("--mixup", default="resizemix", help="a method that `transform` takes")
    parser.add_argument("--alpha", type=float, help="of λ ~ Beta(α, α); the method's own if left out")
    parser.add_argument("--smoothing", type=float, default=0.1, help="of the labels")
    parser.add_argument("--clean-epochs", type=int, default=0, help="epochs without mixing, at the end")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
