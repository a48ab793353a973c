import codecs
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factorlab.errors import InputError
from factorlab.scores import read_scores, table_from_frames

SHARED = Path(__file__).parents[2] / "shared" / "data"
RANGE = {"min": 0.0, "max": 1.0}


def long(cells):
    rows = [(m, b, s) for (m, b), s in cells.items()]
    return pd.DataFrame(rows, columns=["model", "benchmark", "score"])


def wide(**columns):
    return pd.DataFrame({"model": ["a", "b", "c"], **columns})


def benchmarks(names, **columns):
    return pd.DataFrame({"benchmark": names, **RANGE, **columns})


def notes(table):
    return " ".join(table.notes)


def csv(tmp_path, text, name="scores.csv", bom=False):
    path = tmp_path / name
    path.write_bytes((codecs.BOM_UTF8 if bom else b"") + text.encode())
    return path


# Long and wide


def test_long_and_wide_are_one_table():
    from_long = table_from_frames(long({("a", "X"): 0.1, ("a", "Y"): 0.2, ("b", "X"): 0.3, ("b", "Y"): 0.4}))
    from_wide = table_from_frames(pd.DataFrame({"model": ["a", "b"], "X": [0.1, 0.3], "Y": [0.2, 0.4]}))
    np.testing.assert_array_equal(from_long.scores, from_wide.scores)
    assert from_long.model_names == from_wide.model_names == ["a", "b"]
    assert from_long.benchmark_names == from_wide.benchmark_names == ["X", "Y"]


def test_long_with_other_names_and_a_missing_cell():
    frame = pd.DataFrame({"model": ["a", "b", "b"], "task": ["X", "X", "Y"], "value": [0.1, 0.2, 0.3]})
    table = table_from_frames(frame, columns={"benchmark": "task", "score": "value"})
    assert np.isnan(table.scores[0, 1])
    assert table.data["se_kind"].values[0, 1] == "missing"
    assert "1 of 4 cells (25%) are missing and stay missing" in notes(table)


def test_long_without_score_names_the_cure():
    frame = pd.DataFrame({"model": ["a"], "benchmark": ["X"], "performance": [0.5]})
    with pytest.raises(
        InputError,
        match=r"no 'score'; .*columns=\{'score': \.\.\.\} .*; its .* are 'performance'",
    ):
        table_from_frames(frame)


def test_columns_must_exist():
    with pytest.raises(InputError, match="columns: 'speed' is no column of the table"):
        table_from_frames(wide(X=0.1), columns={"score": "speed"})
    with pytest.raises(InputError, match="columns: 'points' is no column of a long table; allowed are model"):
        table_from_frames(wide(X=0.1), columns={"points": "X"})


def test_number_columns_of_the_models_table_never_become_benchmarks():
    frame = wide(params_b=[1, 2, 3], age=[1, 2, 3], X=[0.1, 0.2, 0.3])
    models = pd.DataFrame({"model": ["a", "b", "c"], "age": [1, 2, 3]})
    assert table_from_frames(frame, models).benchmark_names == ["X"]


def test_metadata_inside_a_wide_table_is_the_models_table():
    table = table_from_frames(wide(params_b=[1, 2, 3], family=["F", "F", "G"], X=[0.1, 0.2, 0.3]))
    assert table.benchmark_names == ["X"]
    assert table.models["params_b"].tolist() == [1, 2, 3]


def test_columns_a_benchmarks_table_does_not_declare_are_left_out_aloud():
    table = table_from_frames(wide(size=[1, 2, 3], X=[0.1, 0.2, 0.3]), benchmarks=benchmarks(["X"]))
    assert table.benchmark_names == ["X"]
    assert "does not declare were left out: 'size'" in notes(table)


def test_undeclared_columns_named_like_metadata_are_pointed_out():
    table = table_from_frames(pd.DataFrame({"model": ["a", "b"], "Model Size (B)": [7, 13], "X": [0.1, 0.2]}))
    assert "named like something else: 'Model Size (B)'; leave them out with ignore" in notes(table)
    cut = table_from_frames(
        pd.DataFrame({"model": ["a", "b"], "Model Size (B)": [7, 13], "X": [0.1, 0.2]}),
        ignore=["Model Size (B)"],
    )
    assert cut.benchmark_names == ["X"]


