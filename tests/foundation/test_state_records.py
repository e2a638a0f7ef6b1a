from __future__ import annotations

import pytest
import torch

from frozenmm.errors import UnreadableFile
from frozenmm.foundation.state_records import as_record, read_record


def test_what_is_written_is_read_whatever_its_padding():
    content = dict(compat='valid_masks', classes=[['größe', '杯'], None])
    record = as_record(content, multiple=100)
    assert record.dtype == torch.uint8 and len(record) % 100 == 0
    assert read_record(record, 'x') == read_record(as_record(content), 'x') == content


@pytest.mark.parametrize('record', [torch.zeros(0, dtype=torch.uint8), torch.full((3, ), 255, dtype=torch.uint8),
                                    torch.tensor([49], dtype=torch.uint8), torch.zeros(2, 2), torch.tensor([1.5])])
def test_garbage_is_named_by_its_key(record):
    with pytest.raises(UnreadableFile, match=r"the entry 'a.compat_record' of the checkpoint cannot be") as caught:
        read_record(record, 'a.compat_record')
    assert 'object' not in str(caught.value)
