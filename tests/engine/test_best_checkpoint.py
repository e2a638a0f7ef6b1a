from __future__ import annotations

import pytest

from frozenmm.engine.checkpoints import main_metric


@pytest.mark.parametrize(('names', 'found'), [
    (['coco/bbox_mAP_50', 'coco/bbox_mAP', 'coco/segm_mAP'], ('coco/segm_mAP', 'greater')),
    (['coco/bbox_mAP', 'coco/bbox_mAP_50'], ('coco/bbox_mAP', 'greater')),
    (['panoptic/SQ', 'panoptic/PQ_seen', 'panoptic/PQ', 'semantic/mIoU'], ('panoptic/PQ', 'greater')),
    (['aAcc', 'mIoU', 'mAcc'], ('mIoU', 'greater')),
    (['semantic/fwIoU', 'semantic/mIoU_seen', 'semantic/mIoU'], ('semantic/mIoU', 'greater')),
    (['depth/lwlr/delta1', 'depth/lwlr/abs_rel', 'depth/lwlr/rmse'], ('depth/lwlr/abs_rel', 'less')),
    (['pascal_voc/mAP', 'pascal_voc/AP50'], ('pascal_voc/mAP', 'greater')),
    (['AR@100'], ('AR@100', 'greater')),
    (['something'], None), ([], None)])
def test_the_metric_that_a_task_is_judged_by_is_found_with_its_direction(names, found):
    assert main_metric(dict.fromkeys(names, 1.0)) == found
