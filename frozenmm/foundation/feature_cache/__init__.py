"""Frozen features on disk: computed once, read in every later epoch, run and process."""
from frozenmm.foundation.feature_cache.cache import CacheFull, FeatureCache
from frozenmm.foundation.feature_cache.cached_tower import CachedTower, image_key
from frozenmm.foundation.feature_cache.maintenance import prune_cache, verify_cache
from frozenmm.foundation.feature_cache.recipe import recipe_of

__all__ = ['CacheFull', 'CachedTower', 'FeatureCache', 'image_key', 'prune_cache', 'recipe_of', 'verify_cache']
