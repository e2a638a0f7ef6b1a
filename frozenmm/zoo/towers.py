"""Official weights of frozen networks: names, addresses, licences; what can be fetched where there is a network."""
from __future__ import annotations

from pathlib import Path

from frozenmm.foundation.image_towers.clip import MODELS_BY_NAME
from frozenmm.foundation.image_towers.dinov2 import MODEL_NAMES, dinov2_model
from frozenmm.foundation.image_towers.sam import MOBILE_SAM_WEIGHTS, SAM_MODELS
from frozenmm.foundation.lookup import lookup
from frozenmm.foundation.weights import WeightFile, locate


def tower_files() -> dict[str, WeightFile]:
    """Published files by name: `clip:ViT-B/32`, `dinov2:dinov2_vits14`, `sam:vit_b`, `mobile_sam:vit_t`, ...

    timm and open_clip models have hundreds of names of their own; their towers fetch them by those.
    """
    files = {f'clip:{name}': model.weights for name, model in MODELS_BY_NAME.items()}
    for name in MODEL_NAMES:
        weights = dinov2_model(name)[2]
        if weights is not None:
            files[f'dinov2:{name}'] = weights
    files.update({f'sam:{name}': weights for name, (_, weights) in SAM_MODELS.items()})
    files['mobile_sam:vit_t'] = MOBILE_SAM_WEIGHTS
    return files


def fetch(name: str) -> Path:
    """The file of a frozen network in the cache folder, fetched first if it is not there.

    An interrupted download goes on where it stopped; the published hash is checked.

    Raises:
        ValueError: an unknown name (with the nearest ones), or a file with another hash.
        FileNotFoundError: no network; the text says which file, how large, where it comes from and where to put it.
    """
    files = tower_files()
    full = lookup(name, files, 'network')
    return locate(None, files[full], name=full)
