"""Evaluation of language models: tasks as data, any engine behind one protocol, records as the result."""
