"""Stock layers that regularise, with and without it."""

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mutualnet_mm.models.regularization import unregularized

CASES = {
    'drop path': dict(
        type='ResNet', depth=18, base_channels=8, drop_path_rate=0.9
    ),
    'functional dropout': dict(
        type='DenseNet',
        arch=dict(growth_rate=8, depths=[2, 2], init_channels=8),
        drop_rate=0.9,
    ),
    'dropout of attention': dict(
        type='SwinTransformer',
        arch=dict(embed_dims=16, depths=[1, 1], num_heads=[1, 2]),
        out_indices=(1,),
        stage_cfgs=dict(block_cfgs=dict(attn_cfgs=dict(attn_drop=0.9))),
        drop_path_rate=0.0,
    ),
}


@pytest.mark.parametrize('name', CASES)
def test_stock_backbones_draw_nothing(enter_scope, name):
    enter_scope('mmpretrain')
    net = MODELS.build(CASES[name])
    net.train()  # not chained: stock ``train`` may return nothing
    before = {n: m.training for n, m in net.named_modules()}
    images = torch.randn(2, 3, 64, 64)

    def last():
        return net(images)[-1]

    assert not torch.equal(last(), last())
    with unregularized(net):
        assert torch.equal(last(), last())
        norms = [m for m in net.modules() if hasattr(m, 'running_mean')]
        assert all(m.training for m in norms)
    assert {n: m.training for n, m in net.named_modules()} == before
    assert not torch.equal(last(), last())


def test_layers_of_torch():
    net = nn.ModuleDict(
        dict(
            drop=nn.Dropout(0.5),
            attention=nn.MultiheadAttention(8, 2, dropout=0.5),
            loss=nn.CrossEntropyLoss(label_smoothing=0.2),
            frozen=nn.Dropout(0.5).eval(),
            other=nn.Dropout(0.0),
        )
    )
    x = torch.randn(4, 3, 8)
    with pytest.raises(MemoryError), unregularized(net):
        assert torch.equal(net['drop'](x), x)
        first, second = (net['attention'](x, x, x)[0] for _ in range(2))
        assert torch.equal(first, second)
        assert net['loss'].label_smoothing == 0
        assert net['other'].training
        raise MemoryError
    assert net['drop'].training and net['attention'].training
    assert net['loss'].label_smoothing == 0.2
    assert not net['frozen'].training
