"""Adaptive detectors inside of other models of mmdet."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.fileio import load
from mmengine.registry import MODELS
from mmengine.runner import Runner, TestLoop

from mutualnet_mm import ConfigError, UsageError
from mutualnet_mm.config import check_training
from mutualnet_mm.engine import calibrate, loops


@pytest.fixture
def detector(box_detector):
    """Config of a small Faster R-CNN, as what others hold."""
    return box_detector().model


def around(detector, kind='SemiBaseDetector'):
    """A student and a teacher of it."""
    return ConfigDict(
        type=kind,
        detector=detector,
        data_preprocessor=dict(
            type='MultiBranchDataPreprocessor',
            data_preprocessor=detector.data_preprocessor,
        ),
        semi_train_cfg=dict(
            sup_weight=1.0,
            unsup_weight=2.0,
            cls_pseudo_thr=0.0,
            pseudo_label_initial_score_thr=0.0,
            rpn_pseudo_thr=0.0,
            reg_pseudo_thr=1.0,
            jitter_times=2,
            jitter_scale=0.06,
        ),
        semi_test_cfg=dict(predict_on='teacher'),
    )


@pytest.fixture
def branches(load_batch):
    """Inputs and samples of the three branches, preprocessed."""

    def make(model):
        inputs, samples = {}, {}
        for name, indices in (
            ('sup', (0, 1)),
            ('unsup_teacher', (2, 3)),
            ('unsup_student', (2, 3)),
        ):
            data = model.student.data_preprocessor(load_batch(indices), True)
            for sample in data['data_samples']:
                scale = np.diag([*sample.scale_factor, 1.0])
                sample.set_metainfo(
                    dict(homography_matrix=scale.astype(np.float32))
                )
                if name != 'sup':
                    del sample.gt_instances
            inputs[name], samples[name] = data['inputs'], data['data_samples']
        return inputs, samples

    return make


def gradients(model):
    return {
        name: parameter.grad
        for name, parameter in model.student.named_parameters()
    }


def test_students_learn_from_labels_and_from_the_teacher(detector, branches):
    """All subnets do, by what each of the two losses of a step weighs."""
    model = MODELS.build(around(detector))
    model.student.init_weights()
    model.teacher.load_state_dict(model.student.state_dict())
    other = copy.deepcopy(model)
    inputs, samples = branches(model)

    torch.manual_seed(0)
    losses = model.train().loss(copy.copy(inputs), copy.deepcopy(samples))
    assert {'sup_min/total', 'unsup_rand1/total'} < losses.keys()
    model.parse_losses(losses)[0].backward()

    torch.manual_seed(0)
    student = other.train().student
    samples = copy.deepcopy(samples)
    student.parse_losses(student.loss(inputs['sup'], samples['sup']))[
        0
    ].backward()
    found, _ = other.get_pseudo_instances(
        inputs['unsup_teacher'], samples['unsup_teacher']
    )
    pseudo = other.project_pseudo_instances(found, samples['unsup_student'])
    assert all(len(sample.gt_instances) for sample in pseudo)
    loss, _ = student.parse_losses(
        student.loss(inputs['unsup_student'], pseudo)
    )
    (2 * loss).backward()

    expected = gradients(other)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name])
    assert all(p.grad is None for p in model.teacher.parameters())


def test_soft_teachers_are_refused(detector, branches):
    """They train parts of the student: narrow subnets would not learn."""
    model = MODELS.build(around(detector, 'SoftTeacher'))
    model.student.init_weights()
    model.teacher.load_state_dict(model.student.state_dict())
    with pytest.raises(UsageError, match=r'loss\(\) \(SemiBaseDetector'):
        model.train().loss(*branches(model))


def test_detectors_without_a_preprocessor(detector, branches):
    model = MODELS.build(around(detector))
    inputs, samples = branches(model)
    model.student.data_preprocessor = torch.nn.Identity()
    with pytest.raises(ConfigError, match='FasterRCNN has no data_prepro'):
        model.train().loss(inputs, samples)


@pytest.mark.parametrize('predicts', ['teacher', 'student'])
def test_subnets_of_a_teacher(box_detector, detector, tmp_path, predicts):
    """As of the same detector by itself."""
    cfg = box_detector()
    plain = Runner.from_cfg(cfg)
    plain.model.init_weights()
    plain.test()
    names = ('found.pkl', 'found.0.25x-48.pkl')
    expected = [load(tmp_path / name) for name in names]

    cfg.experiment_name = f'around{predicts}'
    cfg.custom_hooks = [
        dict(
            type='mutualnet_mm.BNCalibrationHook',
            dataloader=cfg.train_dataloader,
        )
    ]
    cfg.model = around(detector)
    cfg.model.semi_test_cfg.predict_on = predicts
    runner = Runner.from_cfg(cfg)
    getattr(runner.model, predicts).load_state_dict(plain.model.state_dict())
    runner.test()
    for name, others in zip(names, expected):
        for sample, other in zip(load(tmp_path / name), others):
            for key in ('scores', 'bboxes'):
                assert torch.equal(
                    sample['pred_instances'][key], other['pred_instances'][key]
                )


def test_calibration_on_branches(detector):
    model = MODELS.build(detector)
    batch = dict(inputs=dict(sup=[], unsup_student=[]), data_samples={})
    with pytest.raises(ConfigError, match=r'branches \(sup, unsup_student\)'):
        calibrate(model, ['0.25x-48'], [batch])


@pytest.mark.parametrize('skips', [None, True, False])
def test_batch_norms_of_a_teacher(detector, monkeypatch, skips):
    hook = dict(type='mmdet.MeanTeacherHook')
    if skips is not None:
        hook.update(skip_buffer=skips)
    cfg = Config(
        dict(
            model=around(detector),
            custom_hooks=[hook],
            train_dataloader=dict(),
            train_cfg=dict(),
            optim_wrapper=dict(),
        )
    )
    if skips is False:
        check_training(cfg)
        return
    with pytest.raises(ConfigError, match='set skip_buffer=False'):
        check_training(cfg)


@pytest.mark.parametrize('skips', [True, False])
def test_batch_norms_of_a_teacher_in_any_tool(box_detector, detector, skips):
    """The projects' own tools ask the loop alone."""
    cfg = box_detector(
        model=around(detector),
        custom_hooks=[dict(type='mmdet.MeanTeacherHook', skip_buffer=skips)],
        val_cfg=dict(type='mutualnet_mm.SubnetValLoop'),
    )
    cfg.val_dataloader, cfg.val_evaluator = (
        cfg.test_dataloader,
        cfg.test_evaluator,
    )
    runner = Runner.from_cfg(cfg)
    assert runner.val_loop.subnets  # by itself it trains nothing
    runner._val_loop = cfg.val_cfg
    runner._train_loop = TestLoop.__new__(TestLoop)  # one that was built
    if skips:
        with pytest.raises(ConfigError, match='set skip_buffer=False'):
            runner.val_loop  # noqa: B018  (it is built when it is asked for)
    else:
        assert runner.val_loop.subnets


