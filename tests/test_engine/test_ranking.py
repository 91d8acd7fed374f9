"""Which way metrics are better, as MMEngine says it."""

import pytest

from mutualnet_mm.engine.ranking import better_direction


@pytest.mark.parametrize(
    'name, hook, expected',
    [
        ('accuracy/top1', dict(), 'greater'),
        ('coco/bbox_mAP', dict(), 'greater'),
        ('val/loss', dict(), 'less'),
        ('age/mae', dict(), None),
        ('age/mae', dict(less_keys=['mae']), 'less'),
        ('age/mae', dict(save_best='age/mae', rule='less'), 'less'),
        ('val/loss', dict(save_best='val/loss', rule='greater'), 'greater'),
        # Rules of others tell nothing, but that of the first.
        ('age/mae', dict(save_best='val/loss', rule='less'), None),
        ('age/mae', dict(save_best='auto', rule='less'), None),
        ('first', dict(save_best='auto', rule='less'), 'less'),
        ('b', dict(save_best=['a', 'b'], rule=['less', 'greater']), 'greater'),
        ('b', dict(save_best=['a', 'b'], rule='less'), 'less'),
    ],
)
def test_directions(name, hook, expected):
    hook = dict(hook, type='CheckpointHook', interval=2)
    assert better_direction(hook, name, 'first') == expected
