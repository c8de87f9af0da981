"""The ground that every room stands on: errors, tables, files, the types that rooms hand each other."""
