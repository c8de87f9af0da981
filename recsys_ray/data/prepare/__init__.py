"""Raw input to prepared data: read, check, group by user, filter, split, write."""
