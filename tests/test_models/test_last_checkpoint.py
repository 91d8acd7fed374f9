"""Which checkpoint a training goes on from, of those that a kill left."""

import os

import pytest
import torch
from mmengine.config import Config

from mutualnet_mm import UsageError
from mutualnet_mm.models.last_checkpoint import skip_damaged

NAMES = ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth']


@pytest.fixture
def folder(tmp_path):
    """Three checkpoints, then weights alone; a note of the third."""
    content = dict(state_dict={}, optimizer={}, meta={}, message_hub={})
    for i, name in enumerate([*NAMES, 'best_1.pth', 'adaptive.pth']):
        if i == 3:
            content = dict(state_dict={}, meta={})
        torch.save(content, tmp_path / name)
        os.utime(tmp_path / name, (1e9 + i, 1e9 + i))
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / NAMES[2]))
    return tmp_path


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(
        'mutualnet_mm.models.last_checkpoint.print_log',
        lambda text, **settings: lines.append(text),
    )
    return lines


def cut(path, share=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def chosen(folder, **settings):
    cfg = Config(dict(dict(work_dir=str(folder), resume=True), **settings))
    skip_damaged(cfg)
    return cfg.get('load_from')


def test_a_whole_one_is_left_to_the_runner(folder, said):
    assert chosen(folder) is None and not said
    (folder / 'last_checkpoint').unlink()  # nothing was saved
    assert chosen(folder) is None and not said


def test_what_is_named_or_not_resumed_is_left_alone(folder, said):
    for name in NAMES:
        cut(folder / name)
    assert chosen(folder, load_from='a.pth') == 'a.pth'
    assert chosen(folder, resume=False) is None
    assert not said


@pytest.mark.parametrize('share', [0, 0.01, 0.6, 0.999])
def test_the_newest_whole_one(folder, said, share):
    cut(folder / NAMES[2], share)
    assert chosen(folder) == str(folder / NAMES[1])
    assert f"checkpoint '{folder / NAMES[2]}' cannot be read" in said[0]
    assert 'training goes on from' in said[0] and '\n' not in said[0]


def test_one_that_was_removed(folder, said):
    (folder / NAMES[2]).unlink()
    cut(folder / NAMES[1])
    assert chosen(folder) == str(folder / NAMES[0])
    assert f"{NAMES[2]}' does not exist: training goes on" in said[0]


@pytest.mark.parametrize('characters', [0, 2, 9])
def test_a_part_of_the_note(folder, said, characters):
    """What it is a part of is newer than what was there before."""
    note = folder / 'last_checkpoint'
    note.write_text(note.read_text()[:characters])
    assert chosen(folder) == str(folder / NAMES[2])
    assert len(said) == 1


def test_checkpoints_elsewhere(folder, said, tmp_path_factory):
    """``CheckpointHook`` has an ``out_dir``."""
    work = tmp_path_factory.mktemp('work')
    (work / 'last_checkpoint').write_text(str(folder / NAMES[2]))
    cut(folder / NAMES[2])
    assert chosen(work) == str(folder / NAMES[1])


def test_nothing_is_left(folder):
    for name in NAMES:
        cut(folder / name)
    with pytest.raises(UsageError, match='and no other .* is whole') as caught:
        chosen(folder)
    assert '\n' not in str(caught.value)
