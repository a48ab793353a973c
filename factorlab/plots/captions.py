"""Captions of the figures: what each shows, and in one sentence how to read it."""

from __future__ import annotations

CAPTIONS: dict[str, tuple[str, str]] = {
    "scores_by_group": (
        "Scores by benchmark and group of models",
        "A bubble is a model, its area the number of parameters; the line through it is one standard error "
        "either way, the tick the median of the group.",
    ),
    "correlations": (
        "Correlations between benchmarks (Pearson)",
        "Dark red: models that do well on one do well on the other; factors are what such blocks "
        "have in common.",
    ),
    "correlations_spearman": (
        "Correlations between benchmarks (Spearman, of ranks)",
        "The same from ranks only, so that no single extreme score can make a correlation.",
    ),
    "scree": (
        "Scree: eigenvalues beside those of noise",
        "A component is worth a look when its eigenvalue (its variance in units of one benchmark) is above "
        "the lines that tables of pure noise give.",
    ),
    "leave_one_out": (
        "PCA loadings with each model left out in turn",
        "A dot is the loading with one model left out; a wide row hangs on few of them, and the one that "
        "moves it most is named.",
    ),
    "leave_one_lineage_out": (
        "PCA loadings with each lineage left out in turn",
        "A dot is the loading without one lineage, a base model and all built on it; a wide row hangs on few "
        "of them, and the one that moves it most is named.",
    ),
    "loadings_heatmap": (
        "Loadings ({called})",
        "A cell is about the correlation of a benchmark with an ability; a dot marks those whose interval "
        "leaves out 0, hatching a factor that the data do not fix.",
    ),
    "loadings_forest": (
        "Loadings of the methods side by side",
        "Each row a benchmark, each bar an interval; where the bars of the methods lie over one another the "
        "loading does not hang on the method.",
    ),
    "abilities": (
        "Ability of each model ({called})",
        "0 is the average of the models at hand, 1 their standard deviation; bars that overlap "
        "much mean that "
        "the order of the two models is open.",
    ),
    "scores": (
        "{factor} against raw scores",
        "What {factor} is made of: the benchmarks that load on it most, in their own units.",
    ),
    "ranks": (
        "Rank of each model on {factor}",
        "The bar holds the ranks that the draws give a model; 1 is the ablest.",
    ),
    "differences": (
        "Which models differ on {factor}",
        "Left the difference to the next model in order, right the probability that the model of the row is "
        "above that of the column.",
    ),
    "axes": (
        "Which axes the data fix",
        "Right: an axis whose draws all lie near 1 points the same way in every draw; one that "
        "spreads towards "
        "0 is not identified, and its loadings mean nothing.",
    ),
    "budget": (
        "{factor} against the training budget: {tokens}",
        "Horizontal: parameters times tokens, so ten times the budget is one step to the right; "
        "bars both ways "
        "are intervals, the band that of the regression line.",
    ),
    "rho_difference": (
        "Does {factor} go more closely with the {second} or the {first} budget?",
        "Right of 0 lies the share of draws in which the first correlation is the higher one.",
    ),
    "lineage_contrasts": (
        "{factor} of continually pre-trained models less that of their base",
        "Within a lineage architecture and first data are shared, so what differs is mostly the continued "
        "training; still no experiment.",
    ),
    "pca_vs_bayes": (
        "Abilities: PCA against Bayes",
        "Points on the diagonal: both methods say the same of a model; those farthest from it are named.",
    ),
    "predictive_correlations": (
        "Posterior predictive check: correlations",
        "A point is a pair of benchmarks; bars that miss the diagonal are correlations the model "
        "cannot make.",
    ),
    "predictive_floor": (
        "Posterior predictive check: scores at the floor",
        "How many models score at the floor or at chance, beside how many the model would have there.",
    ),
    "predictive_outliers": (
        "Posterior predictive check: models and cells that do not fit",
        "Left models, right single scores, in standard deviations of what the model would predict; a ring "
        "marks a score of exactly 0.",
    ),
    "outliers": (
        "Scores against what everything else says of them",
        "Each score beside its prediction from the model's other scores, budgets and family, with the draws corrected "
        "for having seen it; flagged scores are named.",
    ),
    "prior_sensitivity": (
        "Prior sensitivity",
        "A row is the result under another prior, the shaded band as fitted; rows inside the band "
        "say that the "
        "data, not the prior, decide.",
    ),
    "convergence": (
        "Convergence",
        "Every quantity should lie left of the R-hat line (chains agree) and right of the effective sample "
        "size line (enough draws).",
    ),
    "chain_modes": (
        "Chains that found different solutions",
        "A colour is a group of chains; where its bars lie apart from another's, an average over all chains "
        "describes neither.",
    ),
    "chain_ranks": (
        "Chains of the least mixed quantities",
        "Chains that agree cover the same ground (left) and give bars of equal height (right).",
    ),
}
"""Kind of figure to its title and caption; names in braces are filled in."""
