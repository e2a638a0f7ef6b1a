"""Frozen models: the contract, image and text towers, vocabularies, feature cache."""
from frozenmm.foundation.frozen_module import FrozenModule, FrozenNetwork, fingerprint, frozen_modules, shared_network
from frozenmm.foundation.image_tower import ImageTower, RawFeatures, TowerInput
from frozenmm.foundation.templates import TEMPLATES, resolve_templates
from frozenmm.foundation.text_embeddings import class_scores, ensemble
from frozenmm.foundation.text_tower import TextTower, Tokenizer
from frozenmm.foundation.vocabulary import Vocabulary, VocabularyClass, named_vocabularies

__all__ = ['FrozenModule', 'FrozenNetwork', 'ImageTower', 'RawFeatures', 'TEMPLATES', 'TextTower', 'Tokenizer',
           'TowerInput', 'Vocabulary', 'VocabularyClass', 'class_scores', 'ensemble', 'fingerprint', 'frozen_modules',
           'named_vocabularies', 'resolve_templates', 'shared_network']
