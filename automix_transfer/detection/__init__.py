"""Detectron2 glue. Importing this package makes Detectron2 importable on today's packages and registers our
backbones and ROI heads.

So a model trained here can be loaded by Detectron2's own `DefaultPredictor` after ``import
automix_transfer.detection``. Where Detectron2 is not installed the import does nothing, and
`compatibility.require` says what to do.
"""

import os

from automix_transfer.detection import compatibility
from automix_transfer.io import expand_home

# Detectron2 reads it when it is imported, and takes ~ for the name of a folder.
if "DETECTRON2_DATASETS" in os.environ:
    os.environ["DETECTRON2_DATASETS"] = str(expand_home(os.environ["DETECTRON2_DATASETS"]))

if compatibility.available():
    compatibility.apply()
    # They register what configs name.
    from automix_transfer.detection.networks import backbone, roi_heads, timm_backbone  # noqa: F401
