"""From raw files to prepared tables: sources, vocabulary, filters, splits."""
