"""projects: images in memory, and the plan of the study of the claim."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mutualnet_mm.apis import count_macs
from mutualnet_mm.cost import expected_macs
from mutualnet_mm.errors import UsageError

pytest.importorskip('mmpretrain')
PROJECTS = Path(__file__).parents[1] / 'projects'


@pytest.fixture(scope='module')
def loaded():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PROJECTS))
        import claim_images
        import claim_methods
        import claim_report
        import claim_study
    return claim_images, claim_methods, claim_study, claim_report


@pytest.fixture
def modules(loaded, enter_scope):
    enter_scope('mmpretrain')
    return loaded


@pytest.fixture
def file(tmp_path):
    """Images whose values tell which one it is, and where a pixel was."""
    rng = np.random.default_rng(0)
    path = tmp_path / 'images.npz'
    arrays = {}
    for split, number in (('train', 12), ('test', 5)):
        arrays[f'{split}_images'] = rng.integers(
            1, 256, (number, 16, 16, 3), np.uint8
        )
        arrays[f'{split}_labels'] = np.arange(number) % 10
    np.savez(path, **arrays)
    return path


def test_crops_and_mirrors(modules):
    """Every result is some crop of the padded image, mirrored or not."""
    images = torch.randint(1, 256, (40, 3, 6, 5), dtype=torch.uint8)
    crop = modules[0].CropAndFlip(padding=2)
    found = crop(dict(images=images, labels=None))['images']
    seen = set()
    for image, result in zip(images.numpy(), found.numpy()):
        padded = np.pad(image, ((0, 0), (2, 2), (2, 2)))
        places = [
            (top, left, mirror)
            for top in range(5)
            for left in range(5)
            for mirror in (1, -1)
            if np.array_equal(
                padded[:, top : top + 6, left : left + 5][..., ::mirror],
                result,
            )
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) > 20 and {mirror for *_, mirror in seen} == {1, -1}


def test_batches(modules, file):
    loader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='one_batch'),
        dataset=dict(
            type='ImageBatches',
            file=str(file),
            split='train',
            part=(3, 8),
            pipeline=[
                dict(type='ShrinkBatch', size=12),
                dict(type='PackBatch'),
            ],
        ),
    )
    batches = list(Runner.build_dataloader(loader))
    assert [len(batch['inputs']) for batch in batches] == [2, 2, 1]
    labels = [s.gt_label.item() for b in batches for s in b['data_samples']]
    assert labels == [3, 4, 5, 6, 7]
    with np.load(file) as arrays:
        image = torch.from_numpy(arrays['train_images'][5])
    expected = torch.nn.functional.interpolate(
        image.permute(2, 0, 1)[None].float(),
        (12, 12),
        mode='bilinear',
        antialias=True,
    )
    torch.testing.assert_close(batches[1]['inputs'][:1], expected)


def test_prepared_images(modules, tmp_path, monkeypatch):
    """Shrunk by the mean of four, shuffled, each with its own label."""
    images = modules[0]
    values = np.arange(6, dtype=np.uint8)[:, None, None, None]
    plain = np.tile(values * 10, (1, 4, 4, 1))
    plain[:, ::2] += 4
    monkeypatch.setitem(
        images.READERS, 'made', lambda folder, split: (plain, np.arange(6))
    )
    file = images.prepare_images('made', tmp_path, tmp_path, 2)
    with np.load(file) as arrays:
        found, labels = arrays['train_images'], arrays['train_labels']
    assert found.shape == (6, 2, 2, 1) and list(labels) != sorted(labels)
    assert (found == labels[:, None, None, None] * 10 + 2).all()


@pytest.mark.parametrize(
    ('data', 'factor'),
    [('cifar10', 'EQUAL_COST'), ('cifar10-few', 'WIDE_COST')],
)
def test_equal_cost(modules, data, factor):
    """The factor is the real one, of the model that is trained."""
    _, methods, study, _ = modules
    mutual = methods.methods()['mutualnet'].mutual
    model = MODELS.build(study.model(mutual, methods.DATA[data]))
    full = count_macs(model, model.space.full)
    ratio = expected_macs(model, [model.sampler])[0] / full
    assert ratio == pytest.approx(getattr(methods, factor), rel=0.01)


def test_costs(modules, tmp_path):
    """Of a line of the tables: of eight networks, or of the one network."""
    _, methods, study, report = modules
    made = report.ClaimReport(
        study.ClaimStudy({'cifar10': tmp_path}, tmp_path)
    )
    lines = {line.name: line for line in made._lines('cifar10')}
    costs = {
        name: made.cost('cifar10', lines[name])
        for name in (
            *('mutualnet', 'usnet'),
            *('each alone, 41 epochs', 'each alone, 124 epochs'),
        )
    }
    assert costs['mutualnet'] == pytest.approx(methods.EQUAL_COST, rel=0.01)
    macs = made.macs['cifar10']
    single = [macs[subnet] / macs[methods.GRID[0]] for subnet in methods.GRID]
    expected = sum(single) * 124 / 64
    assert costs['each alone, 124 epochs'] == pytest.approx(expected)
    together = costs['each alone, 41 epochs']
    assert together == pytest.approx(costs['mutualnet'], rel=0.02)
    # At one size, all widths cost what they cost there.
    assert 2 < costs['usnet'] < 4
    # Seven networks learn, each with a forward pass of the teacher, which was
    # trained before.
    made.study.best_rate = lambda data, method: 0.1
    found = made.cost('cifar10', lines['each alone, 124 epochs, distilled'])
    expected = (sum(single[1:]) + 7 / 3) * 124 / 64 + 1
    assert found == pytest.approx(expected)
    # One network is taught; its teacher's weights are not here.
    found = made.cost('cifar10', lines[methods.TAUGHT])
    assert found == pytest.approx(costs['mutualnet'] + 1 / 3 + 1)


@pytest.fixture
def planned(modules, tmp_path, monkeypatch):
    """A study whose runs find what a test says, and all that it asks for."""
    _, methods, study, _ = modules
    images = dict.fromkeys(methods.DATA, tmp_path)

    def make(accuracy, held_back=None):
        made = study.ClaimStudy(images, tmp_path)

        def score(run):
            value = accuracy(run)
            method = made.method(run.method)
            subnets = (*method.subnets, *method.more)
            found = {
                kind: dict.fromkeys(subnets, value) for kind in study.KINDS
            }
            if not run.use:
                value = (held_back or accuracy)(run)
                found[study.HELD_BACK] = dict.fromkeys(subnets, value)
            return found

        done = {}
        monkeypatch.setattr(made, 'result', lambda run: done.get(str(run)))
        monkeypatch.setattr(
            made,
            'weights',
            lambda run: Path(__file__),  # one that exists
        )
        for _ in range(20):
            plan = made.planned()
            left = [run for run in plan if run and str(run) not in done]
            if not left:
                break
            done.update({str(run): score(run) for run in left})
        assert None not in plan
        return made, plan

    return make


def test_plan(modules, planned):
    """Nothing twice; each budget has a network of its own, of each length."""
    methods = modules[1]
    study, plan = planned(lambda run: 50.0)
    assert len(set(map(str, plan))) == len(plan)
    reported = [run for run in plan if not run.use]
    for data in study.images:
        for subnet in methods.GRID:
            alone = {
                (run.epochs, run.seed)
                for run in reported
                if (run.data, run.method) == (data, methods.alone(subnet))
            }
            epochs = [16 if data == 'cifar10-few' else 41, 64, 124]
            assert alone >= set(itertools.product(epochs, range(3)))
    assert {run.method for run in reported} >= {
        *methods.methods(),
        methods.COMBINED,
    }
    singles = set(map(methods.alone, methods.GRID))
    few = [run for run in plan if run.data == 'cifar10-few']
    expected = {'mutualnet', methods.COMBINED, *singles}
    assert {run.method for run in few} == expected
    for name, longest in (('mutualnet', 64), ('alone-0.5x-12', 124)):
        searched = [r for r in few if r.use == 'search' and r.method == name]
        assert {run.epochs for run in searched} == {longest}
    full = [r for r in reported if r.method == methods.alone(methods.GRID[0])]
    for data in study.whole:
        lengths = {run.epochs for run in full if run.data == data}
        assert lengths == {16, 32, 41, 64, 124}
        ours = {
            (run.epochs, run.seed)
            for run in reported
            if (run.data, run.method) == (data, 'mutualnet')
        }
        assert ours == set(itertools.product((16, 32, 64, 124), range(3)))
    main = [r.seed for r in reported if r.method in {*singles, 'usnet'}]
    whole = [
        r.seed
        for r in reported
        if r.method == 'usnet' and r.data in study.whole
    ]
    assert main[0] == 0 and whole == sorted(whole)
    seeds = {
        kind: [r.seed for r in reported if r.method == f'{kind}-0.5x-12']
        for kind in ('alone', 'distilled')
    }
    assert set(seeds['alone']) == set(seeds['distilled']) == {0, 1, 2}
    # Nothing is chosen by test images.
    held_back = {run.use for run in plan if run.method == 'mutualnet'}
    assert held_back == {'', 'search'}


@pytest.mark.parametrize('best', [0.01, 0.1, 1.0])
def test_rates_go_on_beyond_the_end(planned, best):
    """The best of the first three has neighbours on both sides in the end."""
    study, _ = planned(lambda run: 50 - 10 * abs(np.log10(run.rate / best)))
    assert study.best_rate('cifar10', 'usnet') == best
    rates = [run.rate for run in study.search_runs('cifar10', 'usnet')]
    assert min(rates) < best < max(rates)


def test_finalists(modules, planned, monkeypatch):
    """The best at length, of the best two after short trainings and lower."""
    _, methods, study, report = modules
    short = {0.1: 53.0, 0.3: 54.0, 1.0: 52.0}

    def accuracy(run):  # on test images, which choose nothing
        return short.get(run.rate, 50.0) if run.use else 60 + run.rate

    def held_back(run):
        return 70 - abs(np.log10(run.rate / 0.1))

    made, plan = planned(accuracy, held_back)
    usnet = [run for run in plan if run.method == 'usnet' and not run.use]
    assert [run.rate for run in usnet[:2]] == [0.3, 0.1]
    assert {run.rate for run in usnet[2:]} == {0.03, 0.1, 0.3}
    assert all(run.rate == 0.1 for run in usnet if run.seed)
    assert made.best_rate('cifar10', 'usnet') == 0.1
    # What is trained on few images is searched at full length.
    assert made.finalists('cifar10-few', 'mutualnet') == []
    assert made.best_rate('cifar10-few', 'mutualnet') == 0.3
    monkeypatch.setattr(
        report.ClaimReport, '_count_macs', lambda self, data: {}
    )
    found = report.ClaimReport(made)
    scores = found.scores('cifar10', 'usnet', 64, methods.GRID[0], 'paper')
    assert scores == dict.fromkeys(range(3), 60.1)
    rates = found._rates('cifar10')
    assert '| usnet | 0.1 | 0.03: 50.0, 0.1: 53.0, 0.3: 54.0' in rates
    assert '| 0.3: 69.5, 0.1: 70.0, 0.03: 69.5 |' in rates
    unknown = study.ClaimStudy(made.images, made.out)
    assert unknown.finalists('cifar10', 'usnet') is None


def test_rates_that_are_equal(planned):
    """Neither of two best ones is at the end."""
    study, _ = planned(lambda run: 50 + (run.rate in (0.1, 0.3)))
    rates = [run.rate for run in study.search_runs('cifar10', 'usnet')]
    assert rates == [0.03, 0.1, 0.3, 1.0]


def test_a_rate_serves_both_kinds_of_statistics(modules, tmp_path):
    """The mean of both decides, over all subnets."""
    _, methods, study, _ = modules
    made = study.ClaimStudy({'cifar10': tmp_path}, tmp_path)
    run = methods.Run('cifar10', 'usnet', 0.1, 16, 0, 'search')
    assert made.score(run) is None
    a, b = methods.GRID[:2]
    made.records[str(run)] = dict(
        paper={a: 60.0, b: 50.0}, tested={a: 58.0, b: 40.0}, fitted={a: 99.0}
    )
    assert made.score(run) == pytest.approx(52.0)


def test_a_combination_is_of_all_data(modules, planned):
    """Of one data set other options would be chosen, by the same name."""
    _, methods, study, _ = modules
    made, plan = planned(lambda run: 50.0)
    assert methods.COMBINED in {run.method for run in plan}
    del made.images['fashion-mnist']
    plan = made.planned()
    assert plan and methods.COMBINED not in {run.method for run in plan}


def test_runs_with_a_teacher_that_are_in_the_records(modules, tmp_path):
    """They are planned as such, though the teacher's weights are not here."""
    _, methods, study, _ = modules
    made = study.ClaimStudy({'cifar10': tmp_path}, tmp_path)
    made.best_rate = lambda data, method: 0.1
    name = methods.distilled(methods.GRID[3])
    ask = (made.final_run, ('cifar10', name, 124, 0))
    teacher = ask[0](*ask[1])
    assert teacher.use == 'teacher'
    # What a teacher has found elsewhere is of no use: its weights are there.
    accuracies = {kind: {methods.GRID[0]: 50.0} for kind in study.KINDS}
    made.records[str(teacher)] = accuracies
    assert ask[0](*ask[1]) == teacher
    run = methods.Run('cifar10', name, 0.1, 124, 0)
    made.records[str(run)] = accuracies
    assert ask[0](*ask[1]) == run


