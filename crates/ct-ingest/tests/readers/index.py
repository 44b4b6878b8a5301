"""What DuckDB finds in a Parquet file: one JSON object per column, with the rows of each filter in the file and in a table filled from it."""

import json
import sys

import duckdb

path = sys.argv[1]
duckdb.sql(f"CREATE TABLE in_memory AS SELECT * FROM '{path}'")
for column, kind, *_ in duckdb.sql("DESCRIBE in_memory").fetchall():
    name = f'"{column}"'
    filters = {"null": f"{name} IS NULL", "there": f"{name} IS NOT NULL"}
    if kind in ("FLOAT", "DOUBLE"):
        filters |= {"nan": f"isnan({name})", "beyond": f"{name} > 1e30"}
    rows = {}
    for filter, where in filters.items():
        counts = [duckdb.sql(f"SELECT count(*) FROM {source} WHERE {where}") for source in (f"'{path}'", "in_memory")]
        rows[filter] = [count.fetchall()[0][0] for count in counts]
    print(json.dumps({"column": column, "type": kind, "rows": rows}))
