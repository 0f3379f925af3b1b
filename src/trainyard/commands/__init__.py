"""One file per verb: register() adds its words to the parser, run() does it."""