def test_own_runs_go_before_records(modules, tmp_path):
    """Rounded as these are: a table must not differ by where a run was."""
    _, methods, study, _ = modules
    made = study.ClaimStudy({'cifar10': tmp_path}, tmp_path)
    run = methods.Run('cifar10', 'usnet', 0.1, 64, 0)
    made.records[str(run)] = dict(paper={methods.GRID[0]: 50.0})
    assert made.result(run) == made.records[str(run)]
    folder = tmp_path / 'runs' / str(run)
    folder.mkdir(parents=True)
    (folder / 'result.json').write_text(
        '{"accuracy": {"paper": {"1.0x-16": 61.04999923706055}}}'
    )
    assert made.result(run) == dict(paper={methods.GRID[0]: 61.05})


def test_what_is_left_to_do(modules, tmp_path):
    """Runs of before more was asked of them are tested again."""
    _, methods, study, _ = modules
    made = study.ClaimStudy(dict.fromkeys(methods.DATA, tmp_path), tmp_path)
    ours = made.methods['mutualnet']
    some, every = (
        dict.fromkeys(subnets, 50.0)
        for subnets in (ours.subnets, (*ours.subnets, *ours.more))
    )
    single = {methods.GRID[4]: 50.0}
    name = methods.alone(methods.GRID[4])
    for run, found, is_done in (
        (methods.Run('cifar10', 'mutualnet', 0.1, 64, 0), some, False),
        (methods.Run('cifar10', 'mutualnet', 0.1, 64, 1), every, True),
        (
            methods.Run('cifar10', 'mutualnet', 0.1, 16, 0, 'search'),
            some,
            True,
        ),
        (methods.Run('cifar10', name, 0.1, 64, 0), single, True),
        (methods.Run('cifar10-few', name, 0.1, 64, 0), single, False),
    ):
        assert not made.is_done(run)
        made.records[str(run)] = dict(paper=found, tested=found)
        assert made.is_done(run) == is_done, run
        assert made.result(run)
        made.records[str(run)][study.HELD_BACK] = found
        assert made.is_done(run) or found is some


