"""Seconds of scoring: factorlab beside lm-evaluation-harness, on a model that is built here.

Both score the same texts with the same model in fp32, each in a process of its own with the same number of
threads; the CPU seconds of scoring alone are compared (no start, no loading). lm-eval is given the batch size
that is best for it, of those tried. The floor is what the arithmetic alone would take at the speed of the
model's own largest matrix product: every token once, attention over what each token sees, the output head where
scores are read.
Run from the root, in an environment with factorlab[eval] and lm_eval:

    python benchmarks/eval_speed.py --out eval_speed.json
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from eval_models import HIDDEN, INNER, LAYERS, VOCABULARY, build, choice_questions, prompts

STOPS = ["\n", "ka", "mo"]
"""Early stops: parts of made-up words, which come soon."""

JOBS = {
    "multiple choice": {"questions": 500, "shots": 5, "kind": "choices", "letters": False},
    "one-token choices": {"questions": 500, "shots": 5, "kind": "choices", "letters": True},
    "generation": {"questions": 100, "shots": 5, "kind": "text", "new": 64, "stops": []},
    "generation, early stops": {"questions": 100, "shots": 5, "kind": "text", "new": 64, "stops": STOPS},
}

GOALS = {  # ratio to lm-eval at least; to the floor at most
    "multiple choice": (12.0, 1.5),
    "one-token choices": (6.0, None),
    "generation": (3.5, 2.5),
    "generation, early stops": (3.5, 3.5),
}


def material(job: dict[str, Any]) -> Any:
    """The texts of a job."""
    if job["kind"] == "choices":
        return choice_questions(job["questions"], job["shots"], 1, letters=job["letters"])
    return prompts(job["questions"], job["shots"], 2)


def run_factorlab(
    model: Path, job: dict[str, Any], batch: str, device: str = "cpu", dtype: str = "fp32"
) -> tuple[float, float, Any]:
    """CPU seconds, wall seconds, and what was found."""
    from factorlab.eval.hf.model import HFModel
    from factorlab.eval.instance import Decoding
    from factorlab.eval.language_model import ChoiceRequest, TextRequest

    loaded = HFModel(str(model), dtype=dtype, device=device, batch=batch)
    texts = material(job)
    found: dict[int, Any] = {}
    if job["kind"] == "choices":
        asked = [ChoiceRequest((q["context"],), tuple(q["choices"])) for q in texts]

        def take(answers: Any) -> None:
            found.update({i: list(answer.log_likelihoods) for i, answer in answers})

        began = time.process_time(), time.perf_counter()
        loaded.score(asked, take)
    else:
        decoding = Decoding(max_new_tokens=job["new"], stops=tuple(job["stops"]))
        written = [TextRequest(text, decoding) for text in texts]

        def take_texts(answers: Any) -> None:
            found.update({i: text for i, _, text in answers})

        began = time.process_time(), time.perf_counter()
        loaded.write(written, take_texts)
    cpu, wall = time.process_time() - began[0], time.perf_counter() - began[1]
    return cpu, wall, [found[i] for i in range(len(texts))]


def run_lm_eval(
    model: Path, job: dict[str, Any], batch: str, device: str = "cpu", dtype: str = "fp32"
) -> tuple[float, float, Any]:
    """The same of lm-eval's own model class."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    precision = {"fp32": "float32", "bf16": "bfloat16"}[dtype]
    size = "auto" if batch == "auto" else int(batch)
    loaded = HFLM(pretrained=str(model), device=device, dtype=precision, batch_size=size)
    texts = material(job)
    if job["kind"] == "choices":
        asked = [
            Instance("loglikelihood", {}, (q["context"], choice), k, metadata=("x", i, 1))
            for i, q in enumerate(texts)
            for k, choice in enumerate(q["choices"])
        ]
        began = time.process_time(), time.perf_counter()
        got = loaded.loglikelihood(asked, disable_tqdm=True)
        found: Any = [[got[4 * i + k][0] for k in range(4)] for i in range(len(texts))]
    else:
        settings = {"until": job["stops"], "max_gen_toks": job["new"], "do_sample": False}
        written = [
            Instance("generate_until", {}, (text, settings), 0, metadata=("x", i, 1))
            for i, text in enumerate(texts)
        ]
        began = time.process_time(), time.perf_counter()
        found = loaded.generate_until(written, disable_tqdm=True)
    return time.process_time() - began[0], time.perf_counter() - began[1], found