def test_model_column():
    frame = pd.DataFrame({"no": [1, 2], "name": ["a", "b"], "other": ["p", "q"], "X": [0.1, 0.2]})
    assert table_from_frames(frame, ignore=["no"]).model_names == ["a", "b"]  # the first text column
    assert table_from_frames(frame, ignore=["no"], model_column="other").model_names == ["p", "q"]
    with pytest.raises(InputError, match="model_column 'x' is no column of the table; it has 'no', 'name'"):
        table_from_frames(frame, model_column="x")
    with pytest.raises(InputError, match="no text column to take the models' names from"):
        table_from_frames(frame[["no", "X"]])


def test_ignore_and_drop_name_what_there_is():
    with pytest.raises(InputError, match="ignore: 'Z' is no column of the table; it has 'model', 'X'"):
        table_from_frames(wide(X=[0.1, 0.2, 0.3]), ignore=["Z"])
    with pytest.raises(InputError, match="drop: 'Z' is no benchmark of the table; it has 'X'"):
        table_from_frames(wide(X=[0.1, 0.2, 0.3]), drop=["Z"])
    assert table_from_frames(wide(X=[0.1, 0.2, 0.3], Y=[1, 2, 3]), drop=["Y"]).benchmark_names == ["X"]


# Files


def test_csv_with_byte_order_mark_emoji_headers_and_missing_markers(tmp_path):
    markers = ["", "NA", "n/a", "-", "null", "NaN", "None", " "]
    rows = "".join(f"m{i},{marker},0.{i + 1}\n" for i, marker in enumerate(markers))
    table = read_scores(csv(tmp_path, f"model,Average ⬆️,日本語\nfirst,0.5,0.9\n{rows}", bom=True))
    assert table.model_names[0] == "first"
    assert table.benchmark_names == ["Average ⬆️", "日本語"]
    assert np.isnan(table.scores[1:, 0]).all()


def test_metadata_beside_the_file_is_found(tmp_path):
    path = csv(tmp_path, "model,benchmark,score\na,X,0.5\nb,X,0.6\n")
    csv(tmp_path, "model,params_b,tokens_b_de\na,7,100\nb,8,\n", "models.csv")
    benchmarks(["X"], language="de").to_parquet(tmp_path / "benchmarks.parquet")
    table = read_scores(path)
    assert table.languages == ["de"]
    assert table.benchmarks.loc["X", "language"] == "de"
    assert table.name == "scores"


