#!/usr/bin/env bash
# DuckDB loses the NaN rows of a Parquet file: a filter gives other rows from the file than from a table with the same rows.
#
# Found: of a column with NaN whose row group has statistics, `isnan(x)`, `x = 'NaN'` and `x > 5` (5 being more than the largest number)
#   find nothing in the file, and the NaN row in a table that was filled from it; DuckDB orders NaN above all numbers. Where all numbers
#   are equal, `x <= 1` takes the NaN row for one of them. Without statistics, or with the optimizer disabled, all is as in the table.
# Versions: DuckDB 2.0.1, files written by pyarrow 26.0.1.
# Date: 2026-11-30.
# Guess: a fault of DuckDB. Parquet's smallest and largest values leave NaN out, as its specification demands, and a reader who looks for
#   NaN must not use them. Files that DuckDB writes itself are filtered rightly.
# Seen: while asking what an absent value should be in the Parquet files that this project writes: null, never NaN.
#
# Runs on a file of a few rows that it makes. Prints what each filter finds, and fails if that is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet duckdb==2.0.1 pyarrow==26.0.1
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import duckdb
import pyarrow
import pyarrow.parquet


def rows(source, condition):
    return [row for (row,) in duckdb.sql(f"SELECT i FROM {source} WHERE {condition} ORDER BY i").fetchall()]


def write(name, values, **options):
    table = pyarrow.table({"i": range(len(values)), "x": pyarrow.array(values, pyarrow.float64())})
    pyarrow.parquet.write_table(table, name, **options)
    duckdb.sql(f"CREATE OR REPLACE TABLE in_memory AS SELECT * FROM '{name}'")


def compare(name, conditions):
    found = {}
    for condition in conditions:
        found[condition] = (rows(f"'{name}'", condition), rows("in_memory", condition))
        print(f"{name}: {condition}: rows {found[condition][0]} of the file, {found[condition][1]} of the table")
    return found


nan, null = float("nan"), None
conditions = ["isnan(x)", "x = 'NaN'::DOUBLE", "x > 5", "x > 1", "x IS NULL"]
write("statistics.parquet", [0.5, 1.0, nan, 2.0, null])
with_statistics = compare("statistics.parquet", conditions)
write("none.parquet", [0.5, 1.0, nan, 2.0, null], write_statistics=False)
without = compare("none.parquet", conditions)
write("equal.parquet", [1.0, nan, null])
equal = compare("equal.parquet", ["x <= 1", "x > 1"])
duckdb.sql("COPY in_memory TO 'own.parquet' (FORMAT PARQUET)")
own = compare("own.parquet", ["isnan(x)", "x <= 1", "x > 1"])
duckdb.sql("PRAGMA disable_optimizer")
write("statistics.parquet", [0.5, 1.0, nan, 2.0, null])
unoptimized = compare("statistics.parquet", conditions)

assert all(with_statistics[condition] == ([], [2]) for condition in conditions[:3]), "no longer as it was found"
assert all(found == table for found, table in [*(with_statistics[c] for c in conditions[3:])]), "no longer as it was found"
assert all(found == table for found, table in [*without.values(), *own.values(), *unoptimized.values()])
assert equal == {"x <= 1": ([0, 1], [0]), "x > 1": ([], [1])}, "no longer as it was found"
# With null for what is absent, file and table agree.
duckdb.sql("PRAGMA enable_optimizer")
write("null.parquet", [0.5, 1.0, null, 2.0, null])
assert all(found == table for found, table in compare("null.parquet", conditions).values())
PYTHON
