"""What a network is worth beyond its top-1: classes, calibration, attacks, corruption, mixed samples, the
health of masks.

`automix-transfer evaluate` measures any classifier on any folder of images.
"""
