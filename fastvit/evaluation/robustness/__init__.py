"""Robustness of classifiers: ImageNet-C corruptions, ImageNet-A, -R, -Sketch and -V2."""
