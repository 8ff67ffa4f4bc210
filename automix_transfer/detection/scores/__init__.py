"""AP by the rules of VOC and COCO."""
