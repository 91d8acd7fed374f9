import pytest
import torch
from torch import nn

from mutualnet_mm import ConfigError, Subnet
from mutualnet_mm.models.tasks import Task, find_task
from mutualnet_mm.subnet import SubnetSpace


@pytest.mark.parametrize(
    'kind, task',
    [
        ('classifier', 'ClassificationTask'),
        ('detector', 'DetectionTask'),
    ],
)
def test_tasks_by_base_class(request, kind, task):
    model = request.getfixturevalue(f'build_{kind}')()
    assert find_task(type(model)).__name__ == type(model.task).__name__ == task


def test_other_models_are_refused(classifier_config):
    from mmengine.registry import MODELS

    config = classifier_config()
    config['wraps'] = Other
    with pytest.raises(ConfigError) as error:
        MODELS.build(config)
    assert "'Other'" in str(error.value)


class Other(nn.Module):
    """Neither a classifier nor a detector."""

    def __init__(self, **kwargs):
        super().__init__()


@pytest.mark.parametrize(
    'given, expected', [(None, 'kl'), ('kl', 'kl'), ('label', 'label')]
)
def test_supervision(given, expected):
    class BothTask(Task):
        def supervisions(self, model):
            return ('kl', 'label')

    task = BothTask(SubnetSpace((0.5, 1.0), (64,)))
    assert task.check_supervision(None, given) == expected
    with pytest.raises(ConfigError, match="'kl' or 'label'"):
        task.check_supervision(None, 'both')


def test_the_full_resolution_is_passed_through(build_classifier, image_batch):
    """Also for a narrow network: the very tensor, not a copy."""
    model = build_classifier()
    images, samples = image_batch()
    inputs, found = model.task.resize(model, images, samples, Subnet(0.25, 64))
    assert inputs is images and [s.gt_label for s in found] == [
        s.gt_label for s in samples
    ]


def test_carried_sizes_are_normalised(build_classifier, image_batch):
    """As the full size is: by the model's own preprocessor."""
    model = build_classifier()
    model.data_preprocessor.register_buffer('mean', torch.full((3, 1, 1), 9.0))
    model.data_preprocessor.register_buffer('std', torch.full((3, 1, 1), 2.0))
    model.data_preprocessor._enable_normalize = True
    images, samples = image_batch(2)
    for sample in samples:
        small = dict(
            inputs=torch.full((3, 32, 32), 13, dtype=torch.uint8),
            data_samples=sample.new(),
        )
        sample.set_field({32: small}, 'multi_resolution', dtype=dict)
    inputs, found = model.task.resize(model, images, samples, Subnet(0.25, 32))
    assert inputs.shape == (2, 3, 32, 32) and (inputs == 2).all()
    assert [s.gt_label.item() for s in found] == [0, 1]
