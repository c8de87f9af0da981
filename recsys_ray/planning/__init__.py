"""Before a run: a configuration guessed from files, and a look ahead at what a run needs. Nothing here needs Ray."""
