"""Where SAM's masks come from, and how they take part in the semantic result."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from frozenmm.deprecation import renamed_arguments
from frozenmm.errors import UserError
from frozenmm.segmentation.frozen_seg.sam_masks import LARGEST
from frozenmm.segmentation.options import built


@dataclass(frozen=True)
class VoteOptions:
    """SAM's masks in the results of a model.

    Attributes:
        folder: of prepared masks, see `SAMMaskFolder`; None: masks come with the data samples, if at all.
        choice: of the folder's masks, `'largest'` or `'best'`.
        count: of the folder's masks, at most.
        automatic: options of `AutomaticMasks` (`prompter`, `points_per_side`, ...), which then makes the masks of
            images that bring none; exclusive with a folder.
        epsilon: share of SAM's masks for unseen classes.
        threshold: a SAM mask votes only if some unseen class scores above this.
        compat: as the official code does. None scales the queries' share of unseen classes down even where no SAM mask
            votes, as officially (False does not), and follows the classifier's `compat` otherwise.
        pad_before_pool: the official mapping of SAM masks to CLIP's map, which squeezes them; None: as `compat`.
        postprocess_twice: the official second post-processing of the proposals for recall, which shows the top left
            part only where the output is larger than the network's input; None: as `compat`.

    Raises:
        UserError: both a folder and automatic masks.
    """

    folder: str | None = None
    choice: str = 'largest'
    count: int = LARGEST
    automatic: Mapping[str, object] | None = None
    epsilon: float = 0.2
    threshold: float = 0.5
    compat: bool | None = None
    pad_before_pool: bool | None = None
    postprocess_twice: bool | None = None

    def __post_init__(self) -> None:
        if self.folder is not None and self.automatic is not None:
            raise UserError('SAM\'s masks come from a folder (`sam_masks.folder`) or are made at test time '
                            '(`sam_masks.automatic`), not both; leave one out')

    @classmethod
    def read(cls, options: Mapping[str, object] | None) -> VoteOptions:
        """The options of a config; those of frozenmm 0.1 (`proposals`, `scale_always`) are understood.

        >>> VoteOptions.read(dict(epsilon=0.3)).epsilon
        0.3
        """
        options = dict(options or {})
        nested = options.pop('proposals', None)
        if isinstance(nested, Mapping):
            options = {**options, **nested}
        return built(renamed_arguments(removed_in='0.3', scale_always=('compat', {True: None}))(cls), options)
