"""The finished models: a few general ways to score, whatever algorithm they were fitted by."""
