"""The operator's command line, as a person or a script meets it."""
