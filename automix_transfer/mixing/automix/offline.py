"""A Mix Block that was trained in another run makes the masks, frozen: the paper's future work iii, and what
its users ask for.

Masks come from the encoder that the block was trained with, up to its feature layer, so the network that
learns may be any other, of any size and architecture, on other classes. A step costs 3 passes for mixed
images, 3·clean_share for clean ones, and the 0.8 of the encoder that the block came with.
"""

from __future__ import annotations

import torch
from torch import Tensor

from automix_transfer.config import load_config
from automix_transfer.errors import UserError
from automix_transfer.mixing.automix.mix_block import MixBlock
from automix_transfer.mixing.automix.options import AutoMixOptions, check_options
from automix_transfer.mixing.parts.teacher import Teacher
from automix_transfer.models.encoders import EncoderInfo, feature_layer
from automix_transfer.models.taps import feature_channels
from automix_transfer.models.weights_file import read_method_part


class TrainedMixBlock:
    """The Mix Block and the feature network of an AutoMix checkpoint.

    The block becomes part of the method that uses it and so of its checkpoints; the network does not, as any
    `Teacher`: its file is named in the recipe.

    Args:
        path: a training checkpoint of ours with ``method.name=automix``.

    Raises:
        UserError: no such file, another method's, one without a Mix Block, or tensors that do not fit the
            options it was trained with.
    """

    def __init__(self, path: str) -> None:
        options, state = read_mix_block(path)
        which = options.features_from if options.pipeline == "momentum" else "q"
        self._teacher = Teacher(path, which=which)
        self.layer = feature_layer(self._teacher.network, options.feature_layer)
        self.mix_block = MixBlock.of(feature_channels(self._teacher.network, self.layer), options)
        try:
            self.mix_block.load_state_dict(state)
        except RuntimeError as error:
            raise UserError(
                f"the Mix Block in {path} does not fit the options that the file says it was trained with; "
                "the file is damaged, take another one"
            ) from error
        if not all(torch.isfinite(value).all() for value in state.values()):
            raise UserError(
                f"the Mix Block in {path} holds NaN or infinite weights; take a checkpoint from before the "
                "training diverged"
            )
        self.mix_block.requires_grad_(False)

    def features(self, images: Tensor, info: EncoderInfo | None) -> Tensor:
        """Feature maps (N, C, h, w) of images (N, 3, H, W), normalised as ``info`` says (None: as in the run
        that trained the block)."""
        return self._teacher.feature_maps(self._teacher.inputs(images, info, None), self.layer)


def read_mix_block(path: str) -> tuple[AutoMixOptions, dict[str, Tensor]]:
    """The options and the Mix Block's tensors of an AutoMix checkpoint."""
    method, state = read_method_part(path, "mix_block.")
    if method.get("name") != "automix":
        raise UserError(
            f"method.mix_block_weights={path} is of method '{method.get('name')}'; give last.pt of a run "
            "with "
            "method.name=automix"
        )
    if not state:
        raise UserError(
            f"method.mix_block_weights={path} was trained without a Mix Block "
            f"(method.mask={method.get('mask')}); "
            "give another one"
        )
    options = {key: value for key, value in method.items() if key != "name"}
    if options.get("mix_block_weights"):
        raise UserError(
            f"method.mix_block_weights={path} took its Mix Block from {options['mix_block_weights']}; give "
            "that file"
        )
    try:
        read = load_config(AutoMixOptions, values=options, section="method")
        check_options(read)
    except UserError as error:
        raise UserError(
            f"method.mix_block_weights={path} holds options that mean nothing here ({error}); it is damaged "
            "or of another "
            "version, give another one"
        ) from error
    return read, state
