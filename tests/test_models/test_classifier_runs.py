"""Classifiers trained by a stock Runner: averaging, accumulation, clipping.

Everything is computed again with the networks of plain_networks.py.
"""

import pytest
import torch
import torch.nn.functional as F
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import CheckpointLoader
from mmengine_versions import needs_skipped_data
from torch.utils.data import DataLoader

CLASSES, NUMBER, RATE = 4, 8, 0.1
SUBNETS = ['1.0x-32', '0.5x-24', '0.25x-16']


class Recorder(Hook):
    """Keeps the weights behind every iteration, and the metrics."""

    def __init__(self):
        self.states, self.metrics = [], []

    def after_train_iter(self, runner, *args, **kwargs):
        self.states.append(copies(runner.model.state_dict()))

    def after_val_epoch(self, runner, metrics=None):
        self.metrics.append(metrics)


def copies(state):
    return {key: value.clone() for key, value in state.items()}


def batches(size):
    dataset = DATASETS.build(dict(type='NoiseImages'))
    items = [dataset[i] for i in range(NUMBER)]
    images = torch.stack([item['inputs'] for item in items])
    labels = torch.arange(NUMBER) % CLASSES
    return list(zip(images.split(size), labels.split(size)))


def scores_of(metrics, subnet):
    prefix = '' if subnet == SUBNETS[0] else f'{subnet}/'
    count = NUMBER * CLASSES
    found = [metrics[f'{prefix}score/{i}'] for i in range(count)]
    return torch.tensor(found).view(NUMBER, CLASSES)


@pytest.fixture
def make_runner(build_runner, configure, plain, tmp_path):
    """Return a runner, its recorder and the weights that it starts from."""

    def make(**settings):
        model = configure(dict(type='LinearClsHead'))
        torch.manual_seed(0)
        start = plain.randomise(MODELS.build(model)).state_dict()
        file = str(tmp_path / 'start.pth')
        torch.save(dict(state_dict=start), file)
        cfg = dict(
            model=model,
            load_from=file,
            val_cfg=dict(type='mutualnet_mm.SubnetValLoop', subnets=SUBNETS),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=RATE)),
        )
        runner, recorder = build_runner(**dict(cfg, **settings)), Recorder()
        runner.register_hook(recorder)
        return runner, recorder, copies(start)

    return make


@pytest.fixture
def build(plain):
    def make(width):
        net = plain.wide_resnet(lambda c: plain.rounded(c * width), widen=1)
        head = plain.linear_head(plain.rounded(64 * width), CLASSES)
        return plain.classifier(net, head)

    return make


@pytest.fixture
def predict(build, plain):
    """Scores of a subnet, calibrated on the very images it predicts."""

    def scores(state, subnet):
        width, size = subnet.split('x-')
        net = plain.fill(build(float(width)), state).double()
        images = batches(NUMBER)[0][0].double()
        if subnet != SUBNETS[0]:
            images = F.interpolate(
                images, (int(size),) * 2, mode='bilinear', antialias=True
            )
        net.train(subnet != SUBNETS[0])
        with torch.no_grad():
            return net(images).softmax(1)

    return scores


@pytest.mark.parametrize('buffers', [False, True], ids=['weights', 'all'])
def test_averaged_weights(make_runner, configure, predict, buffers):
    """EMA as in its definition; what is evaluated and saved is the average."""
    hook = dict(
        type='EMAHook',
        ema_type='ExponentialMovingAverage',
        momentum=0.3,
        update_buffers=buffers,
    )
    runner, recorder, _ = make_runner(custom_hooks=[hook])
    runner.train()
    trained = recorder.states[-1]
    averaged = copies(trained)
    weights = dict(runner.model.named_parameters())
    for key, value in averaged.items():
        if key in weights or (buffers and value.is_floating_point()):
            values = [state[key] for state in recorder.states]
            mean = values[0]
            for new in values[1:]:
                mean = 0.7 * mean + 0.3 * new
            averaged[key] = mean
    for subnet in SUBNETS:
        found = scores_of(recorder.metrics[-1], subnet)
        torch.testing.assert_close(
            found.double(), predict(averaged, subnet), rtol=1e-4, atol=1e-6
        )
        # The last weights would be seen to give others.
        assert (found - predict(trained, subnet)).abs().max() > 1e-3
    for key, value in runner.model.state_dict().items():
        assert torch.equal(value, trained[key]), key
    file = f'{runner.work_dir}/iter_3.pth'
    saved = CheckpointLoader.load_checkpoint(file, map_location='cpu')
    stock = MODELS.build(configure(dict(type='LinearClsHead'), stock=True))
    stock.load_state_dict(saved['state_dict'], strict=True)
    for key in weights:
        torch.testing.assert_close(saved['state_dict'][key], averaged[key])
    names = {f'module.{key}' for key in stock.state_dict()}
    assert saved['ema_state_dict'].keys() == names | {'steps'}


