"""JSON whose values are those that were written, or an error."""

import json

import pytest

from mutualnet_mm.checked_json import (
    check_unchanged,
    checked_json,
    json_sha256,
    read_json,
)

CONTENT = {'b': [1, 2.5, None, 'x'], 'a': {'c': True}}


def test_it_is_json_with_a_checksum_at_its_end(tmp_path):
    text = checked_json(CONTENT).decode()
    found = json.loads(text)
    assert list(found) == ['b', 'a', 'sha256']
    # By hand: keys in order, no spaces.
    plain = '{"a":{"c":true},"b":[1,2.5,null,"x"]}'
    assert json.dumps(CONTENT, sort_keys=True, separators=(',', ':')) == plain
    assert found.pop('sha256') == json_sha256(json.loads(plain))
    assert found == CONTENT
    (tmp_path / 'a.json').write_text(text)
    check_unchanged(read_json(tmp_path / 'a.json'), ())


@pytest.mark.parametrize('damage', ['value', 'key', 'checksum', 'removed'])
def test_what_was_changed(damage):
    content = json.loads(checked_json(CONTENT))
    if damage == 'value':
        content['b'][1] = 2.6
    elif damage == 'key':
        content['sha257'] = content.pop('sha256')
    elif damage == 'checksum':
        content['sha256'] = None
    else:
        del content['a']
    with pytest.raises(ValueError, match='sha256'):
        check_unchanged(content, {'a', 'b'})


def test_files_without_a_checksum():
    check_unchanged(CONTENT, {'a', 'b', 'c'})
    with pytest.raises(ValueError, match="'a' is unknown, and no sha256"):
        check_unchanged(CONTENT, {'b'})


@pytest.mark.parametrize(
    'text, message',
    [
        ('{"a": 1, "b": 2, "a": 1}', "'a' comes twice"),
        ('[' * 200_000, 'brackets in brackets without end'),
        ('{"a": ' * 200_000, 'brackets in brackets without end'),
        ('{"a": 1', 'Expecting'),
        ('{"a": ' + '9' * 10_000 + '}', 'digits'),
    ],
)
def test_what_is_refused(tmp_path, text, message):
    (tmp_path / 'a.json').write_text(text)
    with pytest.raises(ValueError, match=message):
        read_json(tmp_path / 'a.json')


def test_a_file_that_would_not_fit_into_memory(tmp_path):
    """Its size is asked before anything is read."""
    with (tmp_path / 'a.json').open('wb') as file:
        file.truncate(2**40)  # a hole: it takes no space
    with pytest.raises(ValueError, match='1099511627776 bytes, more than'):
        read_json(tmp_path / 'a.json')
