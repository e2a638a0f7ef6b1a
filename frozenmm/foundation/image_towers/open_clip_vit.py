"""open_clip's own network for ViTs with options that CLIP's does not have: attentional or mean pool, layer scale."""
from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn


class OpenCLIPViT(nn.Module):
    """Reads patches and embedding off open_clip's `VisionTransformer`, at the size that it was built for.

    Its parameters stand under this module's own names, so that the key names are open_clip's.

    Args:
        visual: the network.
    """

    fixed_size = True
    token_channels = None

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self._read = cast(Any, visual).forward_intermediates
        self._modules = visual._modules
        self._parameters = visual._parameters
        self._buffers = visual._buffers
        network: Any = visual
        self.output_dim = int(network.output_dim)
        self.channels = {'patch': int(network.conv1.out_channels)}
        self.strides = {'patch': int(network.patch_size[0])}

    def forward(self, pixels: Tensor, num_tokens: int = 1,
                patch_output: str = 'raw') -> tuple[dict[str, Tensor], None, Tensor]:
        """Map `'patch'` of the last block, no image tokens, and the image's embedding (B, output_dim)."""
        result = self._read(pixels, indices=1, normalize_intermediates=patch_output == 'normed')
        return {'patch': result['image_intermediates'][-1]}, None, result['image_features']
