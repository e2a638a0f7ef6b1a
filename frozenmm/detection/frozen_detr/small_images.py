"""Two-stage detectors on pictures of fewer cells than they have queries, such as a narrow strip."""
from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any


def with_queries(detector: Any, count: int) -> Any:
    """The same detector, of the same parameters, with the first `count` of its queries."""
    fewer = copy.copy(detector)
    fewer.num_queries = count
    modules = dict(detector._modules)
    if modules.get('query_embedding') is not None:
        modules['query_embedding'] = SimpleNamespace(weight=detector.query_embedding.weight[:count])
    if modules.get('dn_query_generator') is not None:
        modules['dn_query_generator'] = copy.copy(detector.dn_query_generator)
        modules['dn_query_generator'].num_matching_queries = count
    fewer.__dict__['_modules'] = modules
    return fewer