@needs_skipped_data
def test_a_resumed_run_is_the_uninterrupted_one(make_runner, tmp_path):
    """With the average, and the draws of the iterations that follow."""
    hooks = [dict(type='EMAHook', momentum=0.3)]
    cfg = dict(by_epoch=False, max_iters=6, val_interval=6)
    runner, whole, _ = make_runner(custom_hooks=hooks, train_cfg=cfg)
    runner.train()
    make_runner(custom_hooks=hooks)[0].train()  # to iteration 3
    runner, rest, _ = make_runner(
        custom_hooks=hooks,
        train_cfg=cfg,
        resume=True,
        load_from=str(tmp_path / 'work' / 'iter_3.pth'),
    )
    runner.train()
    assert len(whole.states) == 6 and len(rest.states) == 3
    assert whole.metrics == rest.metrics
    for key, value in whole.states[-1].items():
        assert torch.equal(value, rest.states[-1][key]), key


def test_the_origin_is_evaluated_too(make_runner, predict):
    """What mmpretrain's hook does once the loop is through."""
    hook = dict(type='EMAHook', momentum=0.3, evaluate_on_origin=True)
    runner, recorder, _ = make_runner(custom_hooks=[hook])
    runner.train()
    hub = runner.message_hub
    count = NUMBER * CLASSES
    found = [
        hub.get_scalar(f'val/score/{i}_origin').current() for i in range(count)
    ]
    expected = predict(recorder.states[-1], SUBNETS[0])
    torch.testing.assert_close(
        torch.tensor(found).view(NUMBER, CLASSES), expected, check_dtype=False
    )


def test_precise_statistics(configure, plain):
    """PreciseBNHook gives the full network what it gives the stock one."""
    from mmpretrain.engine.hooks.precise_bn_hook import update_bn_stats

    loader = DataLoader(
        DATASETS.build(dict(type='NoiseImages')),
        batch_size=4,
        collate_fn=pseudo_collate,
    )
    models = [
        MODELS.build(configure(dict(type='LinearClsHead'), stock=stock))
        for stock in (False, True)
    ]
    models[1].load_state_dict(plain.randomise(models[0]).state_dict())
    before = copies(models[0].state_dict())
    for model in models:
        update_bn_stats(model.train(), loader)
    for key, value in models[0].named_buffers():
        assert torch.equal(value, models[1].get_buffer(key)), key
        assert not torch.equal(value, before[key]), key


def doubles(state):
    return {
        key: value.double() if value.is_floating_point() else value
        for key, value in state.items()
    }


def in_double(model):
    """Run a model in double precision: no rounding passes a ReLU's kink."""
    model.double()
    model.data_preprocessor.register_forward_hook(
        lambda module, args, out: dict(out, inputs=out['inputs'].double())
    )


def by_hand(state, build, plain, counts, max_norm):
    """Three iterations of SGD; also the norms of the gradients stepped on."""
    summed, norms = {}, []
    loaded = batches(4)
    for iteration in range(3):
        images, labels = loaded[iteration % 2]
        images = images.double()
        subnets = plain.drawn(iteration, (0.25, 1.0), (32, 24, 16))
        _, gradients, buffers = plain.one_step(
            build,
            state,
            images,
            subnets,
            lambda logits, labels=labels: F.cross_entropy(logits, labels),
        )
        # The third iteration is left over where two are taken together.
        share = 1 if iteration == 2 else counts
        for key, gradient in gradients.items():
            summed[key] = summed.get(key, 0) + gradient / share
        state.update(buffers)
        if counts == 1 or iteration > 0:
            norm = sum(g.square().sum() for g in summed.values()).sqrt()
            norms.append(norm.item())
            # PyTorch adds that to the norm.
            factor = min(1, max_norm / (norm + 1e-6)) if max_norm else 1
            for key, gradient in summed.items():
                state[key] = state[key] - RATE * factor * gradient
            summed = {}
    return norms


@pytest.mark.parametrize('max_norm', [None, 0.5], ids=['', 'clipped'])
@pytest.mark.parametrize('counts', [1, 2], ids=['each', 'two'])
def test_optimizer_steps(make_runner, build, plain, counts, max_norm):
    """The mean of the accumulated losses, clipped as one gradient.

    Every iteration draws subnets of its own, whether it steps or not.
    """
    wrapper = dict(
        optimizer=dict(type='SGD', lr=RATE), accumulative_counts=counts
    )
    if max_norm:
        wrapper['clip_grad'] = dict(max_norm=max_norm)
    runner, recorder, state = make_runner(optim_wrapper=wrapper)
    in_double(runner.model)
    state = doubles(state)
    start = copies(state)
    norms = by_hand(state, build, plain, counts, max_norm)
    runner.train()
    assert min(norms) > 0.5  # so that all are clipped
    if counts == 2:  # no step in the first iteration
        first = recorder.states[0]['backbone.conv1.weight']
        assert torch.equal(first, start['backbone.conv1.weight'])
    if max_norm:
        history = runner.message_hub.get_scalar('train/grad_norm')._log_history
        assert history[-len(norms) :].tolist() == pytest.approx(norms, 1e-9)
    for key, value in recorder.states[-1].items():
        moved = (state[key] - start[key]).double().norm()
        error = (value - state[key]).double().norm()
        assert error <= 1e-9 * moved + 1e-12, key
