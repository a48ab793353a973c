"""Evaluate models on tasks: answers into the journal, scores into records, everything else into a report.

``OUT/records`` is a record folder, ``OUT/answers`` holds the journals, ``OUT/runs`` a JSON file a call.
A call that was cut off is made again: what is in the journals is not asked again, what is in the records is
not written again.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from factorlab.errors import InputError
from factorlab.eval.answer_scores import score_instances
from factorlab.eval.asking import Asked, ask, collect
from factorlab.eval.benchmarks_table import write_benchmarks
from factorlab.eval.findings import prompt_findings, score_findings, text_findings
from factorlab.eval.instance import Instance, TextAnswer
from factorlab.eval.journal import Journal, journal_path
from factorlab.eval.language_model import LanguageModel, describe
from factorlab.eval.model_spec import forget
from factorlab.eval.prompts import Questions, build_instances
from factorlab.eval.run_report import RunReport
from factorlab.eval.sandbox import Sandbox
from factorlab.eval.task import Task
from factorlab.eval.task_records import TaskRecords, summarise
from factorlab.tabular import write_atomically

Progress = Callable[[str, int, int], None]
Opener = Callable[[], LanguageModel]


@dataclass(frozen=True)
class Settings:
    """How tasks are asked.

    Attributes
    ----------
    limit : int, optional
        Instances of each task.
    data_dir : path, optional
        Folder with the tasks' data; the hub without one.
    seed : int, optional
        Of the draw of worked examples, instead of the tasks'.
    chat : bool
        Use the models' chat templates.
    unsafe_code : bool
        Run generated programs without a sandbox.
    all_metrics : bool
        Write further metrics (normalised accuracies) beside each benchmark's own.
    """

    limit: int | None = None
    data_dir: str | os.PathLike[str] | None = None
    seed: int | None = None
    chat: bool = False
    unsafe_code: bool = False
    all_metrics: bool = False

    def protocol(self, task: Task) -> str:
        """Name of the protocol in the records: the task's, and what was asked for besides."""
        return (
            task.protocol
            + ("+chat" if self.chat else "")
            + (f"+seed{self.seed}" if self.seed is not None else "")
        )


@dataclass(frozen=True)
class TaskResult:
    """What one model did on one task.

    Attributes
    ----------
    model, benchmark, protocol, metric : str
    score, se : float
        As `factorlab scores` would give them; NaN where a score needs more than one instance.
    instances, reused : int
        Instances, and answers that were there already.
    seconds : float
    findings : tuple of str
        What looks wrong.
    """

    model: str
    benchmark: str
    protocol: str
    metric: str
    score: float
    se: float
    instances: int
    reused: int
    seconds: float
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """All results of a call.

    Attributes
    ----------
    results : tuple of TaskResult
    failures : dict of str to str
        "model, benchmark" (or a model alone) to what went wrong.
    records : Path
    report : Path
        The JSON file of the call.
    notes : tuple of str
    """

    results: tuple[TaskResult, ...]
    failures: Mapping[str, str]
    records: Path
    report: Path
    notes: tuple[str, ...] = ()

    def to_dataframe(self) -> pd.DataFrame:
        """A row a model and task."""
        return pd.DataFrame([vars(result) for result in self.results])


@dataclass
class _Prepared:
    """Questions of tasks, read once for all models."""

    settings: Settings
    known: dict[str, Questions] = field(default_factory=dict)

    def __call__(self, task: Task) -> Questions:
        if task.digest not in self.known:
            settings = self.settings
            self.known[task.digest] = build_instances(task, settings.data_dir, settings.limit, settings.seed)
        return self.known[task.digest]


def evaluate(
    models: Mapping[str, Opener],
    tasks: Sequence[Task],
    out: str | os.PathLike[str],
    settings: Settings | None = None,
    *,
    facts: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    told: Callable[[TaskResult], None] | None = None,
) -> Evaluation:
    """Evaluate models on tasks and write records.

    Parameters
    ----------
    models : mapping of str to callable
        Name to what loads the model; one model is held at a time.
    tasks : sequence of Task
    out : path
        Folder, made when it is not there.
    settings : Settings, optional
    facts : mapping, optional
        Written into the report as it is: the command, say.
    progress : callable, optional
        Called with (stage, done, total).
    told : callable, optional
        Called with each `TaskResult` as it is ready.

    Raises
    ------
    InputError
        A folder that cannot be written to, or in which another version's records are. What goes wrong with
        one model or task is in `Evaluation.failures`, and the others go on.
    """
    settings = settings or Settings()
    _check_tasks(tasks)
    folder = Path(out)
    report = RunReport(folder, settings, tasks, facts or {})
    write_benchmarks(tasks, folder)
    prepared = _Prepared(settings)
    results: list[TaskResult] = []
    failures: dict[str, str] = {}
    notes: dict[str, None] = {}
    for name, opener in models.items():
        try:
            if progress is not None:
                progress(f"loading {name}", 0, 0)
            model = opener()
        except Exception as error:  # of many kinds: a library's fault with one model is not the others'
            failures[name] = _told(error, name, None, report)
            report.failed(name, None, failures[name])
            continue
        report.opened(name, describe(model.facts))
        for task in tasks:
            label = f"{name}, {task.benchmark}"
            try:
                result, about = _evaluate_one(name, model, task, prepared(task), folder, settings, progress)
            except Exception as error:  # the other tasks are still worth their time
                failures[label] = _told(error, name, task, report)
                report.failed(name, task, failures[label])
            else:
                results.append(result)
                notes |= dict.fromkeys(prepared(task).notes)
                report.ended(name, task, result, about)
                if told is not None:
                    told(result)
        report.opened(name, describe(model.facts))  # again: it knows more now
        notes |= dict.fromkeys(f"{name}: {note}" for note in model.facts.notes)
        close = getattr(model, "close", None)
        if close is not None:
            close()
        del model
        forget()
    return Evaluation(tuple(results), failures, folder / "records", report.path, tuple(notes))