def test_combination(modules, planned):
    """Of what helped on both data sets together; the better of two rivals."""
    _, methods, claim_study, claim_report = modules
    gains = dict(start=1, next=2, label=-3, alpha=-1, ema=1, weights=-1)

    def accuracy(run):
        name = run.method.split('-')[-1]
        factor = -0.5 if run.data == 'cifar10' else 1
        return 50 + factor * gains.get(name, 0)

    study, plan = planned(accuracy)
    assert study.combination() == dict(start=0.5, **methods.OPTIONS['next'])
    chosen = "start=0.5, teacher='next', label_weight=1.0, stratified=True"
    assert claim_report.chosen(study) == f'Chosen: `{chosen}`.'
    assert claim_report.chosen(planned(lambda run: 50.0)[0]) == 'Chosen: none.'
    unknown = claim_study.ClaimStudy(study.images, study.out)
    assert claim_report.chosen(unknown) == 'Chosen: not known yet.'
    assert methods.COMBINED in {run.method for run in plan}


def test_report(modules, planned, tmp_path, monkeypatch):
    """Means, gains over networks alone of the same seed, and the records."""
    _, methods, study, report = modules

    def accuracy(run):
        return 60 + run.seed + run.method.startswith('mutualnet') * 2

    made, plan = planned(accuracy)
    monkeypatch.setattr(
        report.ClaimReport,
        '_count_macs',
        lambda self, data: {
            subnet: int(1e6 * subnet.width * subnet.resolution)
            for method in made.methods.values()
            for subnet in (*method.subnets, *method.more)
        },
    )

    def cost(made, data, line):
        """Eight networks cost as much after 41 epochs as one after 64."""
        base = 41 if line.method is methods.alone else 64
        return 1.5 * (line.epochs or 64) / base

    monkeypatch.setattr(report.ClaimReport, 'cost', cost)
    folder, page = tmp_path / 'claim', tmp_path / 'claim.md'
    folder.mkdir()
    # Of a rate that is no longer the best.
    made.records['other'] = dict(paper={methods.GRID[0]: 12.0})
    made_report = report.ClaimReport(made)
    made_report.write(folder)
    lines = [
        line
        for line in page.read_text().splitlines()
        if '| mutualnet |' in line
    ]
    assert '63.0 ± 1.0' in lines[0] and '+2.0 ± 0.0' in lines[1]
    columns = len(methods.GRID) + 3  # method, cost, and the mean
    assert lines[0].count(' | ') == columns - 1
    # Nothing is compared with what is trained both shorter and for less.
    gains = made_report.tables()['cifar10-paper-gains'].splitlines()
    bases = {
        name: [row.split('|')[2] for row in gains if row[2:].startswith(name)]
        for name in ('mutualnet |', 'mutualnet, 124 epochs', 'usnet |')
    }
    names = [f' each alone, {epochs} epochs ' for epochs in (41, 64, 124)]
    assert bases['mutualnet |'] == names
    assert bases['usnet |'] == [*names, ' mutualnet ']
    assert bases['mutualnet, 124 epochs'] == names[2:]
    assert lines[0].startswith('| mutualnet | 1.50 |')
    table = made_report.tables()['cifar10-usnet']
    assert (
        '| 0.35x-16 | 5.60 | tested | 61.0 ± 1.0 | 63.0 ± 1.0 | +2.0 ± 0.0 |'
    ) in table
    assert (folder / 'cifar10.png').stat().st_size > 10000
    page.write_text('Rates:\n<!-- cifar10-rates -->\nold\n<!-- end -->\nend\n')
    made_report.write(folder)
    rates = made_report.tables()['cifar10-rates']
    assert page.read_text() == (
        f'Rates:\n<!-- cifar10-rates -->\n\n{rates}\n\n<!-- end -->\nend\n'
    )
    again = study.ClaimStudy(made.images, tmp_path, folder / 'records.csv')
    run = next(run for run in plan if run.method == 'usnet' and not run.use)
    assert again.result(run) == made.result(run)
    assert again.records['other'] == made.records['other']


