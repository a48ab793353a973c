"""Factor inference: baselines, the Bayesian model, and what is read off their draws."""
