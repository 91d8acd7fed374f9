"""Numbers of steps are those of the runner that trains."""

import copy

from mmengine.logging import MessageHub

from mutualnet_mm.models.steps import StepCounter


def runner(name, length=None):
    """Return what a runner says; the last one made is MMEngine's current."""
    hub = MessageHub.get_instance(name)
    if length:
        hub.update_info('max_iters', length)
    return lambda step: hub.update_info('iter', step)


def numbers(counter, runs, steps, **settings):
    found = []
    for step in steps:
        runs(step)
        found.append((counter.next(**settings), counter.length))
        settings = {}
    return found


def test_the_runner_that_trains_and_not_the_last_one():
    """Both are built, then the second one trains, then the first one."""
    first, counter = runner('first', 8), StepCounter()
    second, other = runner('second', 5), StepCounter()
    steps = [(i, 5) for i in range(5)]
    assert numbers(other, second, range(5)) == steps
    assert numbers(counter, first, range(8)) == [(i, 8) for i in range(8)]
    # A copy goes on where it was.
    assert numbers(copy.deepcopy(counter), first, [8]) == [(8, 8)]


def test_one_that_resumes_is_followed():
    first, counter = runner('first', 30), StepCounter()
    numbers(StepCounter(), runner('second', 5), range(5))
    found = numbers(counter, first, range(20, 23), is_loaded=True)
    assert found == [(20, 30), (21, 30), (22, 30)]


def test_one_that_another_is_built_after():
    """The first step, too, is of the one that trains."""
    first = runner('first', 8)
    runner('second')
    assert numbers(StepCounter(), first, [0, 1]) == [(0, 8), (1, 8)]
    # It is resumed.
    again = runner('again', 9000)
    runner('fourth')
    found = numbers(StepCounter(), again, [5000, 5001], is_loaded=True)
    assert found == [(5000, 9000), (5001, 9000)]


def test_one_that_begins_with_weights_after_another():
    """It does not go on where the other one, which is done, was."""
    begins = runner('begins', 8)
    numbers(StepCounter(), runner('done', 100), range(98, 100))
    found = numbers(StepCounter(), begins, [0, 1], is_loaded=True)
    assert found == [(0, 8), (1, 8)]


def test_a_training_of_one_step():
    """It is not over before it has begun, beside one that was stopped."""
    numbers(StepCounter(), runner('stopped', 100), range(50))
    short = runner('short', 1)
    assert numbers(StepCounter(), short, [0]) == [(0, 1)]
    # Nor is one in whose place a loop of one's own goes on.
    counter = StepCounter()
    assert [counter.next() for _ in range(2)] == [0, 1]


def test_one_that_is_built_within_a_training():
    """As by a hook that tests: it never trains, or it trains another one."""
    own, counter = runner('own', 9), StepCounter()
    assert numbers(counter, own, [0, 1]) == [(0, 9), (1, 9)]
    runner('tests')
    assert numbers(counter, own, [2, 3]) == [(2, 9), (3, 9)]
    numbers(StepCounter(), runner('trains', 4), range(4))
    assert numbers(counter, own, [4, 5]) == [(4, 9), (5, 9)]
    # Two passes of one iteration, as a hand-made loop may have them.
    assert counter.next() == 6


def test_a_model_that_another_runner_goes_on_with():
    counter = StepCounter()
    numbers(counter, runner('first', 3), range(3))
    found = numbers(counter, runner('second', 4), range(4))
    assert found == [(i, 4) for i in range(4)]


def test_steps_without_a_runner():
    counter = StepCounter()
    assert [counter.next() for _ in range(3)] == [0, 1, 2]
    assert counter.length is None
    # What begins to count, begins.
    assert numbers(counter, runner('late', 7), range(2)) == [(0, 7), (1, 7)]
    assert [counter.next() for _ in range(2)] == [2, 3]
