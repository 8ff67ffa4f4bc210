"""What a network is worth beyond its top-1: calibration, attacks, corruption, mixed samples, classes.

`automix-transfer evaluate` measures any classifier on any folder of images.
"""
