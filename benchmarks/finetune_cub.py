r"""AutoMix in three presets beside vanilla, MixUp and CutMix, fine-tuned on CUB-200 from one linear probe:
top-1 over seeds.

python benchmarks/finetune_cub.py --data /data/CUB_200_2011 --weights tf_efficientnet_lite0.safetensors \
    --output runs/cub --seeds 0 1 2
python benchmarks/finetune_cub.py --data /data/CUB_200_2011 --weights tf_efficientnet_lite0.safetensors \
    --output runs/cub

The probe comes first (wsol_linear_probe.py), so that a short run tunes features and classifier instead of
finding a classifier. Each run is a process of one thread; what has finished is not run again, so the command
can be interrupted, and seeds can be added. The Mix Block's learning rate is 30 times the network's, because
its parameters are new.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from comparison import choose, compare

from automix_transfer.command_line import command
from automix_transfer.errors import run_script
from automix_transfer.jobs import Job, run_jobs

#: what every preset of AutoMix says
AUTOMIX = ["method.name=automix", "method.feature_layer=3", "method.mix_block_lr_scale=30"]
#: method -> its rough cost in vanilla's, and what its run says beside the common settings
METHODS = {
    "vanilla": (1.0, ["method.name=vanilla"]),
    "mixup": (1.0, ["method.name=mixup"]),
    "cutmix": (1.0, ["method.name=cutmix"]),
    "automix": (3.0, AUTOMIX),
    "automix_openmixup": (3.0, [*AUTOMIX, "method.preset=openmixup"]),
    "automix_fast": (1.5, [*AUTOMIX, "method.preset=fast"]),
}


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="CUB-200-2011, or a part of it, as released"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        required=True,
        metavar="FILE",
        help="ImageNet weights that the probe starts from",
    )
    parser.add_argument("--encoder", default="tf_efficientnet_lite0", metavar="NAME")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="for every run; not right after a list such as --seeds 0 1",
    )
    options = parser.parse_intermixed_args()
    options.methods = choose(options.methods, METHODS, "--methods")
    run_jobs(jobs_of(options), options.output / "logs", options.parallel)
    compare(
        options.output,
        options.methods,
        options.seeds,
        batch=25,
        setting={"epochs": options.epochs, "overrides": options.overrides},
    )


def jobs_of(options: argparse.Namespace) -> list[Job]:
    """The probe and the runs of every seed."""
    probe = options.output / "probe.pt"
    script = [
        sys.executable,
        str(Path(__file__).with_name("wsol_linear_probe.py")),
        "--weights",
        str(options.weights),
        "--encoder",
        options.encoder,
        "--dataset",
        "cub",
        "--root",
        str(options.data),
        "--image-size",
        "160",
        "--output",
        str(probe),
    ]
    common = [
        "data.dataset=cub",
        f"data.root={options.data}",
        "data.train_split=train",
        "data.val_split=test",
        "data.workers=0",
        "data.image_size=112",
        "data.resize=128",
        "data.mean=[0.5,0.5,0.5]",
        "data.std=[0.5,0.5,0.5]",
        f"encoder.name={options.encoder}",
        f"encoder.weights={probe}",
        "encoder.classifier=keep",
        "optimizer.lr=0.003",
        "schedule.warmup_epochs=0.5",
        f"train.epochs={options.epochs}",
        "train.batch_size=25",
        "train.eval_batch_size=25",
        "train.channels_last=true",
        "train.device=cpu",
        "train.save_every_steps=0",
        *options.overrides,
    ]
    train = command("finetune", "--resume")
    found = [Job("probe", script, probe)]
    for seed in options.seeds:
        for name in options.methods:
            cost, extra = METHODS[name]
            folder = options.output / f"{name}_{seed}"
            found.append(
                Job(
                    f"{name} {seed}",
                    [*train, *common, *extra, f"seed={seed}", f"output={folder}"],
                    folder / "metrics.json",
                    ["probe"],
                    cost,
                    keep=lambda line: "finished" in line,
                )
            )
    return found


if __name__ == "__main__":
    run_script(main)