def test_the_best_length_alone(modules, planned, monkeypatch):
    """By images held back; test images say otherwise."""
    _, methods, _, report = modules
    best = {methods.alone(s): e for s, e in zip(methods.GRID, (64, 124) * 4)}
    made, _ = planned(
        lambda run: {16: 70.0, 64: 50.0}.get(run.epochs, 60.0),
        lambda run: 40 + 5 * (best.get(run.method) == run.epochs) + run.seed,
    )
    macs = {
        subnet: int(1e6 * subnet.width * subnet.resolution)
        for method in made.methods.values()
        for subnet in (*method.subnets, *method.more)
    }
    monkeypatch.setattr(
        report.ClaimReport, '_count_macs', lambda self, data: macs
    )
    made_report = report.ClaimReport(made)
    row = next(
        line.split(' | ')
        for line in made_report.tables()['cifar10-few-paper'].splitlines()
        if line.startswith('| each alone, best length |')
    )
    assert row[2:10] == ['50.0 ± 0.0', '60.0 ± 0.0'] * 4
    assert row[10] == '55.0 ± 0.0 |'
    # All networks of that line, in units of the full one for 64 epochs.
    names = [methods.alone(s) for s in methods.GRID]
    steps = [made_report._step_macs('cifar10-few', n) for n in names]
    cost = sum(s * e for s, e in zip(steps, best.values()))
    expected = cost / 64 / macs[methods.GRID[0]]
    assert row[1] == f'{expected:.2f}'


