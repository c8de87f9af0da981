"""Sequence models, SASRec and BERT4Rec: configuration, fit, networks and scorer."""
