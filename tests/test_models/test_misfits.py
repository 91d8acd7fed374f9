"""Training that starts from a checkpoint which fits in part, or not at all.

The stock loader logs what does not fit and goes on with random weights.
"""

import copy
import re

import published_networks as published
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import MODELS
from option_steps import LINEAR

from mutualnet_mm import UsageError
from mutualnet_mm.models.checkpoints import (
    check_checkpoint,
    check_resumed,
    load_trained,
)

TOOL = 'is of the published code: convert it by mutualnet convert'


class Start(Hook):
    """Keeps the weights that the first iteration begins with."""

    def before_train(self, runner):
        self.state = copy.deepcopy(runner.model.state_dict())


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(
        'mutualnet_mm.models.misfits.print_log',
        lambda text, **settings: said.append(text),
    )
    return said


@pytest.fixture
def weights(configure):
    """State of a WRN-10-1 with 4 classes."""
    torch.manual_seed(5)
    return MODELS.build(configure(LINEAR, stock=True)).state_dict()


@pytest.fixture
def train(build_runner, configure, tmp_path):
    """Train from a file of some content; return the weights at the start."""

    def run(content, **settings):
        path = str(tmp_path / 'start.pth')
        torch.save(content, path)
        runner = build_runner(
            model=dict(configure(LINEAR), **settings),
            load_from=None if 'init_cfg' in settings else path,
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            val_cfg=dict(type='mutualnet_mm.SubnetValLoop'),
            train_cfg=dict(by_epoch=False, max_iters=1, val_interval=9),
        )
        hook = Start()
        runner.register_hook(hook)
        runner.train()
        return hook.state

    return run


def the_backbone(weights):
    return {k: v for k, v in weights.items() if k.startswith('backbone.')}


def test_all_fits(train, weights, warnings):
    state = train(dict(state_dict=weights))
    assert all(torch.equal(state[key], weights[key]) for key in weights)
    assert not warnings


@pytest.mark.parametrize(
    'change, random',
    [
        (the_backbone, '2 of .* as they are: head$'),
        (
            lambda w: {
                **w,
                'head.fc.weight': torch.rand(9, 64),
                'head.fc.bias': torch.rand(9),
            },
            '2 of .* as they are: head$',
        ),
        (
            lambda w: {k: v for k, v in w.items() if 'layer3.0.bn' not in k},
            '8 of .* as they are: backbone.layer3.0.bn1, '
            'backbone.layer3.0.bn2$',
        ),
        (
            lambda w: {k: v for k, v in w.items() if k != 'head.fc.bias'},
            '1 of .* MutualImageClassifier .* as they are: head.fc.bias$',
        ),
        (  # as a parallel wrapper saves them
            lambda w: {f'module.{k}': v for k, v in the_backbone(w).items()},
            'as they are: head$',
        ),
        (  # nothing but a part of the model, on purpose
            lambda w: {k: v for k, v in w.items() if 'head' in k},
            'as they are: backbone$',
        ),
    ],
    ids=['backbone', 'classes', 'norms', 'bias', 'wrapped', 'head'],
)
def test_most_fits(train, weights, warnings, change, random):
    """Fine-tuning goes on, and what stayed random is named."""
    given = change(weights)
    state = train(dict(state_dict=given))
    (said,) = warnings
    assert re.search(random, said), said
    for key, value in given.items():
        own = state[key.replace('module.', '')]
        assert torch.equal(own, value) == (own.shape == value.shape), key


@pytest.mark.parametrize(
    'change, found',
    [
        (lambda w: {'net.weight': torch.ones(1)}, r'none of .*\(net.weight'),
        (  # a backbone alone, whose names lack `backbone.`
            lambda w: {k[9:]: v for k, v in the_backbone(w).items()},
            r'none of .*\(conv1.weight, ...\)',
        ),
        (
            lambda w: {k: v for k, v in w.items() if 'layer1' in k},
            'only 1[0-9] of the ',
        ),
        (  # a network of twice the width: counters and the stem fit
            lambda w: {
                k: v.repeat(2, *[1] * (v.dim() - 1))
                if v.dim() and 'layer' in k
                else v
                for k, v in w.items()
            },
            'only ',
        ),
    ],
    ids=['nothing', 'no prefix', 'some layers', 'another width'],
)
def test_few_fit(train, weights, change, found):
    content = dict(state_dict=change(weights))
    with pytest.raises(UsageError, match=f'{found}.*random ones: give') as e:
        train(content)
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('form', ['model', 'model.init_cfg', 'bare'])
def test_published(train, tmp_path, form):
    """Whatever loads them, the error says what to do."""
    file = tmp_path / 'published.pt'
    net = published.WideResNet(widen=1, classes=4)
    if form == 'bare':
        published.save(net, file)
    else:
        published.save(net, file, optimizer={}, last_epoch=3)
    settings = {}
    if form == 'model.init_cfg':
        settings['init_cfg'] = dict(type='Pretrained', checkpoint=str(file))
    with pytest.raises(UsageError, match=f'none of the .*{TOOL}$'):
        train(torch.load(file), **settings)