def test_a_report_of_less_than_the_page(modules, tmp_path):
    """It is refused before anything is written."""
    _, methods, study, report = modules
    made = report.ClaimReport(
        study.ClaimStudy({'cifar10': tmp_path}, tmp_path)
    )
    page, text = tmp_path / 'claim.md', '<!-- made-rates -->\n<!-- end -->\n'
    page.write_text(text)
    (tmp_path / 'claim').mkdir()
    with pytest.raises(UsageError, match='not made here: made-rates'):
        made.write(tmp_path / 'claim')
    assert page.read_text() == text and not list(
        (tmp_path / 'claim').iterdir()
    )


def test_interval(modules):
    """By hand: t of 2 degrees of freedom is 4.303."""
    interval = modules[3].interval
    assert interval([1.0, 2.0, 3.0]) == f'+2.0 ± {4.303 / 3**0.5:.1f}'
    assert interval([-1.0]) == '-1.0 (n=1)' and interval([]) == '-'


def test_teacher(modules, tmp_path):
    """Labels are half of the teacher's, and the loss what that says."""
    images, methods, study, _ = modules
    settings = methods.methods()[methods.alone(methods.GRID[0])]
    data = methods.Data('made', (100.0,), (50.0,))
    config = study.model(settings.mutual, data, is_soft=True)
    teacher = MODELS.build(config).eval()
    torch.save(teacher.state_dict(), tmp_path / 'weights.pt')
    add = images.AddTeacher(config, str(tmp_path / 'weights.pt'))
    x = torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8)
    labels = torch.tensor([3, 1, 4, 1])
    found = add(dict(images=x, labels=labels))
    with torch.no_grad():
        said = teacher((x.float() - 100) / 50).softmax(1)
    expected = said / 2
    expected[range(4), labels] += 0.5
    torch.testing.assert_close(found['scores'], expected)
    batch = images.PackBatch()(found)
    pupil = MODELS.build(config).train()
    data = pupil.data_preprocessor(batch, training=True)
    loss = pupil.loss(data['inputs'], data['data_samples'])['full/loss']
    logits = MODELS.build(config).train()
    logits.load_state_dict(pupil.state_dict())
    scores = logits(data['inputs']).log_softmax(1)
    by_hand = -(expected * scores).sum(1).mean()
    torch.testing.assert_close(loss, by_hand.detach())


