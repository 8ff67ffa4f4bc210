"""The commands that kills.py kills, as a person would type them, but tiny."""

from __future__ import annotations

SHORT = (
    *("train.device=cpu", "train.log_every=1", "train.batch_size=8", "train.epochs=2"),
    "data.image_size=32",
)
#: what each command says; {data}: the embedded data, {run}: a finished pretraining, {out}: where it writes
COMMANDS: dict[str, tuple[str, ...]] = {
    "pretrain": (
        *("pretrain", "--config-file", "embedded_r10_automix", "--resume", "data.root={data}/imagenet"),
        *(*SHORT, "data.limit_per_class=3", "data.workers=0", "train.picture_epochs=[1]"),
        *("train.save_every_steps=1", "output={out}"),
    ),
    "finetune": (
        *("finetune", "--config-file", "embedded_cub", "--resume", "data.root={data}/CUB_200_2011", *SHORT),
        *("data.limit_per_class=3", "data.workers=1", "train.save_every_steps=1"),
        *("encoder.weights={run}/last.pt", "output={out}"),
    ),
    "detect": (
        *("detect", "train", "--config-file", "embedded_R10_FPN", "--num-gpus", "0", "--resume"),
        *("--data-root", "{data}/VOC2007", "MODEL.WEIGHTS", "", "SOLVER.MAX_ITER", "6"),
        *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.WARMUP_ITERS", "2", "INPUT.MIN_SIZE_TRAIN", "(64,)"),
        *("INPUT.MIN_SIZE_TEST", "64", "SOLVER.CHECKPOINT_PERIOD", "2", "TEST.EVAL_PERIOD", "2"),
        *("OUTPUT_DIR", "{out}"),
    ),
    "pack": ("data", "pack", "--dataset", "imagefolder", "--root", "{data}/imagenet", "--output", "{out}"),
    "render": ("data", "synthetic", "--out", "{out}/data", "--scale", "0.01", "--processes", "2"),
    "evaluate": (
        *("evaluate", "--run", "{run}", "--suite", "clean,calibration,confusion,fgsm"),
        *("--device", "cpu", "--output", "{out}/out.json"),
    ),
    "localize": (
        *("localize", "--dataset", "cub", "--root", "{data}/CUB_200_2011", "--checkpoint", "{run}/last.pt"),
        *("--cam-class", "predicted", "--device", "cpu", "--save-maps", "{out}/maps"),
        *("--output", "{out}/wsol.json"),
    ),
    "export": (
        *("export", "--checkpoint", "{run}/last.pt", "--to", "detectron2", "--output", "{out}/r10.pkl"),
    ),
    "transfer": (
        *("transfer", "--backbones", "random", "ours={run}/last.pt", "--tasks", "finetune,linear,knn"),
        *("--data", "birds={data}/CUB_200_2011", "--finetune-recipe", "embedded_cub", "--seeds", "1"),
        *("--jobs", "2", "--output", "{out}/answer", "finetune.data.limit_per_class=3"),
        *(f"finetune.{word}" for word in SHORT),
    ),
    "supermix": (
        *("supermix", "--config-file", "cifar100_r18_supermix", "--teacher", "{run}/last.pt"),
        *("--output", "{out}/mixed", "--count", "4", "data.dataset=imagefolder", "data.classes=0"),
        *("data.root={data}/imagenet", "data.limit_per_class=4", *SHORT, "data.workers=0"),
        "method.iterations=10",
    ),
}
#: trainings have more instants, and are killed in more chains
ORDER = (
    *("pretrain", "detect", "finetune", "render", "pretrain", "evaluate", "detect", "pack"),
    *("finetune", "localize", "pretrain", "detect", "export", "supermix", "transfer"),
)
#: modules that a fork has in memory already
IMPORTED = (
    *("commands.pretrain", "commands.finetune", "commands.detect", "detection.trainer"),
    *("synthetic.write", "evaluation.cli", "commands.localize", "commands.export", "commands.write_supermix"),
    *("transfer.transfer_run", "report.transfer_page"),
    "data.shards.packing",
    "training.loop",
)
