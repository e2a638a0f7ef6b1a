"""The converters by name, and one run of a converter from file to file."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from frozenmm.compat.checkpoint import load_checkpoint_file, save_checkpoint_file
from frozenmm.convert.clip import convert_clip
from frozenmm.convert.co_dino import convert_co_dino
from frozenmm.convert.dinov2 import convert_dinov2
from frozenmm.convert.fc_clip import convert_fc_clip
from frozenmm.convert.frozen_detr import convert_frozen_detr
from frozenmm.convert.frozen_seg import convert_frozen_seg
from frozenmm.convert.fusioner import convert_fusioner
from frozenmm.convert.identify import weights_of
from frozenmm.convert.pmt import convert_pmt
from frozenmm.convert.rename import ConversionReport
from frozenmm.foundation.lookup import lookup
from frozenmm.version import __version__

Converter = Callable[..., tuple[dict[str, Tensor], ConversionReport]]
CONVERTERS: dict[str, Converter] = dict(frozen_detr=convert_frozen_detr, co_dino=convert_co_dino,
                                        fc_clip=convert_fc_clip, frozen_seg=convert_frozen_seg,
                                        fusioner=convert_fusioner, clip=convert_clip, dinov2=convert_dinov2,
                                        pmt=convert_pmt)


def convert_file(system: str, source: str | Path, target: str | Path, **options: object) -> ConversionReport:
    """Convert a checkpoint file.

    Args:
        system: name of a converter.
        source: official file.
        target: `.safetensors` file to write; complete or not at all.
        options: of the converter, e.g. `classes=80` for `frozen_detr`.

    Raises:
        UnknownName: unknown system.
        UserError: a file of another system (which is named), or what the converter refuses.
    """
    convert = CONVERTERS[lookup(system, CONVERTERS, 'converter')]
    state, report = convert(weights_of(load_checkpoint_file(source)), **options)
    save_checkpoint_file(target, state, dict(converted_from=Path(source).name, system=system,
                                             options={key: str(value) if isinstance(value, Path) else value
                                                      for key, value in options.items()},
                                             frozenmm=__version__, report=str(report)))
    return report
