"""The trunk that FC-CLIP and FrozenSeg share: pixel decoder, masked-attention decoder, matching and losses."""
