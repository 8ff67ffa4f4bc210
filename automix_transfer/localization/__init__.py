"""Weakly supervised localization: class maps, boxes at every threshold, MaxBoxAcc(V2) (Table 8), PxAP."""

from automix_transfer.localization.boxes.iou_curve import iou_curve
from automix_transfer.localization.scores.metrics import MaxBoxAcc, MaxBoxAccV2
from automix_transfer.localization.scores.pxap import PxAP

__all__ = ["MaxBoxAcc", "MaxBoxAccV2", "PxAP", "iou_curve"]
