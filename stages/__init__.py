"""The command line: each stage reads, calls one function of `pipeline`, and writes."""
