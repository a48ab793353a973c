"""Scores of one model on one task as records: what is there already is left, what differs is refused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from factorlab import __version__
from factorlab.errors import InputError
from factorlab.eval.answer_scores import Scored
from factorlab.eval.instance import Instance
from factorlab.eval.language_model import ModelFacts
from factorlab.eval.task import Task
from factorlab.metrics import CORPUS, find_metric
from factorlab.record_writer import RecordWriter
from factorlab.records import SCHEMA_FILE, read_records, text_hash
from factorlab.standard_errors import binomial_se

LOOKED_AT = ["model_revision", "metric", "instance_id", "trial", "score", "engine", "dtype", "prompt_hash"]

SAME = 1e-9
"""Scores that differ by more are different."""


class TaskRecords:
    """Records of one model on one benchmark under one protocol.

    Parameters
    ----------
    folder : path
        Record folder.
    model : str
    facts : ModelFacts
    task : Task
    protocol : str
    """

    def __init__(self, folder: Path, model: str, facts: ModelFacts, task: Task, protocol: str) -> None:
        self.folder, self.model, self.facts, self.task, self.protocol = folder, model, facts, task, protocol
        self._there: pd.DataFrame | None = None

    def check(self, instances: Sequence[Instance], prompts: Sequence[str], *, whole: bool = False) -> None:
        """See that the folder has no records of this model and benchmark that were made otherwise.

        Parameters
        ----------
        instances : sequence of Instance
        prompts : sequence of str
        whole : bool
            These are all instances: a record of another one is of data that have changed.

        Raises
        ------
        InputError
            Other weights, precision, engine, prompts or instances.
        """
        there = self._there = self._read()
        if not len(there):
            return
        now = {
            "model_revision": self.facts.revision,
            "dtype": self.facts.dtype,
            "engine": self.facts.engine,
        }
        for column, value in now.items():
            other = there[column][there[column] != value]
            if len(other):
                raise InputError(
                    f"'{self.folder}' has records of '{self.model}' on {self.task.benchmark} with {column} "
                    f"'{other.iloc[0]}', now it is '{value}'; give another --out, or another name with --model NAME=..."
                )
        hashes = dict(zip(there["instance_id"], there["prompt_hash"], strict=True))
        for instance, prompt in zip(instances, prompts, strict=True):
            known = hashes.get(instance.instance_id)
            if known is not None and known != text_hash(prompt):
                raise InputError(
                    f"'{self.folder}' has records of '{self.model}' on {self.task.benchmark} with other prompts "
                    f"(instance '{instance.instance_id}'): the task or its data have changed; give another --out"
                )
        gone = hashes.keys() - {instance.instance_id for instance in instances} if whole else set()
        if gone:
            raise InputError(
                f"'{self.folder}' has records of '{self.model}' on {self.task.benchmark} for {len(gone)} instances "
                f"that the data do not hold (as '{min(gone)}'): the task or its data have changed; give another --out"
            )

    def _read(self) -> pd.DataFrame:
        if not (self.folder / SCHEMA_FILE).exists():
            return pd.DataFrame(columns=LOOKED_AT)
        where = [
            ("model", "==", self.model),
            ("benchmark", "==", self.task.benchmark),
            ("protocol", "==", self.protocol),
        ]
        records = read_records(self.folder)
        told = records.runs()
        mine = told["model"].isna() | (
            (told["model"] == self.model) & (told["benchmark"] == self.task.benchmark)
        )
        parts = list(dict.fromkeys(told["part"][mine]))
        frames = [pq.read_table(part, columns=LOOKED_AT, filters=where).to_pandas() for part in parts]
        frames = [frame for frame in frames if len(frame)]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=LOOKED_AT)

    def write(
        self,
        instances: Sequence[Instance],
        prompts: Sequence[str],
        scored: Sequence[Sequence[Scored]],
        *,
        all_metrics: bool = False,
    ) -> int:
        """Write what is not there; the number of new records.

        Raises
        ------
        InputError
            Another score than the one that is there; see also `factorlab.record_writer.RecordWriter`.
        """
        there = self._there if self._there is not None else self._read()
        names = zip(there["metric"], there["instance_id"], there["trial"], strict=True)
        known = dict(zip(names, there["score"], strict=True))
        created = datetime.now(UTC)
        rows: list[dict[str, Any]] = []
        for instance, prompt, scores in zip(instances, prompts, scored, strict=True):
            prompt_hash = text_hash(prompt)
            own = scores[0].metric
            for one in scores:
                if not all_metrics and one.metric != own:
                    continue
                if (one.metric, instance.instance_id, one.trial) in known:
                    self._check_same(one, known[one.metric, instance.instance_id, one.trial], instance)
                    continue
                rows.append(
                    {
                        "model": self.model,
                        "model_revision": self.facts.revision,
                        "benchmark": self.task.benchmark,
                        "instance_id": instance.instance_id,
                        "shared_item_id": instance.shared_item_id,
                        "cluster": instance.cluster,
                        "trial": one.trial,
                        "score": one.score,
                        "metric": one.metric,
                        "stats": list(one.stats) if one.stats is not None else None,
                        "prediction": _writable(one.prediction),
                        "target": _writable(one.target),
                        "prompt_hash": prompt_hash,
                        "protocol": self.protocol,
                        "engine": self.facts.engine,
                        "dtype": self.facts.dtype,
                        "harness": "factorlab",
                        "harness_version": __version__,
                        "created": created,
                    }
                )
        if rows:
            with RecordWriter(self.folder) as writer:
                writer.add(rows)
        return len(rows)

    def _check_same(self, one: Scored, known: float | None, instance: Instance) -> None:
        """A program may run out of time once and not again; anything else is scored twice alike."""
        if self.task.scoring == "code" or one.score is None or known is None or pd.isna(known):
            return
        if abs(one.score - known) > SAME:
            raise InputError(
                f"'{self.folder}' has records of '{self.model}' on {self.task.benchmark} with other scores (instance "
                f"'{instance.instance_id}': {known:g}, now {one.score:g}): how answers are scored has changed, or the "
                "answers were lost; give another --out"
            )


def _writable(text: str) -> str:
    """Half a pair of surrogates, which a byte-level model can write, has no place in UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


def summarise(instances: Sequence[Instance], scored: Sequence[Sequence[Scored]]) -> tuple[float, float]:
    """Score and simple standard error of the benchmark's own metric, for the eye; `factorlab scores` knows more.

    Trials are averaged first. A corpus metric has no standard error here.
    """
    own = scored[0][0].metric
    if scored[0][0].score is None:
        metric = find_metric(own)
        sums = np.sum([one.stats or () for scores in scored for one in scores if one.metric == own], axis=0)
        return float(CORPUS[metric.corpus](sums)) if metric else float("nan"), float("nan")
    means = np.array([np.mean([one.score for one in scores if one.metric == own]) for scores in scored])
    n, mean = len(means), float(means.mean())
    se = means.std(ddof=1) / np.sqrt(n) if n > 1 else 0.0
    # All the same: that of a proportion shrunk towards 1/2, as a standard error is never 0.
    return mean, float(se) or float(binomial_se(np.array(mean), np.array(n)))