def test_a_run(modules, file, tmp_path):
    """Trained in earnest, tested by all kinds of statistics."""
    _, methods, study, _ = modules
    done = study.ClaimStudy({'cifar10': file}, tmp_path)
    made = done.methods['mutualnet']
    assert {*done.methods['usnet'].subnets} < {*made.subnets, *made.more}
    run = methods.Run('cifar10', 'mutualnet', 0.1, 2, 0)
    search = done.config(replace(run, use='search'), tmp_path)
    assert search.test_cfg.subnets == list(map(str, methods.GRID))
    assert done.result(run) is None
    assert done._do(run, 1, 1)
    found = done.result(run)
    assert set(found) == {'paper', 'tested', 'fitted'}
    for accuracies in found.values():
        # And at the widths of US-Net, which choose no rate.
        assert list(accuracies) == [*methods.GRID, *made.more]
        assert all(0 <= value <= 100 for value in accuracies.values())
    # Stopped while it tested, it goes on with the weights that it has.
    written = done.weights(run).stat().st_mtime_ns
    (done.weights(run).parent / 'result.json').unlink()
    again = study.ClaimStudy({'cifar10': file}, tmp_path)
    assert again._do(run, 1, 1) and again.result(run) == found
    # Tested at less than is asked of it now, it is tested once more.
    result = again.weights(run).parent / 'result.json'
    less = json.loads(result.read_text())
    del less['accuracy']['paper']['0.5x-16']
    result.write_text(json.dumps(less))
    again = study.ClaimStudy({'cifar10': file}, tmp_path)
    assert again.result(run) != found and not again.is_done(run)
    assert again._do(run, 1, 1) and again.is_done(run)
    assert again.result(run) == found
    assert done.weights(run).stat().st_mtime_ns == written
    # The full network, by hand: 12 images are trained on, 5 are tested.
    config = done.config(run, tmp_path)
    model = MODELS.build(config.model).eval()
    model.load_state_dict(torch.load(done.weights(run)))
    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in (
            methods.DATA['cifar10'].mean,
            methods.DATA['cifar10'].std,
        )
    )
    # And some of the training images, as on a part that is trained on others.
    config.work_dir, config.held_back = str(tmp_path), (5, 12)
    held_back = done.test(config, model.state_dict(), study.HELD_BACK)
    found[study.HELD_BACK] = {methods.GRID[0]: held_back['1.0x-16']}
    with np.load(file) as arrays:
        for kind, split, begin in (
            ('paper', 'test', 0),
            ('fitted', 'train', 0),
            ('held back', 'train', 5),
        ):
            images = torch.from_numpy(arrays[f'{split}_images'][begin:])
            with torch.no_grad():
                x = (images.permute(0, 3, 1, 2).float() - mean) / std
                answers = model(x).argmax(1).numpy()
            right = answers == arrays[f'{split}_labels'][begin:]
            full = found[kind][methods.GRID[0]]
            assert full == pytest.approx(100 * right.mean(), abs=0.01)