def test_optimizers_that_hold_parameters_twice():
    """A constructor may list layers inside of layers by themselves, too."""
    model = torch.nn.Linear(2, 2)
    groups = [dict(params=[model.weight]), dict(params=[model.bias])]
    optimizer = SimpleNamespace(param_groups=groups)
    runner = SimpleNamespace(hooks=[], optim_wrapper=optimizer)
    loops._check_training(runner, model)
    groups[1]['params'].append(model.weight)
    with pytest.raises(ConfigError, match='1 parameters twice .* as weight'):
        loops._check_training(runner, model)


@MODELS.register_module(force=True)
class Followed(torch.nn.Module):
    """Takes what is found as the tracks."""

    def track(self, data_sample):
        return data_sample.pred_instances


def test_trackers(box_detector, detector, load_batch):
    """They train the detector by its loss(); tests are the detector's."""
    model = MODELS.build(
        dict(
            type='ByteTrack', detector=detector, tracker=dict(type='Followed')
        )
    )
    model.detector.init_weights()
    data = model.detector.data_preprocessor(load_batch(), True)
    losses = model.train()(**data, mode='loss')
    assert {'loss_mutual', 'min/total'} < losses.keys()

    cfg = box_detector(model=dict(type='ByteTrack', detector=detector))
    with pytest.raises(ConfigError, match='ByteTrack tracks what its'):
        Runner.from_cfg(cfg).test()
