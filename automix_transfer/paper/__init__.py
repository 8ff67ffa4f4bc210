"""The paper's tables: its numbers, plans of runs, and ours beside them."""
