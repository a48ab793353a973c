"""A correlation over models split in two: between families, and within them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from factorlab.inference.joint_budgets import correlate


class FamilySplit(NamedTuple):
    """Correlations of ability and log budget.

    Attributes
    ----------
    between : ndarray, (draw, factor)
        Of family means, one point a family.
    within : ndarray, (draw, factor)
        Of deviations from the family's mean, over families of two models or more.
    n_families, n_within, n_groups : int
        Families; models in families of two or more; how many such families.
    """

    between: np.ndarray
    within: np.ndarray
    n_families: int
    n_within: int
    n_groups: int


def split_by_family(ability: np.ndarray, budget: np.ndarray, family: np.ndarray) -> FamilySplit:
    """Correlations between and within families.

    Parameters
    ----------
    ability : ndarray, (draw, model, factor)
    budget : ndarray, (draw, model)
        log10(N D_l), finite.
    family : ndarray of str, (model,)

    Returns
    -------
    FamilySplit
        NaN between fewer than 3 families, and within when fewer than 2 deviations are free or the
        budgets of a family do not differ.
    """
    codes, names = pd.factorize(family)
    member = np.eye(len(names))[codes]  # (model, family)
    size = member.sum(axis=0)
    mean = (member / size).T
    draws, _, factors = ability.shape
    nothing = np.full((draws, factors), np.nan)
    centre, where = np.einsum("fm,dmk->dfk", mean, ability), budget @ mean.T
    between = correlate(centre, where) if len(names) >= 3 else nothing
    several = (size > 1)[codes]
    free = int(several.sum() - (size > 1).sum())
    within = nothing
    if free >= 2:
        apart = ability - np.einsum("mf,dfk->dmk", member, centre)
        x = budget - where @ member.T
        if np.abs(x[:, several]).max() > 1e-9:
            within = correlate(apart[:, several], x[:, several])
    return FamilySplit(between, within, len(names), int(several.sum()), int((size > 1).sum()))