def test_metadata_beside_the_file_of_another_table_is_set_aside(tmp_path):
    path = csv(tmp_path, "model,benchmark,score\na,X,0.5\nb,X,0.6\n")
    other = csv(tmp_path, "model,params_b\nz,7\n", "models.csv")
    assert "names none of their models and was set aside" in notes(read_scores(path))
    with pytest.raises(InputError, match=r"names none of the 2 models of the scores \(it begins with 'z'"):
        read_scores(path, models=other)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; a table has a header line"),
        ("\n\n", "is empty; a table has a header line"),
        ("model,X\n", "has no rows"),
        ("model,X,X\na,1,2\n", "has 2 columns named 'X'; every column needs a name of its own"),
        ("model,X\na,1,2\n", "row 2 has 3 cells, the header has 2"),
        ("model,X\na,\nb,NA\n", "no number column"),
        ("model,X\na,0.5\n,0.6\n", "row 2 has no model in column 'model'"),
        (
            "model,X\na,64.3%\nb,70.1%\n",
            "column 'X' has '64.3%' .model 'a'. among its numbers; give a plain number",
        ),
        ('model,X\na,"0,65"\nb,"0,70"\n', "column 'X' has '0,65'"),
        ("model,X\na,0.5\nb,fail\n", "column 'X' has 'fail' .model 'b'. among its numbers"),
        ("model,X\na,0.5\nb,inf\n", "score of model 'b' on 'X' is inf; it must be finite"),
        (
            "model,benchmark,score\na,X,?\nb,X,abc\n",
            "'score' of model 'b' on 'X' is 'abc'; give a plain number",
        ),
        ("model,benchmark,score\na,,0.1\n", "row 1 of the scores has no benchmark"),
        ("model,benchmark,score\na,X,NA\n", "the table has no score at all"),
    ],
)
def test_messy_files_get_one_clear_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read_scores(csv(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"no such file: .*; give a table ending in \.parquet, \.csv"):
        read_scores(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"ends in '\.xlsx'; tables end in"):
        read_scores(csv(tmp_path, "x", "scores.xlsx"))
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read_scores(csv(tmp_path, "x", "scores.parquet"))
    (tmp_path / "latin.csv").write_bytes("model,X\né,1\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"is not UTF-8 .byte 8.; save it as UTF-8"):
        read_scores(tmp_path / "latin.csv")


# Values


def test_percent_under_a_declared_maximum_of_one_is_an_error_with_its_cure():
    with pytest.raises(
        InputError, match=r"'X' has the score 64.3 \(model 'a'\) above its declared maximum 1; .* max to 100"
    ):
        table_from_frames(wide(X=[64.3, 70, 80]), benchmarks=benchmarks(["X"]))
    declared = benchmarks(["X"]).assign(max=100.0)
    assert table_from_frames(wide(X=[64.3, 70, 80]), benchmarks=declared).scores[0, 0] == 64.3


def test_below_the_declared_minimum_is_an_error():
    with pytest.raises(
        InputError, match=r"'X' has the score -0.1 .model 'b'. below its declared minimum 0; correct"
    ):
        table_from_frames(wide(X=[0.1, -0.1, 0.2]), benchmarks=benchmarks(["X"]))


def test_undeclared_range_is_said_and_mixed_units_are_noticed():
    table = table_from_frames(wide(X=[0.6, 65.0, 70.0]))
    assert "1 of 1 benchmarks declare no range: their scores are standardised as they stand" in notes(table)
    assert "Percent and fraction may be mixed within 'X'" in notes(table)


def test_duplicate_rows():
    frame = long({("a", "X"): 0.1, ("b", "X"): 0.3})
    twice = pd.concat([frame, frame.assign(score=[0.2, 0.3])])
    with pytest.raises(
        InputError, match=r"2 rows for 'a' on 'X' .2 repeated rows in all.; keep one, or choose dupl"
    ):
        table_from_frames(twice)
    assert table_from_frames(twice, duplicates="mean").scores[:, 0] == pytest.approx([0.15, 0.3])
    assert table_from_frames(twice, duplicates="first").scores[0, 0] == 0.1
    assert table_from_frames(twice, duplicates="last").scores[0, 0] == 0.2
    with pytest.raises(InputError, match="duplicates is 'sum'; allowed are error, mean, first, last"):
        table_from_frames(twice, duplicates="sum")
    with pytest.raises(InputError, match="2 rows for 'a'"):
        table_from_frames(pd.DataFrame({"model": ["a", "a"], "X": [0.1, 0.2]}))


def test_lower_is_better_turns_the_sign_only():
    declared = pd.DataFrame({"benchmark": ["X", "Y"], "higher_is_better": ["no", True]})
    table = table_from_frames(wide(X=[1.0, 2, 3], Y=[1.0, 2, 3]), benchmarks=declared)
    z = table.standardised()
    up = 1.5**0.5  # 1 over the ddof 0 standard deviation of 1, 2, 3
    np.testing.assert_allclose(z.z[:, 0], [up, 0, -up])
    np.testing.assert_allclose(z.z[:, 1], [-up, 0, up])
    np.testing.assert_allclose(z.scale, [1 / up, 1 / up])
    assert z.sign.tolist() == [-1, 1]


def test_benchmark_without_variance_is_kept_said_and_not_standardised():
    table = table_from_frames(wide(X=[0.0, 0.0, 0.0], Y=[0.1, 0.2, 0.3]))
    assert "without two different scores carry no information: 'X'" in notes(table)
    with pytest.raises(InputError, match="cannot be standardised: 'X'; leave them out with drop"):
        table.standardised()


def test_one_model_and_one_benchmark():
    one = table_from_frames(pd.DataFrame({"model": ["a"], "X": [0.5], "Y": [0.4]}))
    assert "One model: there is nothing to compare" in notes(one)
    with pytest.raises(InputError, match=r"has one model .'a'.; scores are compared between models"):
        one.standardised()
    assert "One benchmark: no correlations" in notes(table_from_frames(wide(X=[0.1, 0.2, 0.3])))


def test_more_benchmarks_than_models_is_said():
    assert "3 models on 3 benchmarks" in notes(table_from_frames(wide(X=[1, 2, 3], Y=[2, 1, 3], Z=[1, 3, 2])))


def test_models_and_benchmarks_without_scores():
    models = pd.DataFrame({"model": ["parent", "a", "b", "c"], "base_model": [None, "parent", None, None]})
    table = table_from_frames(
        pd.DataFrame({"model": ["a", "b", "c"], "X": [0.1, 0.2, np.nan], "Y": np.nan}), models
    )
    assert table.model_names == ["a", "b"]
    assert list(table.models.index) == ["a", "b", "parent", "c"]
    assert "Models without any score are not in the matrix: 'c'" in notes(table)


def test_average_beside_its_parts_is_named_and_dropped_only_on_request():
    rng = np.random.default_rng(1)
    parts = rng.normal(0.5, 0.1, (40, 4)).round(4)
    frame = pd.DataFrame(parts, columns=list("PQRS")).assign(model=[f"m{i}" for i in range(40)])
    frame["Mean"] = parts.mean(axis=1).round(4)
    table = table_from_frames(frame)
    assert "'Mean' is the average of 'P', 'Q', 'R', 'S'" in notes(table)
    assert "Mean" in table.benchmark_names
    assert "average" not in notes(table_from_frames(frame, drop=["Mean"]))
    weighted = frame.assign(Mean=(parts @ [0.7, 0.3, 0, 0]).round(4))
    assert "an exact linear combination of" in notes(table_from_frames(weighted))
    noisy = frame.assign(Mean=parts.mean(axis=1) + rng.normal(0, 0.002, 40))
    assert "is the average" not in notes(table_from_frames(noisy))


def test_average_is_found_where_another_block_is_missing():
    rng = np.random.default_rng(2)
    parts = rng.normal(50, 10, (30, 3)).round(2)
    frame = pd.DataFrame(parts, columns=list("PQR")).assign(model=[f"m{i}" for i in range(30)])
    frame["Average ⬆️"] = parts.mean(axis=1).round(2)
    frame["late"] = np.where(np.arange(30) < 4, rng.normal(size=30), np.nan)
    assert "'Average ⬆️' is the average of 'P', 'Q', 'R'" in notes(table_from_frames(frame))


# Standard errors


def se_of(score, n, metric="accuracy", **columns):
    frame = pd.DataFrame({"model": ["a", "b"], "benchmark": "X", "score": [score, 0.5]})
    declared = benchmarks(["X"], metric=metric, n_instances=n, **columns)
    table = table_from_frames(frame, benchmarks=declared)
    return float(table.se[0, 0]), table.data["se_kind"].values[0, 0]


def test_binomial_standard_error_against_the_formula():
    p = (400 * 0.3 + 0.5) / 401
    assert se_of(0.3, 400) == (pytest.approx(np.sqrt(p * (1 - p) / 400)), "binomial")
    assert se_of(0.3, 400)[0] == pytest.approx(np.sqrt(0.3 * 0.7 / 400), rel=0.002)


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_a_score_at_the_end_of_its_range_is_not_exact(score):
    assert se_of(score, 100)[0] > 0.005


@pytest.mark.parametrize(
    ("metric", "kind"),
    [
        ("accuracy (acc; not acc_norm)", "binomial"),
        ("pass@1 (10 samples)", "binomial"),
        ("exact match", "binomial"),
        ("character F1", "binomial (upper bound)"),
        ("ROUGE-2", "binomial (upper bound)"),
        ("BLEU/100", "binomial (upper bound)"),
        (None, "binomial (upper bound)"),
    ],
)
def test_metric_decides_whether_the_binomial_is_a_bound(metric, kind):
    assert se_of(0.3, 400, metric)[1] == kind


def test_declared_rule_goes_before_the_metric():
    assert se_of(0.3, 400, "accuracy", se_rule="unknown")[1] == "unknown"
    with pytest.raises(
        InputError, match="'se_rule' of 'X' is 'guess'; allowed are binomial, upper_bound, unknown"
    ):
        se_of(0.3, 400, se_rule="guess")


def test_percent_scale_gives_the_same_error_in_percent():
    frame = pd.DataFrame({"model": ["a", "b"], "X": [30.0, 50.0]})
    declared = benchmarks(["X"], n_instances=400, metric="accuracy").assign(max=100.0)
    assert table_from_frames(frame, benchmarks=declared).se[0, 0] == pytest.approx(100 * se_of(0.3, 400)[0])


def test_given_errors_go_first_and_zero_is_not_believed():
    frame = long({("a", "X"): 0.3, ("b", "X"): 0.4, ("c", "X"): 0.0}).assign(se=[0.02, np.nan, 0.0])
    declared = benchmarks(["X"], n_instances=100, metric="accuracy")
    table = table_from_frames(frame, benchmarks=declared)
    assert table.se[0, 0] == 0.02
    assert table.data["se_kind"].values[:, 0].tolist() == ["given", "binomial", "binomial"]
    assert "1 given standard errors of 0 were not believed" in notes(table)
    bare = table_from_frames(frame)
    assert np.isnan(bare.se[2, 0])


def test_unknown_errors_are_said_and_can_be_refused():
    table = table_from_frames(wide(X=[0.1, 0.2, 0.3]))
    assert np.isnan(table.se).all()
    assert "3 scores on 1 benchmarks have no standard error: the unique noise takes up" in notes(table)
    with pytest.raises(
        InputError, match="benchmark 'X' has 3 scores without a standard error; give column 'se' or 'n_inst"
    ):
        table_from_frames(wide(X=[0.1, 0.2, 0.3]), require_se=True)


def test_instances_without_a_range_take_fractions_aloud_and_never_percent():
    frame = long({("a", "X"): 0.3, ("b", "X"): 0.4}).assign(n_instances=100)
    assert "take the scores for fractions of 1" in notes(table_from_frames(frame))
    percent = table_from_frames(frame.assign(score=[30.0, 40.0]))
    assert np.isnan(percent.se).all()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("se", -0.1, "se of model 'b' on 'X' is -0.1"),
        ("n_instances", 0, "n_instances of model 'b' on 'X' is 0"),
    ],
)
def test_impossible_errors_and_counts(column, value, message):
    frame = long({("a", "X"): 0.3, ("b", "X"): 0.4}).assign(**{column: [0.1, value]})
    with pytest.raises(InputError, match=message):
        table_from_frames(frame)


