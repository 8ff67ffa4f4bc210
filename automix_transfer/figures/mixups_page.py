"""docs/mixing.md: every mixup in one table and one picture.

python -m automix_transfer.figures.mixups_page --output docs                                       # the table
python -m automix_transfer.figures.mixups_page --output docs \
    --checkpoint runs/demo/pretrain/automix/last.pt --data datasets/imagenet
"""

from __future__ import annotations

import argparse
from pathlib import Path

from automix_transfer.errors import UserError, run_script
from automix_transfer.io import write_text
from automix_transfer.mixing import METHODS

PAGE, PICTURE = "mixing.md", "mixing.png"
COLUMNS = (
    "`method.name`",
    "method",
    "paper",
    "needs",
    "passes a step",
    "label",
    "what the authors' code does, and other differences",
)
TEXT = """# Mixups

Written by `python -m automix_transfer.figures.mixups_page`; change it there.

![The same four pairs through every method at λ = 0.5, masks beside](%(picture)s)

*Rendered images. Orange in a mask: the pixel is image i's, purple: image j's, white: half and half.
Saliency, attention, SuperMix and AutoMix come from one small network, trained by AutoMix on such images.
ManifoldMix and AlignMix mix their inputs like MixUp, or features, which cannot be shown; TransMix's images
are CutMix's. Co-Mixup mixes all eight images with each other: its mask is the share of the output's own
image. AugMix has no pairs: one of its views of image i.*

Each method is one file of `automix_transfer/mixing/methods/`, chosen by `method.name` in a recipe; its
options, with its paper's defaults, are the dataclass at the top of the file. A method first draws (λ,
partners, boxes, coins: a frozen dataclass, from the step's generator), then mixes: a function of images,
labels and draw, and of features, saliency or attention where it needs them. So a draw can be replayed and
looked at. What is known of all methods, this page's table included, is one line each in
`automix_transfer/mixing/table.py`.

Passes: a forward pass, the weights' gradients and the input's gradient count one each. The label is the
share of image i in the loss. Where the authors' code does something else than their paper, the paper's form
is the default, and theirs the option named here.

%(table)s

α of appendix A.1, as the recipes have it:

| | CIFAR-10/100 | Tiny-ImageNet, ImageNet (R-18) | ImageNet (R-50 and larger) | DeiT, RSB | CUB, Aircraft |
| --- | --- | --- | --- | --- | --- |
| MixUp | 1 | 0.2 | 1 | 0.2 | 1 |
| CutMix | 0.2 | 0.2 | 1 | 0.2 | 1 |
| ManifoldMix | 2 | 0.2 | 0.2 | 0.2 | 0.5 |
| SaliencyMix, FMix | 0.2 | 0.2 | 1 | 0.2 | 0.2 |
| ResizeMix | 1 | 0.2 | 1 | 0.2 | 1 |
| PuzzleMix | 1 | 1 | 1 | 1 | 1 |
| Co-Mixup, AutoMix | 2 | 2 | 2 | 2 | 2 |

SuperMix is mixed before it is trained on:

```
automix-transfer supermix --config-file cifar100_r18_supermix --teacher runs/cifar100_vanilla/last.pt \\
    --output datasets/cifar100_supermix data.root=/data/cifar100
automix-transfer pretrain --config-file cifar100_r18_supermix data.root=/data/cifar100 \\
    data.mixed=datasets/cifar100_supermix output=runs/cifar100_supermix
```

## In a loop of your own

`transform` makes a function of a batch of every method that mixes images before the network sees them:
%(plain)s,
and, with a network as `encoder=`, %(asking)s.
It returns mixed images and soft targets (N, K). From equal draws the images are bit for bit those of the
method's own step, and the cross-entropy of the targets is its loss.

```python
from automix_transfer.mixing import transform

mix = transform("resizemix", num_classes=100, alpha=1.0)
images, targets = mix(images, labels)
loss = torch.nn.functional.cross_entropy(model(images), targets)
```

- **timm**: it stands where `timm.data.Mixup` does, with `timm.loss.SoftTargetCrossEntropy` and
  `--no-prefetcher` (timm's prefetcher has a mixup of its own); `--mixup-off-epoch` works, too.
  [examples/timm_loop.py](../examples/timm_loop.py) is a whole loop.

  ```python
  mixup_fn = transform("saliencymix", num_classes=args.num_classes, alpha=0.2, smoothing=args.smoothing)
  ```

- **torchvision v2**, in a loader's `collate_fn`, behind the transforms of single images:

  ```python
  def collate(samples):
      return mix(*torch.utils.data.default_collate(samples))
  ```

  It may also be one choice beside torchvision's own: `v2.RandomChoice([mix, v2.CutMix(num_classes=100)])`.

- **Lightning**, in a hook of the module or of the data module, on the device of the batch:

  ```python
  def on_after_batch_transfer(self, batch, dataloader_idx):
      return self.mix(*batch) if self.trainer.training else batch
  ```

  [examples/lightning_loop.py](../examples/lightning_loop.py) is a whole module.

Draws come from `generator=`, a CPU generator, or from torch's own; in a loader's workers only from torch's
own, which differs in each of them. Labels are integers (N,), or vectors (N, K) in [0, 1]: soft labels, or
several classes of one image; vectors are mixed as labels are. `smoothing` smooths the targets, `probability`
is that of mixing a batch. Options of the loss belong to your loop, so Co-Mixup is the one with
`clean_weight=0`. Images are normalised with `mean=` and `std=`, ImageNet's where nothing is said: SaliencyMix
and PuzzleMix look at colours, AttentiveMix's teacher at images of `teacher_size` (224 pixels).
The `encoder` of PuzzleMix and Co-Mixup is the network that is being trained, which costs two more passes, and
that of AttentiveMix a trained one; both run in eval mode and get no gradient.

Refused, because a function of a batch cannot be what the method is:

%(refused)s

AutoMix's two calls in a whole loop: in plain torch,
[examples/automix_plain_loop.py](../examples/automix_plain_loop.py), and under Accelerate, with its processes
and its mixed precision, [examples/automix_accelerate.py](../examples/automix_accelerate.py).

## Cost

What a step costs in seconds: `python benchmarks/step_time.py`; how the methods compare on small data:
`python benchmarks/mixups.py`. Figures are in [benchmarks/RESULTS.md](../benchmarks/RESULTS.md).
"""


