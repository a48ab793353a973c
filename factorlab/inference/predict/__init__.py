"""Prediction of scores: missing cells, new models, plans."""