# Metadata


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"params_b": [7, 0, 7]}, "models table: 'params_b' of 'b' is 0; it must be above 0"),
        ({"tokens_b_ja": [1, -2, 3]}, "'tokens_b_ja' of 'b' is -2; it must be 0 or more"),
        ({"tokens_b_ja": ["1", "two", "3"]}, "'tokens_b_ja' of 'b' is 'two'; give a number"),
        (
            {"tokens_b_ja_status": ["official", "rumour", None]},
            "'rumour'; allowed are official, derived, guessed",
        ),
        ({"tokens_b_ja": [1, 2, 3], "tokens_b_ja_status": "none"}, "'none' but its count is 1"),
        ({"base_model": [None, "zz", None]}, "base_model 'zz' of 'b' is not a row"),
    ],
)
def test_bad_models_table(columns, message):
    models = pd.DataFrame({"model": ["a", "b", "c"], **columns})
    with pytest.raises(InputError, match=message):
        table_from_frames(wide(X=[0.1, 0.2, 0.3]), models)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"min": 1.0, "max": 1.0}, "'X' has min 1 and max 1; min must be below max"),
        ({"chance": 25}, "'X' has chance 25, outside its range 0 to 1; give chance, min and max in one unit"),
        ({"n_instances": 0}, "'X' has n_instances 0"),
        ({"higher_is_better": "maybe"}, "'higher_is_better' of 'X' is 'maybe'; give True or False"),
    ],
)
def test_bad_benchmarks_table(columns, message):
    with pytest.raises(InputError, match=message):
        table_from_frames(wide(X=[0.1, 0.2, 0.3]), benchmarks=benchmarks(["X"]).assign(**columns))


