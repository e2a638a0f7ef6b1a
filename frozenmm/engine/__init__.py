"""Hooks, parameter rules and runners."""
from frozenmm.engine.accelerate_hook import AccelerateHook

__all__ = ['AccelerateHook']
