"""Subnets with a width for each stage, in a table and deployed."""

import json

import torch
from mmengine.registry import MODELS

from mutualnet_mm.apis import AdaptiveModel, build_table, count_macs
from mutualnet_mm.models.static import static_model

SUBNETS = ['1.0x-32', '0.25-0.5-0.75-1.0x-16', '0.25x-16']
SPACE = dict(resolution=(32, 16), stages=4)


def test_a_table_of_stages(
    build_classifier, classifier_config, make_config, tmp_path
):
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=build_classifier(SPACE).state_dict()), path)
    cfg = make_config(model=classifier_config(SPACE))
    table = build_table(cfg, str(path), tmp_path, subnets=SUBNETS)
    assert [str(entry.subnet) for entry in table.entries] == SUBNETS
    macs = [entry.macs for entry in table.entries]
    model = MODELS.build(cfg.model)
    assert macs == [count_macs(model, subnet) for subnet in SUBNETS]
    assert macs[0] > macs[1] > macs[2]
    stored = json.loads((tmp_path / 'table.json').read_text())['entries']
    assert [entry['width'] for entry in stored] == [1.0, 0.625, 0.25]
    text = (tmp_path / 'table.csv').read_text().splitlines()[2]
    assert text.startswith('0.25-0.5-0.75-1.0x-16,')

    net = AdaptiveModel.from_file(tmp_path / 'adaptive.pth')
    images = torch.randn(2, 3, 32, 32)
    assert str(net.use(SUBNETS[1])) == SUBNETS[1]
    found = [sample.pred_score for sample in net(images)]
    static = static_model(
        net.model, SUBNETS[1], net.file.statistics[SUBNETS[1]]
    )
    inputs, samples = net.prepare(images)
    with torch.no_grad():
        expected = static(inputs, samples, mode='predict')
    for one, sample in zip(found, expected):
        torch.testing.assert_close(one, sample.pred_score)
    assert str(net.set_budget(macs=macs[1])) in SUBNETS[1:]
