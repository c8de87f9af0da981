"""Posters of a catalogue: found in files and archives or fetched from the network, safely."""