def test_repeated_and_absent_names_in_metadata():
    with pytest.raises(InputError, match="the models table has 2 rows for 'a'; keep one"):
        table_from_frames(wide(X=[0.1, 0.2, 0.3]), pd.DataFrame({"model": ["a", "a"]}))
    with pytest.raises(InputError, match="the models table has no column 'model'; it has 'name'"):
        table_from_frames(wide(X=[0.1, 0.2, 0.3]), pd.DataFrame({"name": ["a"]}))
    table = table_from_frames(wide(X=[0.1, 0.2, 0.3]), pd.DataFrame({"model": ["a"], "params_b": [7]}))
    assert "2 of 3 models are not in the models table: 'b', 'c'" in notes(table)


def test_status_none_survives_a_csv(tmp_path):
    path = csv(tmp_path, "model,benchmark,score\na,X,0.5\nb,X,0.6\n")
    csv(tmp_path, "model,tokens_b_ja,tokens_b_ja_status\na,0,none\nb,5,official\n", "models.csv")
    assert read_scores(path).models["tokens_b_ja_status"].tolist() == ["none", "official"]


# The table


def test_select_keeps_base_models_as_unscored_rows():
    models = pd.DataFrame(
        {"model": ["a", "b", "c"], "base_model": ["b", "c", None], "construction": ["x", "y", "y"]}
    )
    table = table_from_frames(wide(X=[0.1, 0.2, 0.3], Y=[0.3, 0.2, np.nan]), models)
    cut = table.select(where="construction == 'x'")
    assert cut.model_names == ["a"]
    assert list(cut.models.index) == ["a", "b", "c"]
    only = table.select(models=["c"])
    assert only.benchmark_names == ["X"]
    assert "were left out: 'Y'" in notes(only)
    assert table.select(benchmarks=["Y"]).benchmark_names == ["Y"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"where": "size > 3"}, r"models-where 'size > 3' cannot be evaluated .*; columns are 'base_model'"),
        ({"where": "base_model == 'q'"}, "keeps none of the 3 models"),
        ({"models": ["zz"]}, "'zz' is no model of the table; it has 'a', 'b', 'c'"),
        ({"benchmarks": []}, "no benchmark was selected"),
    ],
)
def test_select_says_what_there_is(arguments, message):
    models = pd.DataFrame({"model": ["a", "b", "c"], "base_model": ["b", "c", None]})
    with pytest.raises(InputError, match=message):
        table_from_frames(wide(X=[0.1, 0.2, 0.3]), models).select(**arguments)


