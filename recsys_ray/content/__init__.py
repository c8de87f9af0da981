"""What the items' texts and posters say, as vectors: encoded once, kept in a table, looked at in a report."""
