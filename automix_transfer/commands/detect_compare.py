"""Is this backbone better for detection? Train one detector from several backbones over several seeds, and
print Table 7.

    automix-transfer detect compare --config-file voc_R50_C4_24k --output runs/table7 --num-gpus 8 \\
        --seeds 3 --weights random vanilla=r50_vanilla.pkl AutoMix=r50_automix.pkl
    automix-transfer detect compare --config-file embedded_R10_FPN --output runs/compare --seeds 3 \\
        --data-root datasets/VOC2007 --weights random AutoMix=r10.pkl SOLVER.MAX_ITER 90

Every row is the same config from other weights; each run is `automix-transfer detect` in a process of its
own, in OUTPUT/runs/ROW/seedK. All rows, weights, data and folders are checked before the first run starts.
The same command again repeats no finished run, resumes what was killed, and runs what was added (a row, a
seed); settings that changed since are an error. Gains are over the first row, seed by seed.

OUTPUT then holds comparison.txt, .md, .csv and .json (the table), runs.csv (every figure of every run),
figures/, and report.html: one file with the table, learning curves, and detections of every row on the same
test images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from automix_transfer.command_line import command_parser
from automix_transfer.console import say, show
from automix_transfer.errors import UserError
from automix_transfer.owner import owned, refuse_top_folder
from automix_transfer.recipes.find import find_recipe


def parser() -> argparse.ArgumentParser:
    epilog = "Trailing KEY VALUE pairs override the config of every run, e.g. SOLVER.MAX_ITER 12000"
    result = command_parser("detect compare", __doc__, epilog)
    add = result.add_argument
    add(
        "--weights",
        nargs="+",
        action="extend",
        required=True,
        metavar="[NAME=]FILE",
        help="the rows, in order: what MODEL.WEIGHTS takes, named after the file or NAME; "
        "'random' trains from scratch",
    )
    add("--config-file", required=True, metavar="FILE", help="a recipe's name, or a file")
    add("--output", type=Path, required=True, metavar="DIR", help="folder of the comparison")
    seeds = "how many seeds (1..N), or a list of them: 5,7,9 (default 3)"
    add("--seeds", default="3", metavar="N", help=seeds)
    data = "a data set in VOC or COCO layout, instead of the config's DATASETS"
    add("--data-root", type=Path, metavar="DIR", help=data)
    add("--class-names", type=Path, metavar="FILE", help="its classes in label order, one a line")
    evaluators = "pycocotools (default) or hotcoco"
    add("--coco-evaluator", default="pycocotools", metavar="NAME", help=evaluators)
    gpus = "GPUs of each run, which then go one after another; 0 (default): the CPU"
    add("--num-gpus", type=int, default=0, help=gpus)
    jobs = "runs side by side, on the CPU only (default: the cores, at most 4)"
    add("--jobs", type=int, metavar="N", help=jobs)
    add("--images", type=int, default=6, metavar="N", help="test images in the report (default 6)")
    add("--check-only", action="store_true", help="check everything, say what would run, and stop")
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the config, last")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    from automix_transfer.detection import compatibility

    compatibility.require()
    from automix_transfer.compared.named import parse_seeds
    from automix_transfer.detection.comparing import compare
    from automix_transfer.detection.comparing.collected import collect
    from automix_transfer.jobs import plan_table, run_jobs, side_by_side
    from automix_transfer.report.comparison_page import build

    parallel = side_by_side(options.jobs, options.num_gpus)
    if options.images < 0:
        raise UserError(f"--images {options.images} must be 0 or more")
    plan = compare.Plan(
        options.output,
        find_recipe(options.config_file, "detection"),
        compare.parse_rows(options.weights),
        parse_seeds(options.seeds),
        options.data_root,
        options.class_names,
        options.coco_evaluator,
        options.num_gpus,
        tuple(options.opts),
    )
    refuse_top_folder(plan.output, "--output")
    inputs = compare.check(plan)
    jobs = compare.jobs(plan)
    checked = f"{len(plan.rows)} rows x {len(plan.seeds)} seeds, checked:\n{plan_table(jobs)}"
    if options.check_only:
        show(checked)
        return 0
    say(checked)
    with owned(plan.output, "give another --output"):
        compare.refuse_others_answer(plan.output, inputs)
        compare.write_inputs(inputs)
        run_jobs(jobs, plan.output / "logs", parallel)
        comparison = collect(plan, compare.differences(inputs))
        comparison.write(plan.output)
        data = {"data_root": plan.data_root, "class_names": plan.class_names}
        page = build(plan.output, comparison.to_dict(), **data, count=options.images)
    print(f"\n{comparison.text()}\n\ntable: {plan.output / 'comparison.md'}   page: {page}", flush=True)
    return 0