def test_taught_by_the_network_trained_alone(modules, planned, tmp_path):
    """The subnets' target is what the weights of the alone run predict."""
    _, methods, claim_study, _ = modules
    study, _ = planned(lambda run: 50.0)
    run = study.final_run('cifar10', methods.TAUGHT, 64, 1)
    weights = tmp_path / 'weights.pt'
    study.weights = lambda run: weights
    alone = methods.methods()[study.teacher_run(run.data, 1).method]
    config = claim_study.model(alone.mutual, methods.DATA[run.data])
    teacher = MODELS.build(config).eval()
    torch.save(teacher.state_dict(), weights)
    model = MODELS.build(study.config(run, tmp_path).model)
    found = model.learning.make_teacher()
    found.check(model)
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(found.network()(x), teacher(x))


def test_options_can_be_built(modules):
    """None of them is misspelt, or does not go with the network."""
    _, methods, study, _ = modules
    for name, method in methods.methods().items():
        config = study.model(method.mutual, methods.DATA['fashion-mnist'])
        model = MODELS.build(config)
        assert list(model.sampler.choose(map(str, method.subnets))), name


def test_few_images(modules, tmp_path):
    """A quarter of the images, each seen four times as often."""
    _, methods, study, _ = modules
    made = study.ClaimStudy(dict.fromkeys(methods.DATA, tmp_path), tmp_path)
    few, whole = (
        made.config(methods.Run(data, 'mutualnet', 0.1, 64, 0), tmp_path)
        for data in ('cifar10-few', 'cifar10')
    )
    assert few.train_dataloader.dataset.part == (0, 2500)
    assert few.train_cfg.max_epochs * 2500 == whole.train_cfg.max_epochs * 1e4
    schedules = few.param_scheduler, whole.param_scheduler
    assert [s.end for s in schedules[0]] == [4 * s.end for s in schedules[1]]
    assert few.test_dataloader == whole.test_dataloader
    # Finalists and lengths are compared on images that none is trained on.
    alone = methods.Run('cifar10-few', 'alone-0.5x-12', 0.1, 64, 1)
    assert made.config(alone, tmp_path).held_back == (2500, 10000)
    run = methods.Run('cifar10', 'mutualnet', 0.1, 64, 0)
    made.finalists = lambda data, method: [run]
    assert made.config(run, tmp_path).held_back == (10000, 20000)
    assert whole.train_dataloader.dataset.part == (0, 10000)
    assert 'held_back' not in whole and 'held_back' not in few
    # Rates are chosen by images that are not trained on, nor test images.
    parts = dict(
        cifar10=((0, 8000), (8000, 10000)),
        **{'cifar10-few': ((0, 2500), (2500, 10000))},
    )
    for data, (own, others) in parts.items():
        run = methods.Run(data, 'mutualnet', 0.1, 16, 0, 'search')
        searched = made.config(run, tmp_path)
        train = searched.train_dataloader.dataset
        test = searched.test_dataloader.dataset
        assert (train.split, train.part) == ('train', own)
        assert (test.split, test.part) == ('train', others)
    # What the options are chosen by are the whole data sets alone.
    assert made.whole == ['cifar10', 'fashion-mnist']
