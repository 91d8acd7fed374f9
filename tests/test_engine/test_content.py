"""What a test set holds, by its own words and the sizes of its files."""

import numpy as np
import pytest
from mmengine.dataset import BaseDataset, ConcatDataset

from mutualnet_mm.engine.content import content_fingerprint


class Boxes(BaseDataset):
    """A data set of samples that it is given."""

    def __init__(self, *infos):
        self.infos = infos
        super().__init__()

    def load_data_list(self):
        return list(self.infos)


def sample(path, box=2.0, **more):
    return dict(img_path=str(path), boxes=np.full((1500, 4), box), **more)


def test_the_same(tmp_path):
    path = tmp_path / 'a.png'
    path.write_bytes(b'123')
    found = {
        content_fingerprint(
            Boxes(
                sample(path, kind=object, by={1: 2, 'a': {'b', 'c'}, (4,): 5})
            )
        )
        for _ in range(3)
    }
    assert len(found) == 1


@pytest.mark.parametrize('what', ['file', 'box', 'label', 'more', 'order'])
def test_what_has_changed(tmp_path, what):
    path, other = tmp_path / 'a.png', tmp_path / 'b.png'
    path.write_bytes(b'123')
    before = [sample(path), sample(other, label=1)]
    found = content_fingerprint(Boxes(*before))
    after = [sample(path), sample(other, label=1)]
    if what == 'file':
        path.write_bytes(b'12345')
    elif what == 'box':
        after[0]['boxes'][700, 1] += 1  # of many
    elif what == 'label':
        after[1]['label'] = 0
    elif what == 'more':
        after.append(sample(other))
    else:
        after.reverse()
    assert content_fingerprint(Boxes(*after)) != found


def test_wrappers_and_others(tmp_path):
    """Of a list nothing but its length is known."""
    assert content_fingerprint([1, 2]) == content_fingerprint([3, 4])
    assert content_fingerprint([1, 2]) != content_fingerprint([1])
    parts = Boxes(sample('a')), Boxes(sample('b'))
    other = Boxes(sample('a')), Boxes(sample('c'))
    found = [content_fingerprint(ConcatDataset(p)) for p in (parts, other)]
    assert found[0] != found[1]


@pytest.mark.parametrize('offset', [None, 0, 4])
@pytest.mark.parametrize('template', ['img_{:05}.jpg', '{}_{:05}.jpg'])
def test_folders_of_frames(tmp_path, template, offset):
    """Where a clip begins; of optical flow no frame is known."""
    video = dict(frame_dir=str(tmp_path), start_index=1, total_frames=8)
    if offset is not None:
        video.update(offset=offset)
    videos = Boxes(dict(video, filename_tmpl=template))
    frame = tmp_path / f'img_{1 + (offset or 0):05}.jpg'
    frame.write_bytes(b'123')
    before = content_fingerprint(videos)
    frame.write_bytes(b'12345')
    is_same = content_fingerprint(videos) == before
    assert is_same == template.startswith('{}')