def page() -> str:
    """The page's text; the picture lies beside it."""
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    for name, entry in METHODS.items():
        about = (entry.title, entry.paper, entry.needs, entry.passes, entry.label, entry.differences)
        rows.append((f"`{name}`", *about))
    transforms = {name: entry for name, entry in METHODS.items() if not entry.no_transform}
    refused = [f"- `{name}`: {entry.no_transform}" for name, entry in METHODS.items() if entry.no_transform]
    return TEXT % {
        "picture": PICTURE,
        "table": "\n".join(f"| {' | '.join(row)} |" for row in rows),
        "plain": ", ".join(f"`{name}`" for name, entry in transforms.items() if not entry.needs),
        "asking": ", ".join(f"`{name}`" for name, entry in transforms.items() if entry.needs),
        "refused": "\n".join(refused),
    }


def write_picture(path: Path, checkpoint: Path, data: Path, seed: int = 0) -> Path:
    """The picture, from an AutoMix checkpoint and images in ImageNet's layout.

    Raises:
        UserError: a checkpoint of another method, or no data.
    """
    from automix_transfer.data.settings import DataConfig
    from automix_transfer.data.splits import eval_dataset
    from automix_transfer.evaluation.mixers import load_method, mix_block_of
    from automix_transfer.figures.mixups_picture import mixups_picture
    from automix_transfer.figures.samples import example_pairs

    method, info = load_method(checkpoint)
    config = DataConfig(
        root=str(data),
        image_size=info.image_size,
        mean=list(info.mean),
        std=list(info.std),
        test_crop_ratio=1.0,
    )
    dataset = eval_dataset(config)
    pairs = example_pairs(dataset, info, count=4, seed=seed)
    return mixups_picture(path, pairs, mix_block_of(method), seed)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m automix_transfer.figures.mixups_page",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help=f"folder of {PAGE} and {PICTURE}"
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="AutoMix checkpoint for the picture; without it the picture stays",
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="images in ImageNet's layout: train/CLASS/, val/CLASS/"
    )
    parser.add_argument("--seed", type=int, default=0, help="chooses the pairs")
    options = parser.parse_args(arguments)
    if (options.checkpoint is None) != (options.data is None):
        raise UserError(
            "the picture needs both --checkpoint and --data; give both, or neither to write the table only"
        )
    write_text(options.output / PAGE, page())
    if options.checkpoint:
        write_picture(options.output / PICTURE, options.checkpoint, options.data, options.seed)
    print(
        f"written: {options.output / PAGE}" + (f", {options.output / PICTURE}" if options.checkpoint else "")
    )
    return 0


if __name__ == "__main__":
    run_script(main)
