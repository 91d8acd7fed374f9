import json

import pytest
import torch

from mutualnet_mm import ConfigError
from mutualnet_mm.apis import load_config
from mutualnet_mm.cli import one_line_errors


@pytest.fixture
def write(tmp_path):
    """Write a config file; its data lie beside it."""
    (tmp_path / 'there.json').write_text(json.dumps({}))

    def make(text=''):
        file = tmp_path / 'small_config.py'
        file.write_text(f'model = dict(type="M")\n{text}')
        return str(file)

    return make


def test_missing_config(tmp_path):
    path = str(tmp_path / 'nothing.py')
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert path in str(error.value)


def test_options_and_work_dir(write):
    path = write('model = dict(type="M", depth=18)\n')
    cfg = load_config(path, launcher='none')
    assert cfg.work_dir.replace('\\', '/') == 'work_dirs/small_config'
    assert cfg.launcher == 'none'
    cfg = load_config(path, {'model.depth': 50}, work_dir='elsewhere')
    assert cfg.model.depth == 50 and cfg.work_dir == 'elsewhere'
    path = write("work_dir = 'own'\n")
    assert load_config(path).work_dir == 'own'


def loader(root, kind, file):
    dataset = f'dict(type="X", data_root={str(root)!r}, ann_file={file!r})'
    nested = {
        'plain': dataset,
        'repeated': f'dict(type="RepeatDataset", dataset={dataset})',
        'joined': (
            'dict(type="ConcatDataset", datasets=['
            f'dict(type="Y", ann_file=""), {dataset}])'
        ),
        'deep': (
            'dict(type="ClassBalanced", dataset=dict(type="ConcatDataset", '
            f'datasets=[dict(type="Repeat", dataset={dataset})]))'
        ),
    }[kind]
    return f'dict(batch_size=1, dataset={nested})'


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
@pytest.mark.parametrize(
    'kind, place',
    [
        ('plain', 'dataset'),
        ('repeated', 'dataset.dataset'),
        ('joined', 'dataset.datasets.1'),
        ('deep', 'dataset.dataset.datasets.0.dataset'),
    ],
)
def test_annotation_files(write, tmp_path, split, kind, place):
    text = f'{split}_dataloader = '
    load_config(write(text + loader(tmp_path, kind, 'there.json')))
    path = write(text + loader(tmp_path, kind, 'gone.json'))
    with pytest.raises(ConfigError) as error:
        load_config(path)
    message = str(error.value)
    assert str(tmp_path / 'gone.json') in message and '\n' not in message
    assert f'{split}_dataloader.{place}.ann_file' in message


def test_named_place_can_be_set(write, tmp_path):
    """What the message names is what ``--cfg-options`` takes."""
    path = write(
        'train_dataloader = ' + loader(tmp_path, 'joined', 'gone.json')
    )
    key = 'train_dataloader.dataset.datasets.1.ann_file'
    cfg = load_config(path, {key: 'there.json'})
    assert cfg.train_dataloader.dataset.datasets[1].ann_file == 'there.json'


@pytest.mark.parametrize(
    'root, file',
    [('s3://bucket/coco', 'gone.json'), ('', 'https://host/gone.json')],
)
def test_remote_files_are_not_looked_for(write, root, file):
    load_config(write(f'val_dataloader = {loader(root, "plain", file)}'))


def test_the_home_folder(write, tmp_path, monkeypatch):
    """As mmpretrain's data sets read it."""
    monkeypatch.setenv('HOME', str(tmp_path))
    place = 'train_dataloader = '
    load_config(write(place + loader('', 'plain', '~/there.json')))
    load_config(write(place + loader('elsewhere', 'plain', '~/there.json')))
    path = write(place + loader('', 'plain', '~/gone.json'))
    gone = str(tmp_path / 'gone.json')
    with pytest.raises(ConfigError, match=f'{gone}. does not exist'):
        load_config(path)
    path = write(place + loader('', 'plain', '~no-such-user/a.json'))
    with pytest.raises(ConfigError, match='no-such-user'):
        load_config(path)


def test_no_data_at_all(write):
    load_config(write('train_dataloader = None\nval_dataloader = dict()\n'))


@pytest.mark.parametrize(
    'error', [ConfigError, FileNotFoundError, ModuleNotFoundError]
)
def test_user_errors_end_in_one_line(error):
    with pytest.raises(SystemExit) as caught, one_line_errors():
        raise error('width 3: use less')
    assert caught.value.code == 'error: width 3: use less'


