"""EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excitation, with ReLU6, stem and head as they are.

Tan, Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (ICML 2019); the variant was
published by the same group in 2020, with weights trained on ImageNet. Its convolutions pad as TensorFlow's "same" does:
where the padding is odd, the larger half is right and below.
"""

from __future__ import annotations

import re

from torch import Tensor, nn
from torch.nn import functional

DIM = 1280
EPSILON = 1e-3
"""Of the batch normalisations, as the published weights were trained."""
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
"""Expansion, channels, blocks, stride of the first, kernel."""
PUBLISHED_NAMES = (
    (r"^_conv_stem\.", "stem.conv."),
    (r"^_bn0\.", "stem.norm."),
    (r"^_conv_head\.", "head.conv."),
    (r"^_bn1\.", "head.norm."),
    (r"^_fc\.", "classifier."),
    (r"\._expand_conv\.", ".expand.conv."),
    (r"\._bn0\.", ".expand.norm."),
    (r"\._depthwise_conv\.", ".depthwise.conv."),
    (r"\._bn1\.", ".depthwise.norm."),
    (r"\._project_conv\.", ".project.conv."),
    (r"\._bn2\.", ".project.norm."),
    (r"^_blocks\.", "blocks."),
)
"""How the published file names what is named otherwise here."""


def renamed(name: str) -> str:
    """A name of the published file as this module's."""
    for pattern, replacement in PUBLISHED_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


class _Convolution(nn.Module):
    """A convolution with "same" padding, its normalisation, and ReLU6 unless it is linear."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1, *, linear: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(after, eps=EPSILON)
        self.kernel, self.stride, self.linear = kernel, stride, linear

    def forward(self, images: Tensor) -> Tensor:
        padding: list[int] = []
        for size in (images.shape[3], images.shape[2]):
            outputs = -(-size // self.stride)
            missing = max(0, (outputs - 1) * self.stride + self.kernel - size)
            padding += [missing // 2, missing - missing // 2]
        values: Tensor = self.norm(self.conv(functional.pad(images, padding)))
        return values if self.linear else functional.relu6(values)


class _Block(nn.Module):
    """An inverted residual with a linear bottleneck (Sandler et al., "MobileNetV2", CVPR 2018)."""

    def __init__(self, before: int, after: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = before * expansion
        self.expand = _Convolution(before, inner, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _Convolution(inner, inner, kernel, stride, groups=inner)
        self.project = _Convolution(inner, after, 1, linear=True)
        self.residual = before == after and stride == 1

    def forward(self, images: Tensor) -> Tensor:
        values: Tensor = self.project(self.depthwise(self.expand(images)))
        return values + images if self.residual else values


class EfficientNetLite0(nn.Module):
    """(N, 3, Y, X) normalised images to (N, 1000) classes, or, without its classifier, to (N, 1280) vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Convolution(3, 32, 3, 2)
        blocks, before = [], 32
        for expansion, after, count, stride, kernel in STAGES:
            for place in range(count):
                blocks.append(_Block(before, after, expansion, kernel, stride if place == 0 else 1))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.head = _Convolution(before, DIM, 1)
        self.classifier: nn.Module = nn.Linear(DIM, 1000)

    def forward(self, images: Tensor) -> Tensor:
        values: Tensor = self.head(self.blocks(self.stem(images))).mean(dim=(2, 3))
        classes: Tensor = self.classifier(values)
        return classes
