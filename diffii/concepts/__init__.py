"""Category concepts (Diff-II, section 3.1): learned tokens per class and one low-rank adapter shared by all classes."""
