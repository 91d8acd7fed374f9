from mmengine.config import Config

from mutualnet_mm.config.pipelines import Step, pipeline_steps, stage_datasets

READ = dict(
    type='mutualnet_mm.ReadClip',
    transforms=[dict(type='X'), dict(type='mmaction.SampleFrames')],
)
CHANCE = dict(type='RandomApply', transforms=[dict(type='CenterCrop')])
CHOICE = dict(type='Choose', transforms=[[dict(type='CenterCrop')]])


class SampleFrames:
    """Stands for the class that a new-style config imports."""


def test_steps_inside_of_wrappers():
    """At places that ``--cfg-options`` takes; what is drawn is left out."""
    pipeline = [READ, CHANCE, CHOICE, print, dict(type=SampleFrames)]
    steps = pipeline_steps('val_dataloader.dataset', dict(pipeline=pipeline))
    start = 'val_dataloader.dataset.pipeline'
    assert [(step.place, step.kind) for step in steps] == [
        (f'{start}.0', 'ReadClip'),
        (f'{start}.0.transforms.0', 'X'),
        (f'{start}.0.transforms.1', 'SampleFrames'),
        (f'{start}.1', 'RandomApply'),
        (f'{start}.2', 'Choose'),
        (f'{start}.4', 'SampleFrames'),
    ]
    cfg = Config(dict(val_dataloader=dict(dataset=dict(pipeline=pipeline))))
    cfg.merge_from_dict({f'{steps[2].place}.clip_len': 7})
    (_, dataset), *_ = stage_datasets(cfg, ('val',))
    again = pipeline_steps('val_dataloader.dataset', dataset)
    assert again[2].settings['clip_len'] == 7


def test_no_pipeline():
    assert pipeline_steps('place', {}) == []
    assert pipeline_steps('place', dict(pipeline=None)) == []
    assert Step('place', {}).kind == ''


def test_data_sets_inside_of_wrappers():
    leaf, other = dict(ann_file='a'), dict(ann_file='b')
    joined = dict(type='ConcatDataset', datasets=[leaf, dict(dataset=other)])
    cfg = Config(
        dict(
            train_dataloader=dict(dataset=joined),
            val_dataloader=None,
            test_dataloader=dict(dataset=other),
        )
    )
    place = 'train_dataloader.dataset'
    found = dict(stage_datasets(cfg, ('train', 'val')))
    assert list(found) == [
        place,
        f'{place}.datasets.0',
        f'{place}.datasets.1',
        f'{place}.datasets.1.dataset',
    ]
    assert found[f'{place}.datasets.1.dataset'].ann_file == 'b'
    assert list(dict(stage_datasets(cfg, ('test',)))) == [
        'test_dataloader.dataset'
    ]


def test_loaders_that_take_turns():
    """A stray comma behind a loader makes such a list, too."""
    loaders = [dict(dataset=dict(ann_file=name)) for name in 'ab']
    cfg = Config(dict(train_dataloader=loaders))
    found = {p: s.ann_file for p, s in stage_datasets(cfg, ('train',))}
    assert found == {
        'train_dataloader.0.dataset': 'a',
        'train_dataloader.1.dataset': 'b',
    }
