"""Trained weights into a model, all of them or none: a checkpoint of another model is refused, never loaded in part."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from frozenmm.compat.checkpoint import load_checkpoint_file
from frozenmm.errors import UserError


def load_weights(model: nn.Module, weights: str | Path, *, trusted: bool = False) -> dict:
    """Load the trained part of a model; returns what the checkpoint says about itself.

    Args:
        model: gets the weights.
        weights: the checkpoint's file.
        trusted: open a checkpoint that holds pickled objects. It could run code of its author.

    Raises:
        UserError: no such file, an unsafe or damaged one, or one of another model; the text names what differs.
    """
    content = load_checkpoint_file(weights, trusted=trusted)
    load_state(model, content.get('state_dict', content), weights)
    meta = content.get('meta', {})
    return dict(meta) if isinstance(meta, Mapping) else {}


def load_state(model: nn.Module, state: object, source: str | Path) -> None:
    """Load weights by name.

    Args:
        model: gets them.
        state: tensors by key, every one that the model has and no other.
        source: where they come from, for the error.

    Raises:
        UserError: keys or shapes differ.
    """
    if not isinstance(state, Mapping):
        raise UserError(f'{source} holds a {type(state).__name__} as state_dict, no tensors by name; is it a '
                        'checkpoint?')
    try:
        model.load_state_dict(dict(state))
    except UserError:
        raise
    except (RuntimeError, AttributeError, TypeError) as error:  # the last two: values that are no tensors
        lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
        raise UserError(f'{source} does not fit the model: {lines[0][:300] if lines else error}; is it the checkpoint '
                        'of another config?') from error


class CheckpointOfModelHook(Hook):
    """Refuses a checkpoint to start from that has nothing for the model; MMEngine would warn and train from scratch.

    Args:
        source: the checkpoint's file, for the error.
    """

    priority = 'LOWEST'  # after hooks that change what is loaded, such as the EMA hook

    def __init__(self, source: str | Path) -> None:
        self.source = source

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare what was read with the model.

        Raises:
            UserError: none of its weights has the name and shape of one of the model's.
        """
        own = self.model(runner).state_dict()
        state = self.state(checkpoint)
        if not any(isinstance(value, Tensor) and key in own and getattr(own[key], 'shape', None) == value.shape
                   for key, value in state.items()):
            raise UserError(f'{self.source} has no weights of this model: none of its {len(state)} entries has name '
                            'and shape of one; is it the checkpoint of another config?')

    def model(self, runner: Runner) -> nn.Module:
        """The model without its wrappers."""
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        return model

    def state(self, checkpoint: dict) -> dict[str, Tensor]:
        """The weights of a checkpoint by their names in the model.

        Raises:
            UserError: it holds none.
        """
        state = checkpoint.get('state_dict', checkpoint)
        if not isinstance(state, Mapping):
            raise UserError(f'{self.source} holds a {type(state).__name__} as state_dict, no tensors by name; is it a '
                            'checkpoint?')
        return {str(key).removeprefix('module.'): value for key, value in state.items()}


class WholeCheckpointHook(CheckpointOfModelHook):
    """Refuses a checkpoint that does not fit the whole model; MMEngine would warn and go on with what fits."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare what was read with the model.

        Raises:
            UserError: see `load_state`.
        """
        load_state(self.model(runner), self.state(checkpoint), self.source)
