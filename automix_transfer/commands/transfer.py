"""Which backbone is better, and by how much? Any backbones on every task, one table.

  automix-transfer transfer --backbones random vanilla=runs/v/last.pt cutmix=c.pth automix=runs/a/last.pt \\
      --tasks finetune,linear,knn,localization,robustness --data cub=/data/CUB_200_2011 --output runs/answer
  automix-transfer transfer --backbones vanilla='runs/v_{seed}/last.pt' automix='runs/a_{seed}/last.pt' \\
      --tasks detection --detector voc_R50_C4_24k --data voc=/data/VOCdevkit --seeds 3 --output runs/voc \\
      detection.SOLVER.MAX_ITER=12000

The first backbone is the reference. All get the same schedules, seeds, data and augmentation; what differs
besides the weights (normalisation, network) is listed. A source is what our other commands open: checkpoints,
exports, weights of torchvision, timm, MoCo or OpenMixup, timm:NAME, or random; {seed} in it stands for the
seed, so that the differences are those of whole pretrainings.

tasks       detection     Faster R-CNN (--detector RECIPE): AP, AP50, AP75
            localization  boxes on the CAMs of the fine-tuned network: MaxBoxAccV2, MaxBoxAcc
            finetune      top-1 after fine-tuning (the median of the last epochs)
            linear, knn   top-1 of a linear classifier, of nearest neighbours, on fixed features
            robustness    of the fine-tuned network: corrupted top-1, FGSM error, ECE
settings    TASK.KEY=VALUE at the end, as the task's own command takes them: finetune.train.epochs=20,
            detection.SOLVER.BASE_LR=0.01, localization.image_size=224, knn.k=10, robustness.limit=500

--tune lr=0.003,0.01,0.03 chooses the learning rate of each backbone on a fifth of the training images, which
are held out meanwhile; test images are never looked at.

Every job is a command that a person can type (--plan shows them). The same line again repeats nothing that is
done and goes on with what was killed; a job that fails leaves the others alone, and the table says why it is
missing. OUTPUT then holds answer.txt, .md, .tex, .csv, .json, runs.csv (every value) and report.html.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automix_transfer.command_line import command_parser
from automix_transfer.console import show
from automix_transfer.errors import EXIT_USER_ERROR, UserError
from automix_transfer.io import expand_home
from automix_transfer.owner import owned, refuse_top_folder

if TYPE_CHECKING:
    from automix_transfer.models.encoders import EncoderInfo
    from automix_transfer.transfer.transfer_run import Prepared


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser("transfer", __doc__)
    add = parser.add_argument
    many: dict[str, Any] = {"nargs": "+", "action": "extend"}
    add("--backbones", required=True, metavar="[NAME=]SOURCE", help="the first is the reference", **many)
    words = "for sources that do not say which network they hold, and for random"
    add("--encoder", default=[], metavar="[NAME=]NETWORK", help=words, **many)
    words = "encoder of a file that holds several (default: the one for inference)"
    add("--which", default=[], metavar="[NAME=]k|q|ema", help=words, **many)
    add(
        "--tasks",
        required=True,
        help="detection,localization,finetune,linear,knn,robustness, or some of them",
    )
    add(
        "--data",
        required=True,
        metavar="[NAME=]DIR",
        help="data sets in their native layouts, which say what each is for",
        **many,
    )
    add("--seeds", default="3", metavar="N", help="how many (1..N), or a list: 5,7,9 (default 3)")
    add(
        "--detector",
        default="",
        metavar="RECIPE",
        help="of detection: a recipe's name, or a file "
        "(default: that of the paper's table for the backbones' network)",
    )
    add(
        "--finetune-recipe",
        default="",
        metavar="RECIPE",
        help="of fine-tuning (default: the protocol of Table 5)",
    )
    add(
        "--tune",
        default=[],
        metavar="KEY=VALUE,VALUE",
        help="choose a setting for each backbone on a fifth of the training images, held out: "
        "lr=0.01,0.03 of fine-tuning and detection, or TASK.KEY=VALUE,VALUE",
        **many,
    )
    add("--output", type=Path, required=True, metavar="DIR")
    add("--plan", action="store_true", help="check everything, show the jobs and their commands, and stop")
    add(
        "--print",
        choices=("slurm",),
        help="print an array script for a cluster, and stop; when its tasks are "
        "done, the same line without --print makes the table",
    )
    add("--jobs", type=int, metavar="N", help="side by side (default: a GPU each, or the cores, at most 4)")
    add("settings", nargs="*", metavar="TASK.KEY=VALUE")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    args = build_parser().parse_intermixed_args(arguments)

    from automix_transfer.commands.checking.job_checks import unfit
    from automix_transfer.compared.named import parse_seeds
    from automix_transfer.progress import to_stderr
    from automix_transfer.transfer import backbones, transfer_settings
    from automix_transfer.transfer.transfer_run import prepare

    args.output = expand_home(args.output)
    take_settings(args, transfer_settings.TASKS)
    named = backbones.parse_backbones(args.backbones, args.encoder, args.which)
    tasks = transfer_settings.parse_tasks(args.tasks)
    settings = transfer_settings.Settings(
        args.output,
        tasks,
        transfer_settings.parse_data(args.data),
        parse_seeds(args.seeds),
        args.detector,
        args.finetune_recipe,
        transfer_settings.parse_overrides(args.settings),
        transfer_settings.parse_tune(args.tune, tasks),
        rehearse=rehearsal() if "detection" in tasks else None,
    )
    if not str(args.output).isprintable():
        raise UserError(
            f"--output {str(args.output)!r} has characters that are not printable; choose another folder"
        )
    transfer_settings.check(settings)
    refuse_top_folder(args.output, "--output")
    chosen = prepare(settings, named, num_gpus=1 if args.print else None)
    infos = {found.named.folder: found.info for found in chosen.backbones.values()}
    chosen = chosen.without(unfit((chosen.before, chosen.jobs), infos))
    for sentence in () if args.plan else chosen.missing():
        to_stderr(sentence)
    if args.print == "slurm":
        show(chosen.slurm(), end="")
    elif args.plan:
        show(chosen.text())
        return EXIT_USER_ERROR if chosen.unfit else 0
    else:
        return answered(args.output, chosen, args.jobs)
    return 0


def take_settings(args: argparse.Namespace, tasks: Iterable[str]) -> None:
    """Settings that stand behind an option of several words, which argparse took for its own."""
    for option in ("backbones", "encoder", "which", "data", "tune"):
        for word in list(getattr(args, option)):
            key, equals, value = word.partition("=")
            several = option == "tune" and "," in value
            if equals and key.partition(".")[0] in tasks and "." in key and not several:
                if not expand_home(value).exists():
                    getattr(args, option).remove(word)
                    args.settings.append(word)


def rehearsal() -> Callable[[str, tuple[str, ...], Path, int, EncoderInfo], float] | None:
    """`detection.rehearsal.rehearse`, where there is Detectron2."""
    from automix_transfer.detection import compatibility

    if not compatibility.available():
        return None
    from automix_transfer.detection.rehearsal import rehearse

    return rehearse


def answered(output: Path, chosen: Prepared, jobs: int | None) -> int:
    """Run, write and print; 2 where something is missing of the answer."""
    from automix_transfer.report.transfer_page import build
    from automix_transfer.transfer.answer_tables import write_answer
    from automix_transfer.transfer.transfer_run import refuse_others_answer, run

    with owned(output, "give another --output"):
        refuse_others_answer(output)
        rows, about = run(chosen, jobs)
        text = write_answer(output, rows, about)
        page = build(output, rows, chosen.cells, about)
    show(f"\n{text}\n\ntable: {output / 'answer.md'}   page: {page}")
    measured = all(cell.result.is_file() for cell in chosen.cells)
    return 0 if measured and not about["failures"] else EXIT_USER_ERROR
