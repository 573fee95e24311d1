"""Sets of labelled people: readers, splits, examples."""
