"""Painter: draws the figures, on a second core where there is one.

A second Python is started early, while this one still imports or fits; it is told what to draw through a
pipe, and answers with the files. Both take figures from one list. Where it cannot be started, or is lost,
or fails, this process draws all that is left: the files are the same.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from factorlab.analysis import Analysis
    from factorlab.gallery import Drawing

Files = dict[str, bytes]
"""A figure's files by their ending: "png", "svg"."""

PATIENCE = 60.0
"""Seconds to wait for a figure of the other process before it is drawn here."""

_START = "from factorlab.painter import serve; serve()"


class Painter:
    """Draws the figures of an analysis.

    Parameters
    ----------
    cores : int, optional
        Cores to use, 1 for this process only; those the machine lets it use when not given.

    Notes
    -----
    Used as a context, entered as early as possible; not entered, all is drawn in this process. `finish`
    gives the figures; what was begun before is drawn meanwhile.
    """

    def __init__(self, cores: int | None = None) -> None:
        self._cores = cores if cores is not None else usable_cores()
        self._other: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # of all below
        self._analysis: Analysis | None = None
        self._wanted: deque[str] = deque()
        self._drawn: dict[str, Files] = {}
        self._held: str | None = None  # what the other process draws now
        self._feeding = False

    def __enter__(self) -> Painter:
        if self._cores > 1 and sys.executable:
            one = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            with suppress(OSError):  # then all is drawn here
                self._other = subprocess.Popen(
                    [sys.executable, "-P", "-c", _START],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, **one},
                )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._wanted.clear()
        self._kill()
        self._join()

    def begin(self, analysis: Analysis) -> None:
        """Let the other process draw the figures while this one does something else."""
        from factorlab.gallery import figures

        self._hand_out(analysis, list(figures(analysis)))

    def begin_early(self, analysis: Analysis) -> None:
        """Let the other process draw what needs none of the results that are still to come."""
        if self._other is not None:
            from factorlab.gallery import early_figures

            self._hand_out(analysis, list(early_figures(analysis)))

    def finish(
        self, analysis: Analysis, progress: Callable[[str, int, int], None] | None = None
    ) -> dict[str, Files]:
        """Draw what is left, and wait for the other process.

        Parameters
        ----------
        analysis : Analysis
        progress : callable, optional
            Called with (stage, done, total).

        Returns
        -------
        dict of str to dict of str to bytes
            Of each figure, in the order of the gallery, the contents of its files.
        """
        from factorlab.gallery import figures

        if self._analysis is not analysis:
            self.begin(analysis)
        drawings = figures(analysis)
        self._draw_here(drawings, progress)
        if self._held is None:  # it has not come so far, or is done
            self._kill()
        self._join()
        self._wanted = deque(name for name in drawings if name not in self._drawn)  # what it gave back
        self._draw_here(drawings, progress)
        return {name: self._drawn[name] for name in drawings}

    def _hand_out(self, analysis: Analysis, names: list[str]) -> None:
        """Both processes take names from now on from this list."""
        with self._lock:
            if self._analysis is None or not _continues(self._analysis, analysis):
                self._drawn.clear()
            self._analysis = analysis
            self._wanted = deque(name for name in names if name not in self._drawn and name != self._held)
            if self._other is not None and not self._feeding:
                self._feeding = True
                self._thread = threading.Thread(target=self._feed, daemon=True)
                self._thread.start()

    def _draw_here(
        self, drawings: Mapping[str, Drawing], progress: Callable[[str, int, int], None] | None
    ) -> None:
        from factorlab.plots.saving import contents

        with no_pauses():
            while True:
                with self._lock:
                    if not self._wanted:
                        return
                    name = self._wanted.popleft()
                if progress is not None:
                    progress("figures", len(self._drawn), len(drawings))
                self._drawn[name] = contents(drawings[name]())
                gc.collect(1)

    def _feed(self) -> None:
        """In a thread: hand out figures from the end of the list, one at a time, and keep the answers."""
        known = None
        try:
            while True:
                with self._lock:
                    if not self._wanted or self._analysis is None:
                        self._feeding = False
                        return
                    analysis = self._analysis
                    name = self._held = self._wanted.pop()
                if analysis is not known:
                    if self._ask(analysis) != _identity():
                        raise RuntimeError("the other process runs other code")
                    known = analysis
                files = self._ask(name)
                with self._lock:
                    if _continues(analysis, self._analysis):
                        self._drawn[name] = files
                    self._held = None
        except Exception:  # whatever it was: this process draws what is left
            with self._lock:
                self._held, self._feeding = None, False
            self._kill()

    def _ask(self, message: Any) -> Any:
        other = self._other
        if other is None or other.stdin is None or other.stdout is None:
            raise EOFError
        _send(other.stdin, message)
        answer = pickle.load(other.stdout)
        if answer is None:
            raise RuntimeError("the other process could not draw this")
        return answer

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join(PATIENCE)
            if self._thread.is_alive():
                self._kill()
                self._thread.join()
            self._thread = None

    def _kill(self) -> None:
        other, self._other = self._other, None
        if other is not None:
            other.kill()
            for pipe in (other.stdin, other.stdout):
                if pipe is not None:
                    with suppress(OSError):  # what was not written yet cannot be
                        pipe.close()
            other.wait()


def save_figures(
    analysis: Analysis,
    folder: str | os.PathLike[str],
    progress: Callable[[str, int, int], None] | None = None,
    painter: Painter | None = None,
) -> dict[str, tuple[Path, Path]]:
    """Draw all figures and write each as ``<name>.png`` and ``<name>.svg``.

    Parameters
    ----------
    analysis : Analysis
    folder : path
        Made when absent.
    progress : callable, optional
        Called with (stage, done, total).
    painter : Painter, optional
        Entered; all is drawn in this process when not given.

    Returns
    -------
    dict of str to (Path, Path)
        PNG and SVG of each figure.
    """
    from factorlab.plots.saving import write

    drawn = (painter or Painter(cores=1)).finish(analysis, progress)
    return {name: write(files, Path(folder) / name) for name, files in drawn.items()}


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def no_pauses() -> Iterator[None]:
    """Without the garbage collector, which would search everything that is loaded again and again."""
    was_on = gc.isenabled()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()


def serve() -> None:
    """The other process: reads an analysis, then names of its figures; answers with their files."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted fit still wants its figures
    gc.disable()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may write there
    asked = sys.stdin.buffer
    from factorlab.gallery import figures
    from factorlab.plots.saving import contents
    from factorlab.plots.style import font_families

    font_families()
    drawings: dict[str, Any] = {}
    with no_pauses():
        while True:
            try:
                message = pickle.load(asked)
            except EOFError:
                return
            answer: Any = _identity()
            if isinstance(message, str):
                try:
                    answer = contents(drawings[message]())
                except Exception:  # it is drawn again where the error can be told
                    answer = None
                gc.collect(1)
            else:
                drawings = dict(figures(message))
            _send(answers, answer)


def _continues(first: Analysis, second: Analysis) -> bool:
    """Whether the second is the first with more results: what was drawn of the first holds."""
    same = all(getattr(first, name) is getattr(second, name) for name in ("table", "options"))
    results = ("parallel", "resamples", "pca", "ml", "bayes")
    return same and all(
        getattr(first, name) is None or getattr(first, name) is getattr(second, name) for name in results
    )


def _identity() -> tuple[str, str]:
    """Which code this is: two processes must draw with the same."""
    return __file__, sys.version


def _send(pipe: BinaryIO | Any, message: Any) -> None:
    pickle.dump(message, pipe, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.flush()