RUNNERS = {"factorlab": run_factorlab, "lm-eval": run_lm_eval}


def floor_seconds(model: Path, job: dict[str, Any], found: Any) -> dict[str, float]:
    """CPU seconds of the arithmetic alone: products at the speed of the model's own largest one."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = material(job)

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    def count(text: str) -> int:
        return len(encode(text))

    tokens, read, seen = 0, 0, 0.0
    contexts = [q["context"] if job["kind"] == "choices" else q for q in texts]
    encoded = [encode(context) for context in contexts]
    shared = next((i for i, column in enumerate(zip(*encoded, strict=False)) if len(set(column)) > 1), 0)
    tokens += shared
    seen += shared**2 / 2
    for i, context in enumerate(encoded):
        own = len(context) - shared
        tokens += own
        seen += own * shared + own**2 / 2
        if job["kind"] == "choices":
            read += 1
            for choice in texts[i]["choices"]:
                more = count(choice) - 1
                tokens += more
                read += more
                seen += more * (shared + own) + more**2 / 2
        else:
            more = max(1, count(found[i]))
            tokens += more - 1
            read += more
            seen += (more - 1) * (shared + own) + more**2 / 2
    linear = LAYERS * (4 * HIDDEN**2 + 3 * HIDDEN * INNER)
    flops = 2.0 * linear * tokens + 4.0 * LAYERS * HIDDEN * seen + 2.0 * HIDDEN * VOCABULARY * read
    a, b = torch.randn(1024, HIDDEN), torch.randn(HIDDEN, INNER)
    for _ in range(5):
        a @ b
    rates = []
    for _ in range(7):
        began = time.process_time()
        for _ in range(40):
            a @ b
        rates.append(40 * 2.0 * 1024 * HIDDEN * INNER / (time.process_time() - began))
    rate = float(np.median(rates))
    return {
        "seconds": flops / rate,
        "gflops": flops / 1e9,
        "gflops_per_cpu_second": rate / 1e9,
        "tokens": tokens,
    }


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON to write.")
@click.option(
    "--repeats",
    default=3,
    show_default=True,
    help="Runs of factorlab; of lm-eval at its best batch size: two.",
)
@click.option("--threads", default=1, show_default=True, help="Threads of both.")
@click.option("--jobs", default="all", help="Names of jobs, separated by commas.")
@click.option("--peer/--no-peer", default=True, help="Run lm-eval, too.")
@click.option(
    "--batches", default="1,8,32", show_default=True, help="Batch sizes that lm-eval is tried with."
)
@click.option("--scale", default=1.0, help="Share of the questions.")
@click.option(
    "--one", hidden=True, nargs=3, default=None, help="Runner, job, batch: one measurement, in this process."
)
@click.option("--model", type=click.Path(path_type=Path), hidden=True)
def main(
    out: Path, repeats: int, threads: int, jobs: str, peer: bool, batches: str, scale: float,
    one: tuple[str, str, str] | None, model: Path | None,
) -> None:  # fmt: skip
    """Run the study and write rows and goals."""
    for job in JOBS.values():
        job["questions"] = max(2, int(job["questions"] * scale))  # type: ignore[operator, arg-type]
    if one is not None and model is not None:
        measure_here(one, model, out, threads)
        return
    names = list(JOBS) if jobs == "all" else jobs.split(",")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="eval_speed-") as work:
        folder = build(Path(work) / "model")
        for name in names:
            answers: dict[str, Any] = {}
            for turn in range(repeats):
                rows.append(measure(folder, "factorlab", name, "auto", threads, scale, turn, answers))
            if peer:
                tried = {
                    b: measure(folder, "lm-eval", name, b, threads, scale, 0, answers)
                    for b in batches.split(",")
                }
                best = min(tried, key=lambda b: tried[b]["cpu_seconds"])
                rows += list(tried.values())
                rows.append(measure(folder, "lm-eval", name, best, threads, scale, 1, answers))
                rows.append({"job": name, "runner": "agreement", **agreement(answers)})
            rows.append(
                {
                    "job": name,
                    "runner": "floor",
                    **measure(folder, "floor", name, "0", threads, scale, 0, answers),
                }
            )
            content = {"rows": rows, "goals": judge(rows), "machine": machine(threads)}
            partial = out.with_name(f".{out.name}.partial")
            partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            os.replace(partial, out)
    for goal in judge(rows):
        click.echo(f"{'yes' if goal['holds'] else 'NO '} {goal['name']}: {goal['value']:.3g}, {goal['goal']}")


def measure_here(one: tuple[str, str, str], model: Path, out: Path, threads: int) -> None:
    """One measurement, in this process."""
    import torch

    torch.set_num_threads(threads)
    runner, job, batch = one
    if runner == "floor":
        found = floor_seconds(model, JOBS[job], json.loads(out.read_text()))
        out.write_text(json.dumps(found))
        return
    cpu, wall, answers = RUNNERS[runner](model, JOBS[job], batch)
    out.write_text(json.dumps({"cpu_seconds": cpu, "wall_seconds": wall, "answers": answers}))


def measure(
    model: Path,
    runner: str,
    job: str,
    batch: str,
    threads: int,
    scale: float,
    turn: int,
    answers: dict[str, Any],
) -> dict[str, Any]:
    """One measurement, in a process of its own."""
    result = model.parent / "result.json"
    if runner == "floor":
        result.write_text(json.dumps(answers["factorlab"]))
    command = [
        sys.executable, __file__, "--one", runner, job, batch, "--model", str(model), "--out", str(result),
        "--threads", str(threads), "--scale", str(scale),
    ]  # fmt: skip
    limits = {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
    }
    subprocess.run(command, check=True, env={**os.environ, **limits, "HF_HUB_OFFLINE": "1"})
    found = json.loads(result.read_text())
    if runner == "floor":
        click.echo(f"{job}, floor: {found['seconds']:.2f} CPU s")
        return found
    answers[runner] = found.pop("answers")
    click.echo(
        f"{job}, {runner} (batch {batch}): {found['cpu_seconds']:.2f} CPU s, {found['wall_seconds']:.2f} s"
    )
    return {"job": job, "runner": runner, "batch": batch, "turn": turn, **found}


def agreement(answers: dict[str, Any]) -> dict[str, Any]:
    """How far both agree."""
    ours, theirs = answers["factorlab"], answers["lm-eval"]
    if isinstance(ours[0], str):
        return {"same": sum(a == b for a, b in zip(ours, theirs, strict=True)), "of": len(ours)}
    a, b = np.array(ours), np.array(theirs)
    same = int((a.argmax(1) == b.argmax(1)).sum())
    return {"largest_difference": float(np.abs(a - b).max()), "same": same, "of": len(ours)}


def judge(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Goals: medians against lm-eval at its best batch size, and against the floor."""
    out: list[dict[str, Any]] = []

    def add(name: str, value: float, goal: str, holds: bool) -> None:
        out.append({"name": name, "value": value, "goal": goal, "holds": bool(holds)})

    for job, (ratio, floor) in GOALS.items():
        here = [row for row in rows if row["job"] == job]
        ours = [row["cpu_seconds"] for row in here if row["runner"] == "factorlab"]
        theirs: dict[str, list[float]] = {}
        for row in here:
            if row["runner"] == "lm-eval":
                theirs.setdefault(row["batch"], []).append(row["cpu_seconds"])
        if ours and theirs:
            value = min(float(np.mean(times)) for times in theirs.values()) / float(np.median(ours))
            add(f"{job}: lm-eval / factorlab, CPU seconds", value, f">= {ratio:g}", value >= ratio)
        for row in here:
            if row["runner"] == "floor" and ours and floor is not None:
                value = float(np.median(ours)) / row["seconds"]
                add(f"{job}: factorlab / floor", value, f"<= {floor:g}", value <= floor)
            if row["runner"] == "agreement":
                add(f"{job}: the same answers", row["same"] / row["of"], "1", row["same"] == row["of"])
                if "largest_difference" in row:
                    worst = row["largest_difference"]
                    add(f"{job}: log-likelihoods differ by at most", worst, "<= 1e-4", worst <= 1e-4)
    return out


def machine(threads: int) -> dict[str, Any]:
    """Where and with what this was measured."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "cores": os.cpu_count(), "threads": threads}
    found["python"] = platform.python_version()
    for name in ("torch", "transformers", "lm_eval"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


if __name__ == "__main__":
    main()
