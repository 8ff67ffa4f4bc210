"""Evaluate any classifier on any folder of labelled images.

Accuracy, calibration, adversarial and corruption error, confused classes.

  a torchvision or timm network's weights, or those of a CIFAR ResNet:
    automix-transfer evaluate --encoder cifar_resnet20 --weights resnet20.th \\
      --data cifar10/test --output out.json
  a checkpoint or export of ours says itself what it is:
    automix-transfer evaluate --weights runs/r18/last.pt --data /data/imagenet/val \\
      --suite clean,calibration,fgsm,pgd
  a run, on its own validation images and as it was validated; written to runs/cub/evaluation.json, and the
  most confused pairs of classes with example images to runs/cub/confusion.json, where the report finds them:
    automix-transfer evaluate --run runs/cub --suite clean,calibration,confusion

  a run on images with several labels (VOC, COCO): mAP and the average precision of each class:
    automix-transfer evaluate --run runs/voc07

  a run on imbalanced data, classes by their training images (over 100, 20 to 100, under 20):
    automix-transfer evaluate --run runs/inat2018 --suite clean,confusion,shots

  under corruption, on the released images or, without --corrupted, on corruptions made here (the output says
  which):
    automix-transfer evaluate --encoder cifar_resnet20 --weights resnet20.th \\
      --data cifar10/test --suite clean,corruption --corrupted CIFAR-10-C --output out.json

  on several GPUs, with the figures of one (without --, torchrun takes --run for an option of its own):
    torchrun --nproc-per-node 8 --no-python -- automix-transfer evaluate --run runs/r50

--data is a folder of class folders, or a folder that holds one as test/ or val/; class folders in
alphabetical order are classes 0, 1, ... of the network. With --dataset it is the root of a data set in its
native layout. Prints a table and writes it, with all that it was made from, to --output; parts that the file
holds already and --suite does not name stay in it, if they are of the same network, images and settings.
Several outputs in one plot:
automix-transfer report figure fig8 (calibration) or robustness.
"""

from __future__ import annotations

from collections.abc import Sequence

from automix_transfer.evaluation.arguments import parse


def main(arguments: Sequence[str] | None = None) -> int:
    args, options = parse(__doc__ or "", arguments)
    from automix_transfer.evaluation.evaluate_run import evaluate

    evaluate(args, options)
    return 0
