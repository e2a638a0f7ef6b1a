"""The methods, each as what it changes: attention of the last block, what is kept of it, and how windows are joined."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from frozenmm.errors import UserError
from frozenmm.foundation.lookup import lookup
from frozenmm.segmentation.dense_clip.aggregation import SamAggregation, SelfAggregation
from frozenmm.segmentation.dense_clip.attention import LastAttention, attention_of
from frozenmm.segmentation.dense_clip.trunk import Arithmetic, LastBlock
from frozenmm.segmentation.options import built

SPLICES = ('logits', 'features')
PADDINGS = ('none', 'corner', 'both', 'fit')
AGGREGATES = {'sam': SamAggregation, 'self': SelfAggregation}


@dataclass(frozen=True)
class Method:
    """A training-free method.

    Attributes:
        attention: of the last block, see `attention_of`.
        residual, ffn, class_token: see `LastBlock`.
        splice: windows are joined as `'logits'` (cosines) or as `'features'` of the last block, before the final norm.
        aggregate: `dict(type='sam'|'self', ...)` with options of `SamAggregation` or `SelfAggregation`, after features
            are joined; None: no second aggregation.
        padding: of a window to whole patches: `'none'` (pixels beyond the last patch are not seen and the map is
            stretched), `'corner'` (zeros below and to the right), `'both'` (zeros on all sides); `'fit'` resizes the
            image itself.
        multiple: of the sides of a padded window or fitted image; None: the least that suits all towers.
        two_resizes: cosines of a whole image go to its pixels first and then to the original size (NACLIP).
        drop_absent: threshold of MaskCLIP's prompt denoising; 0 is off.
        smooth_keys: threshold of MaskCLIP's key smoothing; 0 is off.
        compat: as the official code where it has a defect; see the README of `configs/dense_clip`.
    """

    attention: str | Mapping[str, Any] | LastAttention = 'plain'
    residual: bool = True
    ffn: bool = True
    class_token: bool = True
    splice: str = 'logits'
    aggregate: Mapping[str, Any] | None = None
    padding: str = 'none'
    multiple: int | None = None
    two_resizes: bool = False
    drop_absent: float = 0.0
    smooth_keys: float = 0.0
    compat: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (('splice', SPLICES), ('padding', PADDINGS)):
            if getattr(self, name) not in allowed:
                raise UserError(f'method.{name} must be one of {list(allowed)}, got {getattr(self, name)!r}')
        if self.splice == 'features' and self.padding != 'fit':
            raise UserError("splice='features' needs windows of whole cells: padding='fit'")
        if self.splice == 'logits' and (self.aggregate is not None or self.padding == 'fit'):
            raise UserError("aggregate and padding='fit' need splice='features'")
        if self.smooth_keys and self.attention != 'value':
            raise UserError("smooth_keys is MaskCLIP's: it needs attention='value'")

    def last_block(self) -> LastBlock:
        """How the last block runs."""
        options = self.attention
        if self.compat and not isinstance(options, LastAttention):
            options = dict(type=options) if isinstance(options, str) else dict(options)
            if options.get('type') == 'proxy':
                options.setdefault('compat', True)
        return LastBlock(attention_of(options), self.residual, self.ffn, self.class_token)

    def arithmetic(self) -> Arithmetic:
        """What changes in the network itself."""
        is_maskclip = self.attention == 'value'
        official = self.compat and is_maskclip
        return Arithmetic('size' if is_maskclip else 'factor', same_count=self.compat, gelu=official,
                        norm_eps=1e-6 if official else None)

    def aggregation(self) -> SamAggregation | SelfAggregation | None:
        """The second aggregation."""
        if self.aggregate is None:
            return None
        options = dict(self.aggregate)
        kind = AGGREGATES[lookup(str(options.pop('type', None)), AGGREGATES, 'aggregation')]
        return built(kind, {'compat': self.compat, **options})


METHODS: dict[str, dict[str, Any]] = {
    'clip': dict(),
    'maskclip': dict(attention='value', padding='corner'),
    'sclip': dict(attention='self_self'),
    'naclip': dict(attention='neighbour', residual=False, ffn=False, two_resizes=True),
    'proxyclip': dict(attention='proxy', residual=False, ffn=False, class_token=False, padding='both'),
    'trident': dict(attention=dict(type='proxy', shared_mean=True), residual=False, ffn=False, class_token=False,
                    splice='features', padding='fit', aggregate=dict(type='sam')),
    'radseg': dict(attention='recursive', splice='features', padding='fit', aggregate=dict(type='self')),
}
"""The methods as published."""


def method_of(options: str | Mapping[str, Any] | Method) -> Method:
    """A method by name, or `dict(name=..., ...)` with what differs from it, or `dict(...)` of `Method`'s own.

    Raises:
        UserError: unknown name or option; the text names the nearest ones.
    """
    if isinstance(options, Method):
        return options
    options = dict(name=options) if isinstance(options, str) else dict(options)
    preset: dict[str, Any] = {}
    if 'name' in options:
        preset = METHODS[lookup(str(options.pop('name')), METHODS, 'training-free method')]
    for key in ('attention', 'aggregate'):
        given, own = options.get(key), preset.get(key)
        if isinstance(given, Mapping) and own is not None and 'type' not in given:
            options[key] = {**(dict(type=own) if isinstance(own, str) else own), **given}
    return built(Method, {**preset, **options})