def test_numbers_of_a_csv_are_read_to_the_last_bit(tmp_path):
    values = np.random.default_rng(0).uniform(size=2000)
    table = read_scores(
        csv(tmp_path, "model,X\n" + "".join(f"m{i},{v!r}\n" for i, v in enumerate(values.tolist())))
    )
    np.testing.assert_array_equal(table.scores[:, 0], values)


def test_models_may_be_called_7_or_na(tmp_path):
    table = read_scores(csv(tmp_path, "model,benchmark,score\n7,NA,0.5\n1e5,NA,0.6\nnull,NA,0.7\n"))
    assert table.model_names == ["7", "1e5", "null"]
    assert table.benchmark_names == ["NA"]


def test_digest_changes_with_content_only():
    table = table_from_frames(wide(X=[0.1, 0.2, 0.3]))
    assert table.digest() == table_from_frames(wide(X=[0.1, 0.2, 0.3]), name="other").digest()
    assert table.digest() != table_from_frames(wide(X=[0.1, 0.2, 0.4])).digest()


names = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1, max_size=6
)
names = names.filter(lambda s: any(c.isalpha() for c in s) and s.lower() not in ("na", "nan", "null", "none"))
fractions = st.one_of(st.none(), st.floats(0, 1, allow_subnormal=False))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_write_then_read_gives_the_same_table(tmp_path, data):
    models = data.draw(st.lists(names, min_size=2, max_size=4, unique=True))
    columns = data.draw(st.lists(names, min_size=1, max_size=3, unique=True))
    frame = long({(m, b): data.draw(fractions) for m in models for b in columns})
    frame["score"] = frame["score"].astype(float)
    frame["se"] = [data.draw(st.one_of(st.none(), st.floats(1e-6, 1))) for _ in range(len(frame))]
    if frame["score"].isna().all():
        return
    metadata = pd.DataFrame(
        {
            "model": [*models, "the root"],
            "base_model": ["the root", *[None] * len(models)],
            "params_b": data.draw(
                st.lists(st.floats(0.01, 1e4), min_size=len(models) + 1, max_size=len(models) + 1)
            ),
            "tokens_b_ja": 5.0,
            "tokens_b_ja_status": "guessed",
        }
    ).drop_duplicates("model")
    declared = benchmarks(
        columns, n_instances=data.draw(st.integers(1, 10**6)), metric="accuracy", anchor_factor=2
    )
    table = table_from_frames(frame, metadata, declared)
    again = read_scores(table.write(tmp_path) / "scores.parquet")
    assert again.digest() == table.digest()
    assert again.model_names == table.model_names
    np.testing.assert_array_equal(again.scores, table.scores)
    np.testing.assert_array_equal(again.se, table.se)


# Public tables


def shared(name):
    if not SHARED.is_dir():
        # Third parties' material lies outside the project, whose tests must pass without it.
        pytest.skip(f"public tables are not at {SHARED}")
    return SHARED / name


