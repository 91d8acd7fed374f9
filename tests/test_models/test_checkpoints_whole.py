import pytest
import torch
from torch import nn

from mutualnet_mm import UsageError
from mutualnet_mm.models.checkpoints import check_checkpoint


@pytest.fixture
def model():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('bare', [False, True])
def test_what_fits(model, tmp_path, prefix, bare):
    weights = {
        f'{prefix}{name}': value
        for name, value in model.state_dict().items()
        if not name.endswith('num_batches_tracked')
    }
    weights['head.weight'] = torch.rand(3)
    path = str(tmp_path / 'epoch_1.pth')
    torch.save(weights if bare else dict(state_dict=weights, meta={}), path)
    check_checkpoint(path, model)


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda w: w.pop('0.weight'), 'it has no 0.weight'),
        (
            lambda w: w.update({'1.bias': torch.zeros(8)}),
            r'1.bias is \(8,\), the model has \(4,\)',
        ),
    ],
)
def test_what_does_not_fit(model, tmp_path, change, message):
    weights = model.state_dict()
    change(weights)
    path = str(tmp_path / 'epoch_1.pth')
    torch.save(dict(state_dict=weights), path)
    with pytest.raises(UsageError, match=message) as error:
        check_checkpoint(path, model)
    assert path in str(error.value) and '\n' not in str(error.value)


def test_what_is_no_checkpoint(model, tmp_path):
    path = tmp_path / 'epoch_1.pth'
    with pytest.raises(UsageError, match='does not exist'):
        check_checkpoint(str(path), model)
    path.write_bytes(b'damaged')
    with pytest.raises(UsageError, match='cannot be read'):
        check_checkpoint(str(path), model)
    torch.save([1, 2], path)
    with pytest.raises(UsageError, match='is not a checkpoint'):
        check_checkpoint(str(path), model)
