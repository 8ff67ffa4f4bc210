"""AutoMix's two calls under Accelerate: one process or several, in full or mixed precision.

accelerate launch examples/automix_accelerate.py --data /data/imagenet --output encoder.pth

--data is a folder with train/CLASS/ and val/CLASS/, e.g. datasets/imagenet of
``automix-transfer data synthetic --out datasets``.
"""

from __future__ import annotations

import torch
import torchvision
from accelerate import Accelerator
from accelerate.utils import set_seed
from automix_plain_loop import accuracy, loaders, parser

from automix_transfer.mixing import AutoMix


def main() -> None:
    args = parser(__doc__).parse_args()
    accelerator = Accelerator()
    set_seed(args.seed, device_specific=True)  # each process draws for itself
    loader, test_loader, classes = loaders(args)

    encoder = torchvision.models.get_model(args.model, num_classes=classes)
    automix = AutoMix(encoder, feature_layer="layer3")  # the encoder as q, its average k, a Mix Block
    weights = [weight for weight in automix.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=args.lr, momentum=0.9, weight_decay=1e-4)
    method, optimizer, loader = accelerator.prepare(automix, optimizer, loader)
    steps = args.epochs * len(loader)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer.optimizer, T_max=steps)

    step = 0
    for epoch in range(args.epochs):
        method.train()
        for images, labels in loader:
            output = method(images, labels)  # the first call: Eq. 8, through what Accelerate has wrapped
            accelerator.backward(output.loss)
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            step += 1
            automix.after_step(step / steps)  # the second call: Eq. 12, k follows q
        if accelerator.is_main_process:
            found = accuracy(automix.inference_encoder(), test_loader, accelerator.device)
            print(f"epoch {epoch + 1}: loss {output.loss.item():.3f}, top-1 {found:.2f} %", flush=True)
        accelerator.wait_for_everyone()
    accelerator.save(automix.inference_encoder().state_dict(), args.output)
    accelerator.end_training()


if __name__ == "__main__":
    main()