SIZE = ["Model Size (B)", "Pretraining Data Size (T)", "FLOPs (1E21)"]
BOARD = {"ignore": ["#Params (B)", "Hub ❤️"]}


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "options", "shape", "said"),
    [
        ("obsscaling/base_llm_benchmark_eval.csv", {"ignore": SIZE}, (148, 8), "40 of 1184 cells"),
        ("obsscaling/base_llm_benchmark_eval_sub_10b.csv", {"ignore": SIZE}, (92, 8), "declare no range"),
        ("obsscaling/base_llm_leaderboard_v2_eval.csv", {}, (72, 6), "declare no range"),
        ("obsscaling/base_llm_emergent_capability_eval.csv", {}, (84, 8), "ipa_transliterate_2_bleu"),
        ("obsscaling/base_llm_post_training_eval.csv", {}, (94, 234), "Models without any score"),
        (
            "obsscaling/instruct_llm_agent_eval.csv",
            {},
            (27, 29),
            "'ABench-OA' is an exact linear combination",
        ),
        ("obsscaling/instruct_llm_benchmark_eval.csv", {"ignore": SIZE}, (27, 9), "cells"),
        ("sloth/data_v1.csv", {}, (197, 113), "row numbers was left out"),
        ("sloth/data_v2.csv", {}, (188, 113), "named like something else: '#Params (B)'"),
        (
            "sloth/open-llm-leaderboard_old.csv",
            {"duplicates": "first", **BOARD},
            (6811, 7),
            "'Average ⬆️' is the average",
        ),
        (
            "sloth/open-llm-leaderboard_new.csv",
            {"duplicates": "mean", **BOARD},
            (707, 13),
            "IFEval / IFEval Raw",
        ),
        ("gadre_scaling/derived_wide.csv", {}, (104, 50), "'params', 'params_no_embed', 'tokens'"),
        ("benchpress/scores.csv", {}, (84, 133), "8568 of 11172 cells (77%)"),
        ("eci/scores.csv", {"columns": {"score": "performance"}}, (179, 38), "standardised as they stand"),
    ],
)
def test_public_tables(name, options, shape, said):
    table = read_scores(shared(name), **options)
    assert table.scores.shape == shape
    assert said in notes(table)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sloth/open-llm-leaderboard_old.csv", "358 repeated rows in all"),
        ("sloth/open-llm-leaderboard_new.csv", "22 repeated rows in all"),
        ("sloth/lower_bounds.csv", "no text column"),
        ("sloth/lbv1_test_groups.csv", "no number column"),
        ("eci/scores.csv", "its number columns are 'performance'"),
        ("lm_eval_multilingual_2023/derived_long.csv", "if this is a long table, name its columns"),
    ],
)
def test_public_tables_that_need_a_word_from_the_user(name, message):
    with pytest.raises(InputError, match=message):
        read_scores(shared(name))


@pytest.mark.shared
def test_harness_results_with_standard_errors():
    frame = pd.read_csv(shared("lm_eval_multilingual_2023/derived_long.csv"))
    frame = frame[frame["metric"] == "acc"]
    names = {"benchmark": "task", "score": "value", "se": "stderr"}
    with pytest.raises(InputError, match="2 rows for 'bloom-1b1' on 'gsm8k'"):
        table_from_frames(frame, columns=names)
    table = table_from_frames(frame, columns=names, duplicates="first")
    multilingual = [
        b for b in table.benchmark_names if b.startswith(("xcopa", "xnli", "xstory", "xwinograd", "pawsx"))
    ]
    complete = table.select(benchmarks=multilingual)
    assert len(multilingual) == 50
    assert (np.isfinite(complete.scores).all(axis=1)).sum() == 14
    assert (complete.se[np.isfinite(complete.scores)] > 0).all()


@pytest.mark.shared
def test_declared_items_and_baselines_give_errors_on_a_public_table():
    about = pd.read_csv(shared("gadre_scaling/eval_metadata.csv")).drop_duplicates("Eval Task")
    declared = pd.DataFrame(
        {
            "benchmark": about["Eval Task"],
            "n_instances": about["#datapoints"],
            "chance": about["Random baseline"].fillna(0) / 100,
            **RANGE,
        }
    )
    table = read_scores(shared("gadre_scaling/derived_wide.csv"), benchmarks=declared)
    assert "does not declare were left out" in notes(table)
    assert not {"params", "tokens", "mult"} & set(table.benchmark_names)
    assert (table.se > 0).all()
