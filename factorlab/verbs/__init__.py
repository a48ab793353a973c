"""The verbs of the command line, a module a subject; `factorlab.cli` puts them together."""
