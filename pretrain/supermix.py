"""Mix a training split offline by SuperMix, with a trained network as the judge; then train on it.

automix-transfer supermix --config-file cifar100_r18_supermix --teacher runs/cifar100_vanilla/last.pt \\
  --output datasets/cifar100_supermix data.root=/data/cifar100
automix-transfer pretrain --config-file cifar100_r18_supermix data.root=/data/cifar100 \\
  data.mixed=datasets/cifar100_supermix
"""

from automix_transfer.errors import run_script
from automix_transfer.transfer.supermix_writer import main

if __name__ == "__main__":
    run_script(lambda: main(__doc__))