def _check_tasks(tasks: Sequence[Task]) -> None:
    """Records tell benchmarks and protocols apart, not the files of tasks."""
    seen: dict[tuple[str, str], str] = {}
    for task in tasks:
        key = (task.benchmark, task.protocol)
        if key in seen:
            raise InputError(
                f"two tasks ('{seen[key]}' and '{task.name}') are of the benchmark '{task.benchmark}'; evaluate one of "
                "them, or give one another benchmark name in its file"
            )
        seen[key] = task.name


def _told(error: Exception, model: str, task: Task | None, report: RunReport) -> str:
    """An error in one line; all of it in a file where it is a fault of a library, or of ours."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return (
            f"cannot read or write '{error.filename}': {error.strerror}" if error.filename else error.strerror
        )
    where = report.fault(model, task, "".join(traceback.format_exception(error)))
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]} (all of it in {where})"


def _evaluate_one(
    name: str,
    model: LanguageModel,
    task: Task,
    questions: Questions,
    folder: Path,
    settings: Settings,
    progress: Progress | None,
) -> tuple[TaskResult, dict[str, Any]]:
    began = time.monotonic()
    instances: Sequence[Instance] = questions.instances
    # Found before hours are spent on answers that cannot be scored.
    sandbox = Sandbox.find(unsafe=settings.unsafe_code) if task.scoring == "code" else None
    protocol = settings.protocol(task)
    records = TaskRecords(folder / "records", name, model.facts, task, protocol)
    asked = ask(task, instances, model, chat=settings.chat)
    path = journal_path(folder / "answers", name, model.facts, task.name, protocol, task.digest)
    samples = task.decoding.samples if task.scoring != "choices" else 1
    stage = f"{name} on {task.benchmark}"
    with Journal(path) as journal:  # held until the records are written: no other run writes the same ones
        records.check(instances, asked.prompts, whole=settings.limit is None)
        answers, reused = collect(
            asked,
            model,
            journal,
            samples,
            None if progress is None else lambda done, total: progress(stage, done, total),
        )
        encode = (lambda text: model.encode(text, False)) if task.metric.words == "model" else None
        scored = score_instances(
            task.metric,
            instances,
            answers,
            encode=encode,
            sandbox=sandbox,
            progress=None
            if progress is None or task.scoring != "code"  # only programs take time
            else lambda _, done, total: progress(f"{stage}: programs", done, total),
        )
        score, se = summarise(instances, scored)
        written = records.write(instances, asked.prompts, scored, all_metrics=settings.all_metrics)
    found = _findings(task, asked, answers, score, se, scored[0][0].score is not None)
    seconds = time.monotonic() - began
    metric = scored[0][0].metric
    result = TaskResult(
        name, task.benchmark, protocol, metric, score, se, len(instances), reused, seconds, tuple(found)
    )
    about = {
        "journal": str(path.relative_to(folder)),
        "records_written": written,
        "sources": list(questions.sources),
        "n_documents": questions.n_documents,
        "n_held_out": questions.n_held_out,
        "notes": list(questions.notes),
        "dropped_shots": len(asked.fit.dropped_shots),
        "truncated": len(asked.fit.truncated),
        "which": _write_fit(asked, path, folder),
        "sandbox": sandbox.backend if sandbox else None,
    }
    return result, about


def _write_fit(asked: Asked, journal: Path, folder: Path) -> str | None:
    """Which prompts lost worked examples or their beginning, in a file beside the journal; None where none did."""
    if not asked.fit.dropped_shots and not asked.fit.truncated:
        return None
    target = journal.with_suffix(".fit.json")
    content = {"dropped_shots": asked.fit.dropped_shots, "truncated": list(asked.fit.truncated)}
    write_atomically(target, lambda name: Path(name).write_text(json.dumps(content) + "\n", encoding="utf-8"))
    return str(target.relative_to(folder))


def _findings(
    task: Task, asked: Asked, answers: Sequence[Any], score: float, se: float, share: bool
) -> list[str]:
    texts = [text for answer in answers if isinstance(answer, TextAnswer) for text in answer.texts]
    found = prompt_findings(asked.fit) + text_findings(texts)
    return found + score_findings(score, se, task.chance if share else 0.0, len(answers))
