"""Answers of networks, read again from what they predict."""

import adaptive_networks as nets
import pytest
import torch

from mutualnet_mm import Subnet
from mutualnet_mm.engine.answers import AnswerBook

KINDS = ['classifier', 'slow', 'slowfast', 'tsn']


@pytest.fixture
def predicted(request):
    """Return a model and its predictions on two labelled batches."""

    def predict(kind, averaged='prob', **head):
        model, bank = nets.network(kind, request)
        if kind == 'classifier':
            vars(model.head).update(head)
        else:
            model.cls_head.average_clips = averaged
            model.cls_head.fc_cls.weight.data.mul_(20)
        subnet = Subnet.parse(nets.KINDS[kind][1][1])
        batches = []
        for seed in range(2):
            inputs, samples = nets.full_batch(model, number=5, seed=seed)
            if kind in ('slow', 'slowfast'):  # a second view
                inputs = torch.cat([inputs, inputs.flip(-1)], dim=1)
            for i, sample in enumerate(samples):
                sample.set_gt_label((i + seed) % 4)
            resized = model.task.resize(model, inputs, samples, subnet)
            with torch.no_grad(), model.activate(subnet, bank[str(subnet)]):
                batches.append(model(*resized, mode='predict'))
        return model, batches

    return predict


@pytest.mark.parametrize('averaged', ['prob', 'score'])
@pytest.mark.parametrize('kind', KINDS)
def test_label_truth_and_confidence(kind, averaged, predicted):
    model, batches = predicted(kind, averaged)
    book = AnswerBook(model)
    for batch in batches:
        book.add(batch)
    found, samples = book.finish(), sum(batches, [])
    assert found.truth.tolist() == [s.gt_label.item() for s in samples]
    right = [s.pred_label.item() == s.gt_label.item() for s in samples]
    assert found.right.tolist() == right
    for confidence, sample in zip(found.confidence.tolist(), samples):
        scores = sample.pred_score
        if averaged == 'score' and kind != 'classifier':
            assert scores.sum() != pytest.approx(1)
            scores = scores.exp() / scores.exp().sum()
        assert confidence == pytest.approx(scores.max().item())
        assert 1 / len(scores) < confidence < 1


def clear_labels(samples):
    for sample in samples[:1]:
        del sample.gt_label


def add_labels(samples):
    samples[0].set_gt_label([0, 1])


@pytest.mark.parametrize('change', [clear_labels, add_labels])
def test_images_without_one_label(change, predicted):
    model, (first, second) = predicted('classifier')
    book = AnswerBook(model)
    book.add(first)
    change(second)
    book.add(second)
    assert book.finish() is None
    assert book.why_not == 'not every image has one label'
    book.add(first)  # changes nothing
    assert book.finish() is None


@pytest.mark.parametrize(
    'kind, change',
    [
        ('slow', lambda m: setattr(m.cls_head, 'average_clips', None)),
        ('slow', lambda m: setattr(m.cls_head, 'multi_class', True)),
        ('classifier', lambda m: setattr(m.head, 'use_sigmoid', True)),
    ],
)
def test_networks_of_no_exclusive_classes(kind, change, predicted):
    model, (first, _) = predicted(kind)
    change(model)
    book = AnswerBook(model)
    book.add(first)
    assert book.finish() is None
    assert book.why_not.startswith('the network predicts no probabilities')


def test_clips_that_are_not_averaged(predicted):
    """They have a score for each view."""
    model, (first, _) = predicted('slow', averaged=None)
    assert first[0].pred_score.dim() == 2
    book = AnswerBook(model)
    book.add(first)
    assert book.finish() is None


def test_detectors_have_none(request):
    model, _ = nets.network('detector', request)
    _, samples = nets.full_batch(model)
    book = AnswerBook(model)
    book.add(samples)
    assert book.finish() is None and 'predicts no prob' in book.why_not
