"""What a short training on embedded data must give: masks that follow λ, differ, and are alive; mixed samples
that can be recognised.

The trivial solution of Fig. 6 (flat masks: MixUp) is where AutoMix ends if the generator is guided by a weak
or a late encoder k.
"""

from types import SimpleNamespace

import pytest
import torch

from automix_transfer.data.loader import train_loader
from automix_transfer.data.settings import DataConfig
from automix_transfer.data.splits import eval_dataset, train_dataset
from automix_transfer.evaluation.mixed_samples import mask_statistics, mixed_accuracy, shuffled_batches
from automix_transfer.evaluation.mixers import MIXERS, automix_mixer
from automix_transfer.mixing import build_method
from automix_transfer.models import create_encoder
from automix_transfer.rng import derive_generator
from automix_transfer.synthetic.write import write_all

pytestmark = pytest.mark.slow

CLASSES, BATCH, EPOCHS, RATE = 4, 32, 10, 0.05


def train(name, data):
    """A plain loop over a method, as a user would write it: about 200 steps."""
    dataset = train_dataset(data, seed=0)
    batches = train_loader(dataset, BATCH, 0, workers=0)
    torch.manual_seed(0)
    method = build_method(name, create_encoder("resnet10_32", CLASSES)).to(memory_format=torch.channels_last)
    trainable = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=RATE, momentum=0.9, nesterov=True, weight_decay=1e-4)
    total, step = EPOCHS * batches.batches_per_epoch, 0
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=total, pct_start=0.1)
    method.train()
    for epoch in range(EPOCHS):
        batches.set_epoch(epoch, 0)
        for images, labels, _ in batches:
            output = method(
                images.contiguous(memory_format=torch.channels_last),
                labels,
                derive_generator(0, "method", step),
            )
            optimizer.zero_grad()
            output.loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            method.after_step(step / total)
    return method


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("embedded")
    write_all(out, scale=1.0, progress=False)
    data = DataConfig(
        root=str(out / "imagenet"),
        image_size=64,
        scale=[0.7, 1.0],
        test_crop="squash",
        limit_classes=CLASSES,
        workers=0,
    )
    batches = list(shuffled_batches(eval_dataset(data), 60, 0))
    return SimpleNamespace(automix=train("automix", data), mixup=train("mixup", data), batches=batches)


def test_masks_follow_lam_differ_and_are_alive(trained):
    rows = mask_statistics(trained.automix, trained.batches)
    beyond_margin = [max(row.error - 0.1, 0) for row in rows]  # ε of Eq. 7
    assert sum(beyond_margin) / len(rows) <= 0.1
    middle = min(rows, key=lambda row: abs(row.lam - 0.5))
    assert middle.spatial_std >= 0.1
    assert middle.pair_std >= 0.05


def test_mixed_samples_are_recognised_better_than_those_of_mixup(trained):
    """Fig. 4, right: top-2 accuracy on each method's own mixed samples."""
    automix = mixed_accuracy(
        trained.automix.inference_encoder(), trained.batches, automix_mixer(trained.automix), lams=[0.5]
    )[0]
    mixup = mixed_accuracy(trained.mixup.inference_encoder(), trained.batches, MIXERS["mixup"], lams=[0.5])[0]
    assert automix.top2 > mixup.top2
