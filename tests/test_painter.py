"""Painter: two processes draw what one draws, and one draws all when the other fails."""

import os
import signal
import sys
import time
from dataclasses import replace

import pytest
from small_runs import bare_run, small_run

from factorlab import painter as module
from factorlab.gallery import early_figures, figures
from factorlab.painter import Painter, no_pauses, save_figures, usable_cores
from factorlab.plots.saving import contents


def alone() -> dict[str, dict[str, bytes]]:
    return Painter(cores=1).finish(bare_run())


def test_saving_writes_png_and_svg(tmp_path):
    told = []
    written = save_figures(bare_run(), tmp_path / "figures", progress=lambda *a: told.append(a))
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == sorted(
        f"{name}.{kind}" for name in figures(bare_run()) for kind in ("png", "svg")
    )
    assert written["scree"][0].read_bytes().startswith(b"\x89PNG")
    assert told == [("figures", done, len(written)) for done in range(len(written))]


def test_two_processes_draw_what_one_draws():
    with Painter(cores=2) as painter:
        painter.begin_early(bare_run())
        wait_for(lambda: set(painter._drawn) == set(early_figures(bare_run())))
        other = painter._other
        assert other is not None
        painter.begin(bare_run())
        drawn = painter.finish(bare_run())
    assert other.poll() is not None
    assert list(drawn) == list(figures(bare_run()))
    assert drawn == alone()


def wait_for(condition, seconds=120.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_process_that_is_lost_is_done_without():
    with Painter(cores=2) as painter:
        painter.begin(bare_run())
        wait_for(lambda: painter._held is not None or painter._drawn)
        os.kill(painter._other.pid, signal.SIGKILL)
        drawn = painter.finish(bare_run())
    assert drawn == alone()


@pytest.mark.parametrize("trouble", ["no such Python", "other code", "cannot draw"])
def test_a_process_that_is_of_no_use_is_done_without(trouble, monkeypatch):
    if trouble == "no such Python":
        monkeypatch.setattr(sys, "executable", "/no/such/python")
    elif trouble == "other code":
        monkeypatch.setattr(module, "_identity", lambda: ("elsewhere", "3.0"))
    else:
        monkeypatch.setattr(module, "_START", "import factorlab.painter as p; p._send = None; p.serve()")
    with Painter(cores=2) as painter:
        painter.begin(bare_run())
        if trouble != "no such Python":
            wait_for(lambda: painter._other is None)
        drawn = painter.finish(bare_run())
    assert drawn == alone()


def test_an_error_in_drawing_is_told_here():
    broken = replace(bare_run(), parallel="not a parallel analysis")
    with Painter(cores=2) as painter:
        painter.begin(broken)
        wait_for(lambda: painter._other is None)
        with pytest.raises(AttributeError, match="eigenvalues"):
            painter.finish(broken)


def test_another_analysis_is_drawn_anew():
    painter = Painter(cores=1)
    first = painter.finish(bare_run())
    fewer = replace(bare_run(), resamples={})
    assert set(first) - set(painter.finish(fewer)) == {"leave_one_out", "leave_one_lineage_out"}
    assert not set(painter._drawn) & {"leave_one_out"}


def test_early_figures_stay_the_same():
    whole = small_run()
    fitted = replace(whole, pca_budgets=None, bayes_budgets=None, comparison=None, sensitivity=None)
    early, late = early_figures(fitted), figures(whole)
    assert {"scree", "abilities", "axes", "pca_vs_bayes", "predictive_floor", "chain_ranks"} < set(early)
    assert not [name for name in early if name.endswith(("_zh", "_sw"))]  # they print what is derived
    for name, drawing in early.items():
        assert contents(drawing())["svg"] == contents(late[name]())["svg"], name


def test_early_figures_need_no_fit():
    nothing = replace(bare_run(), pca=None, ml=None)
    assert list(early_figures(nothing)) == list(early_figures(bare_run()))
    assert set(early_figures(nothing)) < set(figures(bare_run()))


def test_one_core_starts_no_process():
    with Painter(cores=1) as painter:
        assert painter._other is None
    assert usable_cores() >= 1


def test_the_garbage_collector_is_as_it_was():
    import gc

    assert gc.isenabled()
    with no_pauses():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
