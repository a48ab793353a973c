"""Writes the CSV files beside it: python tests/reference/make_reference.py SHARED_FOLDER.

Only correlation matrices and printed answers are carried over; sources stand in README.md.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
FACTOR_ANALYZER_TABLES = ("test02", "test03", "test04")
M1 = """
1 1 1 1 1 1 1 1 1 1 3 3 3 3 3 4 5 6
1 2 1 1 1 1 2 1 2 1 3 4 3 3 3 4 6 5
3 3 3 3 3 1 1 1 1 1 1 1 1 1 1 5 4 6
3 3 4 3 3 1 1 2 1 1 1 1 2 1 1 5 6 4
1 1 1 1 1 3 3 3 3 3 1 1 1 1 1 6 4 5
1 1 1 2 1 3 3 3 4 3 1 1 1 2 1 6 5 4
"""


def main(shared: Path) -> None:
    data = shared / "data"
    for name, stem in (("Harman74.cor", "harman74"), ("ability.cov", "ability")):
        write(classic_matrix(data / "psychometric_matrices" / f"{name}.csv"), f"{stem}_matrix.csv")
    answers = data / "r_factanal_reference"
    write(pd.read_csv(answers / "harman74_expected_chi2.csv"), "harman74_chi2.csv")
    write(pd.read_csv(answers / "harman74_expected_loadings.csv"), "harman74_loadings.csv")
    varimax = ["variable", "varimax_F1", "varimax_F2"]
    write(pd.read_csv(answers / "ability_cov_expected_2factor.csv")[varimax], "ability_varimax.csv")
    rows = [line.split() for line in M1.strip().splitlines()]
    write(
        pd.DataFrame(np.array(rows, dtype=int).T, columns=[f"v{j}" for j in range(1, 7)]), "factanal_m1.csv"
    )
    write(m1_answer(answers / "factanal_m1.Rout.txt"), "factanal_m1_varimax.csv")
    folder = data / "factor_analyzer_expected"
    for table in FACTOR_ANALYZER_TABLES:
        correlation = pd.read_csv(folder / "data" / f"{table}.csv").corr().round(14)
        write(correlation.rename_axis("variable").reset_index(), f"factor_analyzer_{table}_matrix.csv")
    write(factor_analyzer_loadings(folder / "expected"), "factor_analyzer_loadings.csv")
    write(paper_loadings(shared / "design" / "PAPER.md"), "paper_loadings.csv")


def classic_matrix(path: Path) -> pd.DataFrame:
    """Variables, their matrix, and the number of observations in the last column."""
    frame = pd.read_csv(path)
    names = [c for c in frame if c.startswith("cov.")]
    matrix = frame[names].rename(columns=lambda c: c.removeprefix("cov."))
    matrix.insert(0, "variable", list(matrix.columns))
    return matrix.assign(n_obs=frame["n.obs"])


def m1_answer(path: Path) -> pd.DataFrame:
    """Uniquenesses and varimax loadings printed for the demonstration data of R's factanal."""
    text = path.read_text().split("Uniquenesses:")[1]
    unique = [float(v) for v in text.splitlines()[2].split()]
    loadings = re.findall(r"^(v\d) +(-?[\d.]+) +(-?[\d.]+) +(-?[\d.]+) *$", text, re.MULTILINE)[:6]
    frame = pd.DataFrame(loadings, columns=["variable", "F1", "F2", "F3"])
    return frame.assign(uniqueness=unique)


def factor_analyzer_loadings(folder: Path) -> pd.DataFrame:
    parts = []
    for table in FACTOR_ANALYZER_TABLES:
        for rotation in ("none", "varimax", "promax"):
            for factors in (2, 3):
                path = folder / table / f"loading_ml_{rotation}_{factors}_{table}.csv"
                wide = pd.read_csv(path, index_col=0).rename_axis("variable").reset_index()
                long = wide.melt("variable", var_name="factor", value_name="loading")
                parts.append(long.assign(table=table, rotation=rotation, factors=factors))
    columns = ["table", "rotation", "factors", "variable", "factor", "loading"]
    return pd.concat(parts)[columns].round(8)


def paper_loadings(path: Path) -> pd.DataFrame:
    """Figures 8 and 10 of the paper: a row a benchmark, a column a factor."""
    text = path.read_text()
    order = re.search(r"Fig\. 8, order (.*?):\n", text, re.DOTALL).group(1)
    benchmarks = [name.strip() for name in order.replace("\n", " ").split(",")]
    rows = {
        f"{figure}_{line.split()[1]}": [float(v) for v in line.split()[2:]]
        for figure, mark in (("fig8", "- PC"), ("fig10", "- F"))
        for line in text.splitlines()
        if line.startswith(mark)
    }
    return pd.DataFrame({"benchmark": benchmarks, **rows})


def write(frame: pd.DataFrame, name: str) -> None:
    handle, part = tempfile.mkstemp(dir=HERE, suffix=".part")
    os.close(handle)
    frame.to_csv(part, index=False)
    os.chmod(part, 0o644)
    os.replace(part, HERE / name)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/reference/make_reference.py SHARED_FOLDER")
    main(Path(sys.argv[1]))
