"""A small vision transformer: LayerNorm, so nothing folds into its linear layers."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwd.errors import UsageError
from qwd.train.models.info import described

WIDTH, DEPTH, HEADS, HIDDEN = 96, 6, 4, 192


class Attention(nn.Module):
    """Multi-head self-attention over tokens: [N, T, WIDTH] -> [N, T, WIDTH]."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        # A bias of the keys adds the same to every score of a query; softmax cancels it.
        self.key = nn.Linear(WIDTH, WIDTH, bias=False)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(2, (HEADS, WIDTH // HEADS)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.output(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm attention and perceptron, each added to its input: [N, T, WIDTH] -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.norm2 = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches with learned positions, blocks, the mean over tokens: [N, C, H, H] -> [N, K]."""

    def __init__(self, in_channels: int, image_size: int, num_classes: int):
        super().__init__()
        patch = patch_size(image_size)
        tokens = (image_size // patch) ** 2
        self.patches = nn.Conv2d(in_channels, WIDTH, patch, stride=patch)
        self.positions = nn.Parameter(torch.empty(1, tokens, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, num_classes)
        self._initialize()

    def _initialize(self) -> None:
        """Truncated normal of standard deviation 0.02, the customary choice; biases are 0."""
        nn.init.trunc_normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(tokens)).mean(1))


def patch_size(image_size: int) -> int:
    """The side of the square patches: 2 up to 16 pixels, 4 at 28 to 36, 8 at 64, 16 at 224.

    The smallest divisor of ``image_size`` above 1 that leaves at most 9 patches a side, or patches
    of 16 pixels where those are more, and at least 2. Raises UsageError where there is none.
    """
    most = max(9, image_size // 16)
    for patch in range(2, image_size // 2 + 1):
        if image_size % patch == 0 and image_size // patch <= most:
            return patch
    raise UsageError(
        f"--image-size {image_size}: cannot be cut into equal patches for vit; an even size can, "
        f"for example {image_size + 1}"
    )


@described(parameters=460_138, source="Dosovitskiy et al. 2021")
def vit(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    """Vision transformer of six pre-norm blocks, width 96, 4 heads, mean pooling.

    [N, in_channels, image_size, image_size] -> [N, num_classes]. Raises UsageError where
    ``image_size`` cannot be cut into patches, see `patch_size`.
    """
    return ViT(in_channels, image_size, num_classes)
