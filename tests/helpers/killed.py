"""Processes that are killed, by SIGKILL: nothing of theirs runs any more."""

import contextlib
import io
import os
import signal
import time
import traceback

import torch


def die():
    """What a scheduler, the kernel or a loss of power does to a process."""
    os.kill(os.getpid(), signal.SIGKILL)


class Fuse:
    """Kills its process at the n-th event, ``at`` counting from 0."""

    def __init__(self, at):
        self.left = at

    def is_due(self):
        self.left -= 1
        return self.left < 0


def kill_at_write(at, share):
    """Kill at the n-th file, when a share of it lies on the disk.

    Checkpoints and notes of the stock runner, which are written in place,
    and drafts of ours, which take the place of a file: a share of 1 kills
    before they do, one of 2 behind it.
    """
    from mmengine.fileio import LocalBackend
    from mmengine.hooks import checkpoint_hook

    fuse = Fuse(at)
    put, fsync, replace = LocalBackend.put, os.fsync, os.replace
    replaced = []

    def put_part(self, content, filepath):
        if not fuse.is_due():
            return put(self, content, filepath)
        put(self, content[: int(len(content) * share)], filepath)
        die()

    @contextlib.contextmanager
    def open_note(*arguments):
        """A file that is there and empty, until it is written."""
        with open(*arguments) as file:
            text = io.StringIO()
            yield text
            is_due = fuse.is_due()
            text = text.getvalue()
            file.write(text[: int(len(text) * share)] if is_due else text)
            if is_due:
                file.flush()
                die()

    def fsync_part(handle):
        fsync(handle)
        if fuse.is_due():
            if share < 1:
                os.ftruncate(handle, int(os.fstat(handle).st_size * share))
                die()
            if share == 1:
                die()
            replaced.append(True)

    def replace_and_die(*paths):
        replace(*paths)
        if replaced:
            die()

    LocalBackend.put = put_part
    checkpoint_hook.open = open_note
    os.fsync, os.replace = fsync_part, replace_and_die


def run_killed(work, moment=None, seconds=240):
    """Call ``work()`` in a fork of this process that may be killed.

    Args:
        work (callable): What the process does.
        moment (tuple, optional): ``('time', seconds)``, from the start of
            ``work``, or ``('write', number of a file, share of it)``; another
            one, or none, is left to ``work``.
        seconds (float): How long it may take, else an error is raised.

    Returns:
        bool: Whether it was killed. An error of ``work`` is raised here.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            # The threads that the parent's operations ran on are not there.
            torch.set_num_threads(1)
            if moment and moment[0] == 'write':
                kill_at_write(*moment[1:])
            if moment and moment[0] == 'time':
                signal.signal(signal.SIGALRM, lambda *_: die())
                signal.setitimer(signal.ITIMER_REAL, moment[1])
            work()
            code = 0
        except BaseException:
            with contextlib.suppress(OSError):
                os.write(writing, traceback.format_exc().encode()[-60_000:])
        finally:
            os._exit(code)
    os.close(writing)
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            break
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError(f'a process takes more than {seconds} s')
        time.sleep(0.02)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    if os.WEXITSTATUS(status):
        raise AssertionError(f'in the process:\n{text}')
    return False
