"""Native layouts of data sets, one a file."""
