"""A width for each stage in training, against separate narrow networks."""

import numpy as np
import pytest
import torch
from option_steps import CLASSES, FEATURES, RESOLUTIONS, TAGS, assert_step

from mutualnet_mm import ConfigError, Subnet
from mutualnet_mm.cost import closed_form_ratio
from mutualnet_mm.slimmable import LayerRule
from mutualnet_mm.widths import stage_widths

LOW, STAGES = 0.25, 3


def drawn(seed=2, stages=STAGES):
    """The rule, in numbers: each stage of a random width draws its own."""
    rng = np.random.default_rng((seed, 0))
    widths = dict(min=LOW)
    for tag in ('rand1', 'rand2'):
        widths[tag] = tuple(rng.uniform(LOW, 1.0, stages).tolist())
    sizes = {tag: int(rng.choice(RESOLUTIONS)) for tag in widths}
    return dict(
        full=(1.0, 32), **{tag: (widths[tag], sizes[tag]) for tag in widths}
    )


@pytest.fixture
def narrow(plain):
    """Return a WRN-10-1 of the widths of its groups, of 16, 32 and 64."""

    def make(widths):
        if not isinstance(widths, tuple):
            widths = (widths,) * STAGES
        of_group = dict(zip((16, 32, 64), widths))
        net = plain.wide_resnet(
            lambda c: plain.rounded(c * of_group[c]), widen=1
        )
        head = plain.linear_head(plain.rounded(FEATURES * widths[-1]), CLASSES)
        return plain.classifier(net, head)

    return make


@pytest.mark.parametrize(
    'options', [{}, dict(norm='per-resolution')], ids=['paper', 'norms']
)
def test_step_equals_separate_networks(build_learner, narrow, options):
    subnets = drawn()
    model = build_learner(stages=STAGES)
    sampled = model.sampler.sample(0)
    assert list(sampled) == TAGS
    for tag, (width, size) in subnets.items():
        widths = width if isinstance(width, tuple) else (width,)
        assert sampled[tag] == Subnet(stage_widths(widths), size)
    if not options:
        assert_step(model, subnets, make=narrow)
        return
    # Statistics and affines are the layers' own: nothing else is asked.
    model = build_learner(stages=STAGES, **options)
    images = torch.randn(4, 3, 32, 32).double()
    with model.activate(sampled['rand1'], track_stats=False):
        assert (
            model.backbone(images)[-1].shape[1]
            == narrow(subnets['rand1'][0]).head.fc.in_features
        )


def test_stages_that_share_a_width_draw_as_before(build_learner, plain):
    model = build_learner()
    for tag, (width, size) in plain.drawn(
        0, (LOW, 1.0), RESOLUTIONS, seed=2
    ).items():
        assert model.sampler.sample(0)[tag] == Subnet(width, int(size))


def test_every_stage_narrows(build_learner):
    """Strata hold for each of them."""
    model = build_learner(stages=STAGES, stratified=True)
    middle = (LOW + 1) / 2
    for step in range(50):
        subnets = model.sampler.sample(step)
        assert max(subnets['rand1'].width.stages) <= middle
        assert min(subnets['rand2'].width.stages) >= middle
        for subnet in subnets.values():
            model.space.check(subnet)


def test_expected_costs_are_refused(build_learner):
    model = build_learner(stages=STAGES)
    with pytest.raises(ConfigError, match='stages=3: the mean cost of a step'):
        closed_form_ratio(model.sampler)


def test_layers_of_no_stage(build_learner):
    model = build_learner(stages=STAGES)
    model.backbone.layer1[0].conv1.slim_rule = LayerRule()
    images = torch.randn(1, 3, 32, 32).double()
    model.slim_state.set_width(stage_widths((0.5, 0.7, 1.0)))
    with pytest.raises(ConfigError, match='0.5-0.7-1.0: a layer is in none'):
        model.backbone(images)
    with pytest.raises(ConfigError, match='has 3 stages with a width of'):
        model.slim_state.set_width(stage_widths((0.5, 0.7)))
