"""Any mixup in a module of Lightning: `transform` in its hook behind the transfer to the device.

python examples/lightning_loop.py --data /data/imagenet --mixup puzzlemix

--data is a folder with train/CLASS/ and val/CLASS/, e.g. datasets/imagenet of
``automix-transfer data synthetic --out datasets``.
"""

from __future__ import annotations

import argparse

import lightning as L
import torch
import torchvision
from automix_plain_loop import loaders, parser
from torch.nn import functional

from automix_transfer.mixing import METHODS, transform


class Classifier(L.LightningModule):
    """A network of torchvision, trained on mixed images and soft targets."""

    def __init__(self, args: argparse.Namespace, classes: int) -> None:
        super().__init__()
        self.args = args
        self.network = torchvision.models.get_model(args.model, num_classes=classes)
        # PuzzleMix and Co-Mixup ask the network that is being trained, AttentiveMix rather a trained one.
        encoder = self.network if METHODS[args.mixup].needs else None
        self.mix = transform(args.mixup, classes, alpha=args.alpha, encoder=encoder)
        self.losses: list[torch.Tensor] = []
        self.hits: list[torch.Tensor] = []

    def on_after_batch_transfer(self, batch, dataloader_idx: int):
        return self.mix(*batch) if self.trainer.training else batch

    def training_step(self, batch, number: int) -> torch.Tensor:
        images, targets = batch
        loss = functional.cross_entropy(self.network(images), targets)
        self.losses.append(loss.detach())
        return loss

    def validation_step(self, batch, number: int) -> None:
        images, labels = batch
        self.hits.append((self.network(images).argmax(dim=1) == labels).float())

    def on_validation_epoch_end(self) -> None:
        loss, top1 = torch.stack(self.losses).mean(), 100 * torch.cat(self.hits).mean()
        self.print(f"epoch {self.current_epoch + 1}: loss {loss:.3f}, top-1 {top1:.2f} %")
        self.losses.clear()
        self.hits.clear()

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.args.lr, momentum=0.9, weight_decay=1e-4)
        rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.args.epochs)
        return {"optimizer": optimizer, "lr_scheduler": rates}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--mixup", default="resizemix", help="a method that `transform` takes")
    options.add_argument("--alpha", type=float, help="of λ ~ Beta(α, α); the method's own if left out")
    args = options.parse_args()
    L.seed_everything(args.seed)
    loader, test_loader, classes = loaders(args)
    model = Classifier(args, classes)
    trainer = L.Trainer(
        max_epochs=args.epochs,
        devices=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, loader, test_loader)
    torch.save(model.network.state_dict(), args.output)


if __name__ == "__main__":
    main()
