import numpy as np
import pandas as pd
import pytest

from factorlab.errors import InputError
from factorlab.lineage import build_lineage, published_log10_budget, token_sources


def models(**columns):
    return pd.DataFrame(columns, index=pd.Index(["root", "child", "grandchild", "other"], name="model"))


BASES = [None, "root", "child", None]


def test_tree_and_families():
    lineage = build_lineage(models(base_model=BASES, family=["A", "not used", None, None]))
    assert lineage.parent.tolist() == [-1, 0, 1, -1]
    assert lineage.ancestors(2) == [1, 0]
    assert lineage.root(2) == 0
    assert lineage.root(3) == 3
    assert lineage.children(0) == [1]
    assert lineage.family == ("A", "A", "A", "other")  # a root without a family stands for itself
    assert lineage.families == ("A", "other")
    assert lineage.family_of(["grandchild", "other"]).tolist() == ["A", "other"]


def test_a_table_without_lineage_is_all_roots():
    lineage = build_lineage(models())
    assert (lineage.parent == -1).all()
    assert lineage.families == ("root", "child", "grandchild", "other")


@pytest.mark.parametrize(
    ("bases", "message"),
    [
        (
            ["missing", None, None, None],
            r"base_model 'missing' of 'root' is not a row of the models table; add a row",
        ),
        (["root", None, None, None], "model 'root' names itself as its base_model"),
        (["child", "grandchild", "root", None], "circle: root -> child -> grandchild -> root"),
        (["child", "grandchild", "child", None], "circle: child -> grandchild -> child"),
    ],
)
def test_a_broken_tree_is_named(bases, message):
    with pytest.raises(InputError, match=message):
        build_lineage(models(base_model=bases))


def test_unknown_model_has_no_family():
    with pytest.raises(InputError, match="model 'x' is not in the models table"):
        build_lineage(models()).family_of(["x"])


def test_published_budget_is_log10_of_size_times_tokens():
    table = models(params_b=[7, 7, np.nan, 7], tokens_b_ja=[2, 102, 5, 0])
    budget = published_log10_budget(table, "ja")
    assert budget["child"] == pytest.approx(np.log10(7e9 * 102e9))
    assert budget.isna().tolist() == [False, False, True, True]  # no size; no tokens


def test_published_budget_names_the_columns_there_are():
    with pytest.raises(InputError, match="no column 'tokens_b_de'; it has params_b, tokens_b_ja"):
        published_log10_budget(models(params_b=1.0, tokens_b_ja=1.0), "de")


def sources(**columns):
    table = models(base_model=BASES, **columns)
    return token_sources(table, build_lineage(table), "ja")


def test_budgets_add_along_the_tree():
    result = sources(
        tokens_b_ja=[2.0, 102, 132, 0],
        tokens_b_ja_status=["derived", "official", "guessed", None],
    )
    assert result.own_tokens_b.tolist() == [2, 100, 30, 0]
    assert result.status.tolist() == ["derived", "official", "guessed", "none"]
    assert result.is_root.tolist() == [True, False, False, True]
    assert result.total_published_b.tolist() == [2, 102, 132, 0]


def test_a_given_stage_goes_before_the_difference_of_totals():
    result = sources(tokens_b_ja=[np.nan, 100, 100, np.nan], cpt_tokens_b_ja=[np.nan, 100, np.nan, np.nan])
    assert result.own_tokens_b[:3].tolist() == pytest.approx([np.nan, 100, 0], nan_ok=True)
    assert result.status.tolist() == ["unknown", "official", "none", "unknown"]


def test_a_child_of_which_nothing_is_said_adds_nothing():
    result = sources(
        tokens_b_ja=[5.0, np.nan, np.nan, 1.0], tokens_b_ja_status=[None, None, "unknown", "unknown"]
    )
    assert result.own_tokens_b[1] == 0
    assert result.status[1] == "none"
    assert np.isnan(result.own_tokens_b[2])
    assert result.status[2] == "unknown"
    assert result.status[3] == "guessed"  # a count whose status is unknown is a guess


def test_total_of_a_child_with_an_unknown_parent_leaves_its_stage_unknown():
    result = sources(tokens_b_ja=[np.nan, 100, 100, 3])
    assert np.isnan(result.own_tokens_b[1])
    assert result.total_published_b[1] == 100


def test_a_child_with_fewer_tokens_than_its_base_is_refused():
    with pytest.raises(
        InputError, match=r"'child' has tokens_b_ja 1, less than the 2 of its base model 'root'"
    ):
        sources(tokens_b_ja=[2.0, 1, 3, 0])
