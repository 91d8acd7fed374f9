"""Trainings that are killed and go on end where they had ended anyway.

``pytest tests/test_engine/test_killed.py -m nightly``: each of 6 trainings is
killed at 20 moments.
"""

import functools
import os
import random
import time

import pytest
import resumable
from killed import run_killed
from mmengine_versions import needs_skipped_data

from mutualnet_mm.models.last_checkpoint import skip_damaged

pytestmark = [
    pytest.mark.subprocess,
    pytest.mark.skipif(not hasattr(os, 'fork'), reason='no os.fork here'),
]
SEED = 20


# Two networks in a step, the other of a random width.
FEW = dict(num_random=1, include_min=False)


def classifier(request):
    configure = request.getfixturevalue('classifier_config')
    model = configure(
        dict(FEW, num_random=2, resolution=(32, 24, 16)),
        stem_channels=8,
        base_channels=8,
    )
    model['head'].update(num_classes=3, in_channels=64)
    data = dict(type='NoiseSamples', sample='image', shape=(3, 32, 32))
    return model, 'mmpretrain', data, data, dict(type='Accuracy')


def detector(request):
    """Mask R-CNN, which draws boxes to learn from."""
    model = request.getfixturevalue('detector_config')(FEW)
    data = request.getfixturevalue('coco_dataset')
    folder = request.getfixturevalue('tiny_coco')
    metric = dict(type='CocoMetric', ann_file=str(folder / 'val.json'))
    return model, 'mmdet', data('train'), data('val'), metric


def recognizer(request):
    """Slow, with dropout in its head."""
    request.getfixturevalue('enter_scope')('mmaction')
    model = request.getfixturevalue('slow_model')(
        **FEW, resolution=(32, 24), frames=(4, 2)
    )
    model['backbone'].update(base_channels=8)
    model['cls_head'].update(in_channels=64)
    shape = (1, 3, 4, 32, 32)
    data = dict(type='NoiseSamples', sample='action', shape=shape)
    return model, 'mmaction', data, data, dict(type='AccMetric')


TASKS = dict(classifier=classifier, detector=detector, recognizer=recognizer)


@pytest.fixture(scope='module')
def whole():
    """Trainings that nothing interrupted, by their names."""
    return {}


@pytest.fixture
def prepare(request, whole, tmp_path_factory):
    """Return the config of a training, what it gives, and its seconds."""

    def make(task, by_epoch):
        *model, train, val, metric = TASKS[task](request)
        batch = 3 if task == 'detector' else 4  # two in an epoch
        config = resumable.settings(
            *model, train, val, metric, by_epoch, 2, batch
        )
        if (task, by_epoch) not in whole:
            folder = tmp_path_factory.mktemp(task)
            begin = time.monotonic()
            run_killed(lambda: resumable.train(config, folder))
            whole[task, by_epoch] = (
                resumable.result(folder),
                resumable.story(folder / 'story')[0],
                time.monotonic() - begin,
            )
        return config, *whole[task, by_epoch]

    return make


def any_moments(name):
    """20 of them: ends of steps, parts of written files, and any."""
    dice = random.Random(f'{SEED} {name}')
    for i in range(20):
        if i % 3 == 0:  # three checkpoints, a note of its name behind each
            share = dice.choice([0, dice.random(), 1])
            yield 'write', dice.randrange(6), share
        elif i % 3 == 1:
            yield 'step', dice.randrange(resumable.STEPS)
        else:
            yield 'time', dice.random()


LOOPS = dict(epochs=True, iters=False)
MARKS = dict(epochs=(), iters=needs_skipped_data)
ALL = [
    pytest.param(task, loop, marks=MARKS[loop])
    for task in TASKS
    for loop in LOOPS
]
SHORT = [
    ('classifier', 'epochs', ('write', 3, 0)),  # an empty note
    ('classifier', 'epochs', ('step', 3)),
    ('classifier', 'iters', ('write', 2, 0.5)),  # half a checkpoint
    ('classifier', 'iters', ('time', 0.7)),
    ('detector', 'iters', ('write', 3, 0.9)),
    ('recognizer', 'epochs', ('step', 4)),
]


@pytest.mark.parametrize(
    'task, loop, moment',
    [pytest.param(*case, marks=MARKS[case[1]]) for case in SHORT],
    ids=str,
)
def test_a_killed_training(prepare, tmp_path, task, loop, moment):
    goes_on(prepare, tmp_path, task, loop, [moment])


@pytest.mark.nightly
@pytest.mark.parametrize('task, loop', ALL)
def test_a_training_killed_20_times(prepare, tmp_path, task, loop):
    goes_on(prepare, tmp_path, task, loop, any_moments(task + loop))


def goes_on(prepare, tmp_path, task, loop, moments):
    config, expected, told, seconds = prepare(task, LOOPS[loop])
    assert sum(kind == 'step' for kind, _ in told) == resumable.STEPS
    for i, moment in enumerate(moments):
        folder = tmp_path / str(i)
        folder.mkdir()
        train = functools.partial(resumable.train, config, folder)
        step = moment[1] if moment[0] == 'step' else None
        if moment[0] == 'time':
            moment = 'time', moment[1] * seconds
        killed = run_killed(functools.partial(train, kill_at=step), moment)
        assert killed or moment[0] == 'time', moment
        run_killed(functools.partial(train, True, choose=skip_damaged))
        found = resumable.result(folder)
        again, starts = resumable.story(folder / 'story')
        if starts[-1] == resumable.STEPS:
            # All that was left is a validation, which stock loops skip then.
            found.update(statistics=expected['statistics'])
            again = {**told, **again}
        assert not resumable.differences(found, expected), moment
        assert again == told, moment
        print(f'\n{task} {loop} {moment}: killed={killed}, begun at {starts}')
