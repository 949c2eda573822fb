"""The library: pure functions on arrays and tables. It knows no click, no DVC and no YAML."""
