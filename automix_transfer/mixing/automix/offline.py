"""A Mix Block that was trained in another run makes the masks, frozen (the paper's future work iii)."""

from __future__ import annotations

import torch
from torch import Tensor

from automix_transfer.config import load_config
from automix_transfer.errors import UserError
from automix_transfer.mixing.automix.mix_block import MixBlock
from automix_transfer.mixing.automix.options import AutoMixOptions, check_options, is_removed
from automix_transfer.mixing.parts.teacher import Teacher
from automix_transfer.models.encoders import EncoderInfo, feature_layer
from automix_transfer.models.taps import feature_channels
from automix_transfer.models.weights_file import read_method_part


class TrainedMixBlock(MixBlock):
    """The Mix Block of an AutoMix checkpoint, with the encoder that it was trained with for its features.

    The network that learns may thus be any other, on other classes. A step costs 3 passes on mixed images, 3
    on clean ones, and 0.8 of the checkpoint's encoder. The method's own checkpoints do not hold that encoder:
    the recipe names its file.

    Args:
        path: a training checkpoint of ours with ``method.name=automix``.

    Raises:
        UserError: no such file, another method's, one without a Mix Block, or tensors that do not fit the
            options it was trained with.
    """

    def __init__(self, path: str) -> None:
        options, state = read_mix_block(path)
        teacher = Teacher.load(path, which="q" if options.pipeline == "joint" else "k")
        layer = feature_layer(teacher.network, options.feature_layer)
        super().__init__(feature_channels(teacher.network, layer), options)
        self.teacher, self.layer = teacher, layer
        try:
            self.load_state_dict(state)
        except RuntimeError as error:
            raise UserError(
                f"the Mix Block in {path} does not fit its own options; the file is damaged"
            ) from error
        if not all(torch.isfinite(value).all() for value in state.values()):
            raise UserError(
                f"the Mix Block in {path} has NaN or infinite weights; take an earlier checkpoint"
            )
        self.requires_grad_(False)

    def features(self, images: Tensor, info: EncoderInfo | None) -> Tensor:
        """Feature maps (N, C, h, w) of images (N, 3, H, W), normalised as ``info`` says (None: as in the run
        that trained the block)."""
        return self.teacher.feature_maps(self.teacher.inputs(images, info, None), self.layer)


def read_mix_block(path: str) -> tuple[AutoMixOptions, dict[str, Tensor]]:
    """The options and the Mix Block's tensors of an AutoMix checkpoint."""
    method, state = read_method_part(path, "mix_block.")
    given = f"method.mix_block_weights={path}"
    if method.get("name") != "automix":
        raise UserError(f"{given} is of method '{method.get('name')}'; give last.pt of a run of automix")
    if not state:
        raise UserError(f"{given} was trained without a Mix Block (method.mask={method.get('mask')})")
    if method.get("mix_block_weights"):
        raise UserError(f"{given} took its Mix Block from {method['mix_block_weights']}; give that file")
    options = {key: value for key, value in method.items() if key != "name" and not is_removed(key, value)}
    try:
        read = load_config(AutoMixOptions, values=options, section="method")
        check_options(read)
    except UserError as error:
        raise UserError(f"{given} is damaged or of another version ({error}); give another one") from error
    return read, state
