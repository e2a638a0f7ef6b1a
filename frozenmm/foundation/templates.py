"""Prompt templates: sentences around a class name, whose text vectors are averaged."""
from __future__ import annotations

from collections.abc import Sequence

from frozenmm.errors import UserError, WrongKind
from frozenmm.foundation.lookup import lookup

VILD14 = (
    'a photo of a {}.', 'This is a photo of a {}', 'There is a {} in the scene', 'There is the {} in the scene',
    'a photo of a {} in the scene', 'a photo of a small {}.', 'a photo of a medium {}.', 'a photo of a large {}.',
    'This is a photo of a small {}.', 'This is a photo of a medium {}.', 'This is a photo of a large {}.',
    'There is a small {} in the scene.', 'There is a medium {} in the scene.', 'There is a large {} in the scene.',
)
"""ViLD's templates as FC-CLIP uses them, full stops included and omitted as there."""

IMAGENET80 = (
    'a bad photo of a {}.', 'a photo of many {}.', 'a sculpture of a {}.', 'a photo of the hard to see {}.',
    'a low resolution photo of the {}.', 'a rendering of a {}.', 'graffiti of a {}.', 'a bad photo of the {}.',
    'a cropped photo of the {}.', 'a tattoo of a {}.', 'the embroidered {}.', 'a photo of a hard to see {}.',
    'a bright photo of a {}.', 'a photo of a clean {}.', 'a photo of a dirty {}.', 'a dark photo of the {}.',
    'a drawing of a {}.', 'a photo of my {}.', 'the plastic {}.', 'a photo of the cool {}.',
    'a close-up photo of a {}.', 'a black and white photo of the {}.', 'a painting of the {}.', 'a painting of a {}.',
    'a pixelated photo of the {}.', 'a sculpture of the {}.', 'a bright photo of the {}.', 'a cropped photo of a {}.',
    'a plastic {}.', 'a photo of the dirty {}.', 'a jpeg corrupted photo of a {}.', 'a blurry photo of the {}.',
    'a photo of the {}.', 'a good photo of the {}.', 'a rendering of the {}.', 'a {} in a video game.',
    'a photo of one {}.', 'a doodle of a {}.', 'a close-up photo of the {}.', 'a photo of a {}.', 'the origami {}.',
    'the {} in a video game.', 'a sketch of a {}.', 'a doodle of the {}.', 'a origami {}.',
    'a low resolution photo of a {}.', 'the toy {}.', 'a rendition of the {}.', 'a photo of the clean {}.',
    'a photo of a large {}.', 'a rendition of a {}.', 'a photo of a nice {}.', 'a photo of a weird {}.',
    'a blurry photo of a {}.', 'a cartoon {}.', 'art of a {}.', 'a sketch of the {}.', 'a embroidered {}.',
    'a pixelated photo of a {}.', 'itap of the {}.', 'a jpeg corrupted photo of the {}.', 'a good photo of a {}.',
    'a plushie {}.', 'a photo of the nice {}.', 'a photo of the small {}.', 'a photo of the weird {}.',
    'the cartoon {}.', 'art of the {}.', 'a drawing of the {}.', 'a photo of the large {}.',
    'a black and white photo of a {}.', 'the plushie {}.', 'a dark photo of a {}.', 'itap of a {}.',
    'graffiti of the {}.', 'a toy {}.', 'itap of my {}.', 'a photo of a cool {}.', 'a photo of a small {}.',
    'a tattoo of the {}.',
)
"""The 80 ImageNet prompts of the CLIP paper's release, in its order."""


def _fusioner32() -> tuple[str, ...]:
    """Fusioner's 32 prompts, in its order, from the grammar they follow."""
    plain = ('a bad photo of the {}', 'a photo of the large {}', 'a photo of the small {}', 'a cropped photo of a {}')
    ended = [f'{prompt}.' for prompt in plain]
    photos = [' '.join(f'This is a {kind} photo of a {size} {{}}'.split())
              for kind in ('', 'masked', 'cropped') for size in ('', 'small', 'medium', 'large')]
    scenes = ['A photo of a {}', *plain, 'a photo of a masked {}']
    plainly = ('There is a {}', 'There is the {}', 'This is a {}', 'This is the {}', 'This is one {}')
    scenes += plainly
    scenes += [prompt.replace('{}', 'masked {}') for prompt in plainly]
    return (*ended, *photos, *(f'{prompt} in the scene' for prompt in scenes))


TEMPLATES: dict[str, tuple[str, ...]] = {
    'none': ('{}',),
    'simple': ('a photo of a {}.',),
    'vild14': VILD14,
    'imagenet80': IMAGENET80,
    'maskclip85': (*IMAGENET80, *(f'{start} {{}} in the scene.' for start in (
        'there is a', 'there is the', 'this is a', 'this is the', 'this is one'))),
    'fusioner32': _fusioner32(),
}
"""Named sets: the bare word, one sentence, FC-CLIP and FrozenSeg, CLIP and Frozen-DETR's LVIS, MaskCLIP, Fusioner."""


def resolve_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """The templates of a named set, or one's own, checked.

    Args:
        templates: a key of `TEMPLATES`, or sentences with `{}` once each, where the class name goes.

    Raises:
        UserError: unknown set, no template, or a template without exactly one `{}`; the text names it.

    >>> fill('cat', resolve_templates(['a {}', 'the {}']))
    ['a cat', 'the cat']
    """
    if isinstance(templates, str):
        if '{}' in templates:
            raise UserError(f'templates must be a named set of {list(TEMPLATES)} or a list of sentences, got the '
                             f'sentence {templates!r}; put it in a list')
        return TEMPLATES[lookup(templates, TEMPLATES, 'template set')]
    if not isinstance(templates, Sequence):
        raise WrongKind(f'templates must be a named set of {list(TEMPLATES)} or a list of sentences, got '
                        f'{type(templates).__name__}')
    sentences = tuple(templates)
    if not sentences:
        raise UserError('no templates given; use templates=\'none\' for class names alone')
    for place, sentence in enumerate(sentences):
        if not isinstance(sentence, str) or sentence.count('{}') != 1:
            raise UserError(f'template {place} must be a sentence with {{}} exactly once, got {sentence!r}')
    return sentences


def fill(word: str, templates: Sequence[str]) -> list[str]:
    """The prompts of one word, in the order of the templates."""
    return [template.replace('{}', word) for template in templates]
