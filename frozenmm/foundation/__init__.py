"""Frozen models: the contract, image and text towers, vocabularies, feature cache."""
from frozenmm.foundation.frozen_module import FrozenModule, FrozenNetwork, fingerprint, frozen_modules, shared_network
from frozenmm.foundation.image_tower import ImageTower, RawFeatures, TowerInput

__all__ = ['FrozenModule', 'FrozenNetwork', 'ImageTower', 'RawFeatures', 'TowerInput', 'fingerprint', 'frozen_modules',
           'shared_network']
