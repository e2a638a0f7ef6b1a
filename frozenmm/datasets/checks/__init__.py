"""Checks of other people's data: what survives reading, and what would be learnt wrongly."""
from frozenmm.datasets.checks.coco_boxes import read_boxes, tidy_boxes
from frozenmm.datasets.checks.findings import Finding, Survey
from frozenmm.datasets.checks.samples import check_samples

__all__ = ['Finding', 'Survey', 'check_samples', 'read_boxes', 'tidy_boxes']
