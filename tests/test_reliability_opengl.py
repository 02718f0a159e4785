"""Campaigns against OpenGL's process: interruptions, forks, kills. No image is wrong, nothing hangs."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from campaign import Campaign, campaign
from test_opengl import process_id, random_scenes

from air_env.renderers.backends import PyrenderRenderer, opengl

pytestmark = [pytest.mark.slow, pytest.mark.opengl]
SIZES = (1, 7, 40)
PATIENCE = 60
"""Seconds after which something hangs."""


class Interruption(BaseException):
    """What a timer raises."""


class Hang(BaseException):
    """What is raised where nothing happens any more."""


class Gallery:
    """Scenes whose images are known."""

    def __init__(self) -> None:
        self.scenes = [random_scenes(size, seed=seed) for seed in range(2) for size in SIZES]
        self.images = [PyrenderRenderer().render(scenes) for scenes in self.scenes]

    def is_right(self, i: int) -> bool:
        return torch.equal(PyrenderRenderer().render(self.scenes[i]), self.images[i])

    @contextmanager
    def threads(self, counts: Campaign, number: int) -> Iterator[None]:
        """Threads that render all the while."""
        stop = threading.Event()

        def work(i: int) -> None:
            while not stop.is_set():
                if not self.is_right(i % len(self.scenes)):
                    counts.failed.append("a thread got a wrong image")
                i += 1

        threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(number)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE)
            counts.failed += ["a thread hangs" for thread in threads if thread.is_alive()]


@contextmanager
def timer(seconds: float, exception: type[BaseException]) -> Iterator[None]:
    """Raises an exception inside after some time."""

    def strike(*_: object) -> None:
        raise exception

    before = signal.signal(signal.SIGALRM, strike)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def seconds_of(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


@pytest.mark.parametrize("threads", [0, 1])
def test_interruptions_of_render(threads):
    """A timer strikes while images are made, or while the process starts."""
    chance, gallery, exceptions = random.Random(threads), Gallery(), (KeyboardInterrupt, TimeoutError, Interruption)
    last = len(gallery.scenes) - 1
    warm = max(seconds_of(lambda: gallery.is_right(last)) for _ in range(5))
    with (
        campaign(f"OpenGL: interruptions, {threads} threads", threads) as counts,
        gallery.threads(counts, threads),
    ):
        while counts.tried < 100:
            starts, exception = chance.random() < 0.25, exceptions[counts.tried % 3]
            if starts:
                opengl._idle.clear()
            moment = chance.uniform(1e-5, 1.5 if starts else 1.5 * warm * (1 + threads))
            try:
                with timer(moment, exception):
                    gallery.is_right(last)
                continue
            except exception:
                counts.tried += 1
            try:
                with timer(PATIENCE, Hang):
                    for i in chance.sample(range(last), 2):
                        if not gallery.is_right(i):
                            counts.failed.append(f"a wrong image after {exception.__name__}, {moment:.3f} s")
            except Hang:
                counts.failed.append(f"hangs after {exception.__name__}, {moment:.3f} s")


def test_forks_beside_threads_that_render():
    """A child exits at once, or renders and exits, while threads of its parent render."""
    with campaign("OpenGL: forks beside threads") as counts:
        # A program of its own, so that children end as Python ends.
        command = [sys.executable, "-c", "import test_reliability_opengl; test_reliability_opengl.fork()"]
        program = subprocess.run(
            command, cwd=os.path.dirname(__file__), stdout=subprocess.PIPE, text=True, timeout=1500, check=False
        )
        *outcomes, end = program.stdout.splitlines()
        counts.tried = len(outcomes)
        counts.failed += [outcome for outcome in outcomes if outcome != "right"]
        assert (end, program.returncode) == ("end", 0)


def fork() -> None:
    """Forks a hundred times beside two threads; prints what became of each child."""
    # Forked children of a program whose torch used several threads hang in torch's OpenMP, whatever they compute.
    torch.set_num_threads(1)
    chance, gallery, counts = random.Random(0), Gallery(), Campaign()
    with gallery.threads(counts, 2):
        for trial in range(100):
            time.sleep(chance.uniform(0, 0.03))
            if not (child := os.fork()):
                renders = [i for i in (trial, trial + 1) if trial % 2]
                sys.exit(0 if all(gallery.is_right(i % len(gallery.scenes)) for i in renders) else 3)
            print(_outcome(child), flush=True)
    print(*counts.failed, "end", sep="\n")


def _outcome(child: int) -> str:
    for _ in range(100 * PATIENCE):
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return {0: "right", 3: "a wrong image"}.get(code := os.waitstatus_to_exitcode(status), f"exit code {code}")
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hangs"


def test_kills_of_the_process_that_draws():
    """It is killed while it waits, or at a moment of a render."""
    chance, gallery = random.Random(0), Gallery()
    last = len(gallery.scenes) - 1
    warm = max(seconds_of(lambda: gallery.is_right(last)) for _ in range(5))
    with campaign("OpenGL: kills") as counts:
        for trial in range(40):
            during = trial % 2
            process = process_id()
            strike = threading.Timer(chance.uniform(0, warm) * during, os.kill, (process, signal.SIGKILL))
            strike.start()
            if not during:
                strike.join()
            counts.tried += 1
            try:
                with timer(PATIENCE, Hang):
                    right = gallery.is_right(last)
                    strike.join()
                    if not (right and gallery.is_right(chance.randrange(last))):
                        counts.failed.append(f"a wrong image, trial {trial}")
            except (Hang, opengl.OpenGLError) as error:
                counts.failed.append(f"{error!r}, trial {trial}")