class Unreadable(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        try:
            raise OSError('it is empty')
        except OSError as error:
            raise ConfigError("clip 'a: b' cannot be read") from error


def test_errors_of_processes_that_load_data():
    loader = torch.utils.data.DataLoader(Unreadable(), num_workers=1)
    with pytest.raises(SystemExit) as caught, one_line_errors():
        next(iter(loader))
    assert caught.value.code == "error: clip 'a: b' cannot be read"


def test_defects_keep_their_traceback():
    with pytest.raises(KeyError), one_line_errors():
        raise KeyError('defect')
    with one_line_errors():
        pass


def test_only_the_stage_that_runs_is_checked(write):
    path = write('train_dataloader = dict(dataset=dict(ann_file="no.json"))')
    load_config(path, stages=('test',))
    with pytest.raises(ConfigError, match='no.json'):
        load_config(path, stages=('train', 'test'))


@pytest.mark.parametrize(
    'backend, is_looked_for',
    [
        (None, True),
        (dict(backend='local'), True),
        (
            dict(backend='petrel', path_mapping={'data/': 's3://bucket/'}),
            False,
        ),
        (dict(backend='http'), False),
    ],
)
def test_annotations_in_another_storage(write, backend, is_looked_for):
    """The disk does not say whether an object store has them."""
    dataset = dict(
        data_root='data/coco/', ann_file='train.json', backend_args=backend
    )
    path = write(f'train_dataloader = dict(dataset={dataset!r})\n')
    if is_looked_for:
        with pytest.raises(ConfigError, match='train.json. does not exist'):
            load_config(path)
    else:
        assert load_config(path).train_dataloader.dataset == dataset


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
@pytest.mark.parametrize(
    'settings, named',
    [
        (dict(data_root='/nope/'), "data_root='/nope/' does not"),
        (dict(data_root='ROOT', data_prefix='no'), 'data_prefix'),
        (
            dict(data_root='ROOT', data_prefix=dict(img='no')),
            'data_prefix.img',
        ),
        (
            dict(data_root='ROOT', data_prefix=dict(img_path='no')),
            'data_prefix.img_path',
        ),
        (dict(type='MNIST', data_root='/nope', download=False), 'data_root'),
    ],
    ids=str,
)
def test_data_folders(write, tmp_path, split, settings, named):
    (tmp_path / 'no.json').touch()

    def load(**changes):
        dataset = str(dict(settings, **changes)).replace('ROOT', str(tmp_path))
        load_config(write(f'{split}_dataloader = dict(dataset={dataset})\n'))

    with pytest.raises(ConfigError) as error:
        load()
    assert f'{split}_dataloader.dataset.{named}' in str(error.value)
    assert '\n' not in str(error.value)
    load(backend_args=dict(backend='petrel'))
    load(data_root='s3://bucket')


@pytest.mark.parametrize(
    'dataset',
    [
        dict(type='mmpretrain.CIFAR10', data_root='/nope'),  # downloads
        dict(data_root='/nope', ann_file='FILE'),
        dict(data_root='/nope', data_prefix='FOLDER'),
        dict(data_root='/nope', data_prefix=dict(img='FOLDER')),
    ],
    ids=str,
)
def test_a_folder_that_is_not_needed(write, tmp_path, dataset):
    text = str(dataset).replace('FOLDER', str(tmp_path))
    text = text.replace('FILE', str(tmp_path / 'there.json'))
    load_config(write(f'train_dataloader = dict(dataset={text})\n'))


@pytest.mark.parametrize(
    'evaluator, place',
    [
        ('dict(ann_file="no.json")', 'evaluator'),
        ('[dict(type="A"), dict(ann_file="no.json")]', 'evaluator.1'),
    ],
)
def test_annotations_of_a_metric(write, evaluator, place):
    message = f"val_{place}.ann_file='no.json' does not exist"
    path = write(f'val_evaluator = {evaluator}')
    load_config(path, stages=('train', 'test'))
    with pytest.raises(ConfigError, match=message):
        load_config(path)
    remote = evaluator.replace('ann_file', 'backend_args={"a": 1}, ann_file')
    load_config(write(f'val_evaluator = {remote}'))
    load_config(write(f'val_evaluator = {evaluator.replace("no", "s3://a")}'))


@pytest.mark.parametrize('place', ['model', 'config'])
def test_grey_images_normalised_as_colours(write, place):
    """What stock normalisation would spread over three channels."""

    def load(color_type, mean):
        step = dict(type='LoadImageFromFile', color_type=color_type)
        mean = f'data_preprocessor = dict(mean={mean})\n'
        if place == 'model':
            mean = f'model = dict(type="M", {mean.strip()})\n'
        text = f'train_dataloader = dict(dataset=dict(pipeline=[{step}]))\n'
        load_config(write(mean + text))

    load('color', [1, 2, 3])
    load('grayscale', [1])
    load('grayscale', None)
    with pytest.raises(ConfigError) as error:
        load('grayscale', [1, 2, 3])
    assert str(error.value) == (
        'train_dataloader.dataset.pipeline.0 is a LoadImageFromFile of '
        "color_type='grayscale', one channel, but data_preprocessor.mean has "
        '3 values: give mean and std one value and the backbone '
        "in_channels=1, or set color_type='color'"
    )
