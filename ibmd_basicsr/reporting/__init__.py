"""What reports are made of: a resumable store of results, tables, picture grids. Knows neither torch nor BasicSR."""
