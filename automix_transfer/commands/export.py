"""Export a backbone, with proof: all keys matched, and equal features in the framework that will use it."""

from __future__ import annotations

from collections.abc import Sequence

from automix_transfer.command_line import command_parser

#: kind -> suffix of its file (none: a folder), as the exporters have them, which need torch
KINDS = {
    **{"torchvision": ".pth", "timm": ".pth", "safetensors": ".safetensors"},
    **{"hf": "", "onnx": ".onnx", "detectron2": ".pkl"},
}
EXAMPLES = """
what is written
  torchvision   x.pth          torchvision.models.resnet50().load_state_dict(torch.load("x.pth"))
  timm          x.pth          timm.create_model("resnet50", checkpoint_path="x.pth")
  safetensors   x.safetensors  any encoder; load_encoder("x.safetensors") rebuilds it, other tools read the
                               tensors
  hf            a folder       config.json, model.safetensors, README.md (the model card), as timm's on the
                               Hugging Face hub: timm.create_model("local-dir:DIR", pretrained=True); of
                               networks that timm does not have after import automix_transfer.models;
                               huggingface_hub.upload_folder publishes it
  onnx          x.onnx         onnxruntime.InferenceSession("x.onnx"): images (N, 3, H, W), any N, of the
                               training size; mean, deviation and class names are in its metadata. Needs
                               the extra: pip install onnx onnxruntime onnxscript
  detectron2    x.pkl, x.yaml  MODEL.WEIGHTS x.pkl, with x.yaml's settings merged into the config: without
                               them (RGB, mean, deviation, STRIDE_IN_1X1 False) Detectron2 loads the file and
                               computes other features; ViT, DeiT, Swin, ConvNeXt and the like go into the
                               backbone timm_fpn/NAME
  and beside each x.proof.json (hf: in the folder): keys, largest difference, sha256 of the files,
  versions, encoder, step

  The classifier goes along wherever the format has one. Plain files say nothing of the input: with timm, the
  printed pretrained_cfg_overlay does.

  The exported file is loaded back into the target's own network, which sees the same random images as the
  source. What cannot be proven is not written, and the exit code is 2.

examples
  automix-transfer export --checkpoint runs/r50/last.pt --to detectron2 --output r50.pkl
  automix-transfer export --checkpoint runs/r50/last.pt --to torchvision --output r50_q.pth --which q
  automix-transfer export --checkpoint runs/r50/last.pt --to hf --output r50_automix
  automix-transfer export --checkpoint resnet50-0676ba61.pth --encoder resnet50 --to torchvision \\
    --output r50.pth
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command_parser("export", __doc__, EXAMPLES)
    add = parser.add_argument
    source = "a checkpoint or export of ours, a Hugging Face folder, or a state dict of torchvision or timm"
    add("--checkpoint", required=True, metavar="FILE", help=source)
    add("--to", required=True, choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    suffixes = {end: ", ".join(kind for kind in KINDS if KINDS[kind] == end) for end in KINDS.values()}
    output = "; ".join(f"{end or 'a folder'} for {names}" for end, names in suffixes.items())
    add("--output", required=True, metavar="PATH", help=output)
    name = "where the file does not say what it holds: resnet50, any timm name, torchvision/NAME"
    add("--encoder", metavar="NAME", help=name)
    which = (
        "the encoder of a checkpoint with several; default the one for inference (AutoMix: k, the momentum"
    )
    add("--which", metavar="k|q|ema", help=f"{which} encoder)")
    add("--num-classes", type=int, metavar="N", help="fail unless the file's classifier has N outputs")
    args = parser.parse_args(arguments)
    from automix_transfer.detection.weights.exporter import EXPORTERS
    from automix_transfer.export import export

    chosen = args.encoder, args.which, args.num_classes
    print(export(args.checkpoint, args.to, args.output, *chosen, EXPORTERS), flush=True)
    return 0
