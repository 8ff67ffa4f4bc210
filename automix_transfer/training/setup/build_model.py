"""The encoder of an experiment, and the method around it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict

from torch import nn

from automix_transfer.data.layouts.class_order import require_known_order
from automix_transfer.errors import UserError
from automix_transfer.mixing import Method, build_method
from automix_transfer.mixing.average import Averaged
from automix_transfer.models.checkpointing import checkpoint_blocks
from automix_transfer.models.encoders import EncoderInfo, check_size
from automix_transfer.models.freezing import freeze
from automix_transfer.models.weights import load_file
from automix_transfer.training.settings import Experiment, check_method


def build_model(
    experiment: Experiment,
    classes: list[str],
    load_weights: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Method, EncoderInfo]:
    """The method around its encoder, and what is known of the encoder.

    Args:
        load_weights: read ``encoder.weights``; otherwise all weights are drawn from the global generators.
        say: is told which weights were loaded.

    Raises:
        UserError: a setting that the encoder, its weights or the method do not go with.
    """
    config, data = experiment.encoder, experiment.data
    if load_weights and not config.weights and (config.freeze or config.head_only):
        given = "encoder.head_only=true" if config.head_only else f"encoder.freeze={config.freeze}"
        raise UserError(
            f"encoder.weights is empty, but {given} would freeze random layers; give encoder.weights, or "
            f"leave {given.partition('=')[0]} out"
        )
    names = {"name": config.name, "num_classes": len(classes), "stem": config.stem, "class_names": classes}
    images = {"image_size": data.image_size, "mean": data.mean, "std": data.std}
    info = EncoderInfo.from_dict({**names, **images})
    encoder = build_encoder(experiment, info)
    if config.weights and load_weights:
        choice = config.which or None, config.classifier
        report = load_file(encoder, config.weights, config.name, config.stem, *choice, classes)
        say(f"weights from {config.weights}: {report}")
        if config.classifier == "keep" and not report.classes and data.class_order == "auto":
            require_known_order(config.weights, classes, "data.class_order=number or data.class_order=text")
    if config.freeze or config.head_only:
        freeze(encoder, config.freeze, config.head_only)
    options = {key: value for key, value in experiment.method.items() if key != "name"}
    kept = copy.deepcopy(encoder.state_dict()) if config.classifier == "keep" else {}
    method = build_method(experiment.method["name"], encoder, options)
    for network in method.encoders().values() if kept else ():  # a method may have drawn its classifiers anew
        network.load_state_dict(kept)
    method.prepare(info)
    check_method(experiment, method)
    return (Averaged(method, **asdict(experiment.ema)) if experiment.ema.decay else method), info


def build_encoder(experiment: Experiment, info: EncoderInfo) -> nn.Module:
    """The encoder with random weights, for images of the sizes of training and testing."""
    config, data = experiment.encoder, experiment.data
    try:
        encoder = info.build(**({"drop_path_rate": config.drop_path} if config.drop_path else {}))
    except TypeError as error:
        raise UserError(
            f"encoder '{config.name}' does not take encoder.drop_path={config.drop_path}; set it to 0"
        ) from error
    if config.checkpointing:
        checkpoint_blocks(encoder, config.name)
    for key, size in {"data.image_size": data.image_size, "data.test_size": data.test_size}.items():
        if size:
            check_size(encoder, config.name, size, key)
    return encoder
