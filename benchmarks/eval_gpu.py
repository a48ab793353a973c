"""Texts and tokens per second on a GPU: factorlab beside lm-evaluation-harness and, where it is installed, vLLM.

The questions of `eval_speed.py`, in bf16, wall time of scoring without loading; each runner in a process of
its own. Run from the root on a machine with a GPU, in an environment with factorlab[eval] and lm_eval:

    python benchmarks/eval_gpu.py --model FOLDER_OR_ID --out eval_gpu.json

Without --model, a model of 1.2 billion random parameters is built. Tokens are those of all prompts with their
choices or answers, as a runner that shares nothing would have to read them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from eval_models import build
from eval_speed import JOBS, agreement, machine, material, run_factorlab, run_lm_eval

LARGE = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 32}
"""What makes `eval_models.build` a model of 1.2 billion parameters."""


def run_vllm(
    model: Path, job: dict[str, Any], batch: str, device: str, dtype: str
) -> tuple[float, float, Any]:
    """vLLM behind factorlab's own protocol; it finds its batches itself."""
    import time

    from factorlab.eval.instance import Decoding
    from factorlab.eval.language_model import ChoiceRequest, TextRequest
    from factorlab.eval.vllm_engine import VLLMModel

    loaded = VLLMModel(str(model), dtype=dtype)
    texts = material(job)
    found: dict[int, Any] = {}
    began = time.process_time(), time.perf_counter()
    if job["kind"] == "choices":
        loaded.score(
            [ChoiceRequest((q["context"],), tuple(q["choices"])) for q in texts],
            lambda answers: found.update({i: list(a.log_likelihoods) for i, a in answers}),
        )
    else:
        decoding = Decoding(max_new_tokens=job["new"], stops=tuple(job["stops"]))
        loaded.write(
            [TextRequest(text, decoding) for text in texts],
            lambda answers: found.update({i: text for i, _, text in answers}),
        )
    wall = time.perf_counter() - began[1]
    return time.process_time() - began[0], wall, [found[i] for i in range(len(texts))]


RUNNERS = {"factorlab": run_factorlab, "lm-eval": run_lm_eval, "vllm": run_vllm}


def tokens_of(model: Path, job: dict[str, Any], found: Any) -> int:
    """Tokens of all prompts with their choices or answers."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    whole = []
    for text, answer in zip(material(job), found, strict=True):
        whole += (
            [text["context"] + c for c in text["choices"]] if job["kind"] == "choices" else [text + answer]
        )
    return sum(len(ids) for ids in tokenizer(whole, add_special_tokens=False)["input_ids"])


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON to write.")
@click.option("--model", help="Folder or name of a model; without it one is built.")
@click.option("--device", default="cuda", show_default=True)
@click.option("--dtype", default="bf16", show_default=True, help="bf16 or fp32.")
@click.option("--jobs", default="all", help="Names of jobs, separated by commas.")
@click.option("--runners", default="factorlab,lm-eval,vllm", show_default=True)
@click.option("--scale", default=1.0, help="Share of the questions.")
@click.option(
    "--one", hidden=True, nargs=2, default=None, help="Runner, job: one measurement, in this process."
)
def main(
    out: Path, model: str | None, device: str, dtype: str, jobs: str, runners: str, scale: float,
    one: tuple[str, str] | None,
) -> None:  # fmt: skip
    """Run the study and write rows and goals."""
    for job in JOBS.values():
        job["questions"] = max(2, int(job["questions"] * scale))  # type: ignore[operator, arg-type]
    if one is not None:
        cpu, wall, answers = RUNNERS[one[0]](Path(model or ""), JOBS[one[1]], "auto", device, dtype)
        tokens = tokens_of(Path(model or ""), JOBS[one[1]], answers)
        out.write_text(json.dumps({"cpu": cpu, "wall": wall, "tokens": tokens, "answers": answers}))
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="eval_gpu-") as work:
        source = model or str(build(Path(work) / "model", **LARGE))
        for name in list(JOBS) if jobs == "all" else jobs.split(","):
            answers: dict[str, Any] = {}
            for runner in runners.split(","):
                if runner == "vllm" and importlib.util.find_spec("vllm") is None:
                    click.echo("vllm is not installed; left out")
                    continue
                result = Path(work) / "result.json"
                subprocess.run(
                    [
                        sys.executable, __file__, "--one", runner, name, "--model", source, "--device", device,
                        "--dtype", dtype, "--scale", str(scale), "--out", str(result),
                    ],
                    check=True,
                )  # fmt: skip
                found = json.loads(result.read_text())
                answers[runner] = found.pop("answers")
                row = {
                    "job": name,
                    "runner": runner,
                    **found,
                    "tokens_per_second": found["tokens"] / found["wall"],
                }
                rows.append(row)
                click.echo(
                    f"{name}, {runner}: {found['wall']:.1f} s, {row['tokens_per_second']:.0f} tokens/s"
                )
            if {"factorlab", "lm-eval"} <= set(answers):
                rows.append({"job": name, "runner": "agreement", **agreement(answers)})
            content = {"rows": rows, "goals": [], "machine": {**machine(0), "device": device, "dtype": dtype}}
            partial = out.with_name(f".{out.name}.partial")
            partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            os.replace(partial, out)


if __name__ == "__main__":
    main()
