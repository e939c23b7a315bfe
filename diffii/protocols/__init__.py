"""Tasks on which expansion is measured: the paper's by name, and the embedded data set's own."""
