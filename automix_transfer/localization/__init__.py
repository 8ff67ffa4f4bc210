"""Weakly supervised localization: class maps, boxes at every threshold, MaxBoxAcc and MaxBoxAccV2 (Table 8), PxAP for masks."""

from automix_transfer.localization.boxes import iou_curve
from automix_transfer.localization.metrics import MaxBoxAcc, MaxBoxAccV2
from automix_transfer.localization.pxap import PxAP

__all__ = ["MaxBoxAcc", "MaxBoxAccV2", "PxAP", "iou_curve"]