def test_published_elsewhere(configure, tmp_path):
    """Where backbones are loaded, and where whole checkpoints are."""
    path = str(tmp_path / 'published.pt')
    net = published.WideResNet(widen=1, classes=4)
    published.save(net, path, optimizer={})
    config = configure(LINEAR)
    model = MODELS.build(copy.deepcopy(config))
    for use in (check_checkpoint, lambda p, m: load_trained(m, p)):
        with pytest.raises(UsageError, match=f'it has no backbone.*{TOOL}$'):
            use(path, model)
    config['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint=path)
    with pytest.raises(UsageError, match=f'it has no conv1.weight; .*{TOOL}'):
        MODELS.build(config).init_weights()


def test_before_the_run(configure, weights, tmp_path):
    """The tool says so before it loads any data."""
    path = str(tmp_path / 'start.pth')
    model = MODELS.build(configure(LINEAR))
    cfg = Config(dict(load_from=path, work_dir=str(tmp_path)))
    torch.save(dict(state_dict=the_backbone(weights)), path)
    check_resumed(cfg, model)
    torch.save(dict(state_dict=dict(a=torch.ones(1))), path)
    message = f"^checkpoint '{path}': none of .*random ones"
    with pytest.raises(UsageError, match=message):
        check_resumed(cfg, model)


@pytest.mark.parametrize('resume', [False, True])
def test_an_adaptive_file(configure, weights, tmp_path, resume):
    path = str(tmp_path / 'adaptive.pth')
    torch.save(dict(schema=1, weights=weights, table=[]), path)
    cfg = Config(dict(load_from=path, resume=resume, work_dir=str(tmp_path)))
    with pytest.raises(UsageError, match='is an adaptive file, for deploy'):
        check_resumed(cfg, MODELS.build(configure(LINEAR)))


PER_RESOLUTION = dict(norm='per-resolution')


@pytest.mark.parametrize(
    'trained, resumed, message',
    [
        ({}, {}, ''),
        (PER_RESOLUTION, PER_RESOLUTION, ''),
        ({}, PER_RESOLUTION, 'all resolutions together, the config for 32, '),
        (
            PER_RESOLUTION,
            {},
            '32, .*, the config for all resolutions together',
        ),
        (
            dict(PER_RESOLUTION, resolution=(32, 24, 16)),
            dict(PER_RESOLUTION, resolution=(32, 16, 24)),
            '32, 24, 16, the config for 32, 16, 24',
        ),
        (
            dict(PER_RESOLUTION, resolution=(32, 24, 16)),
            dict(PER_RESOLUTION, resolution=(32, 28, 16)),
            '32, 24, 16, the config for 32, 28, 16',
        ),
    ],
    ids=str,
)
def test_resume_with_other_norms(
    configure, build_learner, tmp_path, trained, resumed, message
):
    """The optimizer would refuse it after the data is loaded."""
    path = str(tmp_path / 'stopped.pth')
    torch.save(dict(state_dict=build_learner(**trained).state_dict()), path)
    cfg = Config(dict(load_from=path, resume=True, work_dir=str(tmp_path)))
    model = build_learner(**resumed)
    if message:
        with pytest.raises(UsageError, match=f'batch norms for {message}'):
            check_resumed(cfg, model)
    else:
        check_resumed(cfg, model)
    check_resumed(Config(dict(cfg, resume=False)), model)  # begins anew


def test_part_of_another_model(configure, weights, warnings):
    """A student and its teacher load themselves what each of them needs."""
    model = MODELS.build(configure(LINEAR))
    holder = torch.nn.Module()
    holder.student = model
    given = {f'student.{k}': v for k, v in weights.items() if 'head' in k}
    holder.load_state_dict(given, strict=False)
    assert not warnings
