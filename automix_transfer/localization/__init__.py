"""Weakly supervised localization: class activation maps, boxes at every threshold, MaxBoxAcc and MaxBoxAccV2 (Table 8)."""

from automix_transfer.localization.boxes import iou_curve
from automix_transfer.localization.metrics import MaxBoxAcc, MaxBoxAccV2

__all__ = ["MaxBoxAcc", "MaxBoxAccV2", "iou_curve"]
