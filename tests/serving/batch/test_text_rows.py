"""A row of CSV or JSON lines is read the same whatever stands beside it."""

from __future__ import annotations

import gzip
import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.errors import InvalidData
from noria.serving.batch import PartsFailed
from noria.serving.batch.csv_rows import CsvRows, _csv_batch
from noria.serving.batch.csv_signs import Signs
from noria.serving.batch.files import find_files
from noria.serving.batch.json_rows import _Lines

HEADER = ["id", "note", "ok", "hour"]
TYPES = {"id": pl.Int64(), "note": pl.String(), "ok": pl.Boolean(), "hour": pl.Float64()}
CSV_LINES = [
    '1,"",true,9', "2,,,", '3,"a, ""b""\nc",false,"1.5"', '4,it"s,True,1e400', "5, x ,TRUE, 7 ", '6,"a"b,true,1',
    "7,short", "8,a,true,2,long", "9.5,a,true,2", "10,a,maybe,2", "11,a,true,nine", '"",a,"",""',
    "12345678901234567890,a,,",
]  # fmt: skip
GERMAN = Signs(";", decimal_commas=True)
GERMAN_LINES = [
    '1;"";true;9,5', "2;;;", '3;"a; ""b""\nc";false;"1,5"', '4;it"s;True;1.234',
    "5; x, y ;TRUE; -7,25 ", '6;"a"b;true;1e3',
    "7;short", "8;a;true;2;long", "9,5;a;true;2", "10;a;true;1.234,5", "11;a;true;1,234,5",
]  # fmt: skip
JSON_LINES = [
    '{"id":1,"note":"","ok":true,"hour":9}', "{}", '{"note":5}', '{"hour":true}', '{"id":2.5}', '{"id":2.0}',
    '{"id":123456789012345678901}', '{"hour":123456789012345678901}', '{"hour":1e400}', '{"ok":1}', '{"id":"1"}', "[1]",
    '{"note":null,"more":[1]}', '{"id":3', '{"hour":"nine","id":4}',
]  # fmt: skip


def read(lines: list[str], kind: str) -> list[tuple[tuple[object, ...], str]]:
    """Each row's values, and why it is refused."""
    block = "".join(f"{line}\n" for line in lines).encode()
    signs = {"csv": Signs(), "german": GERMAN}.get(kind)
    batch = _csv_batch(block, HEADER, TYPES, signs) if signs else _Lines(TYPES).batch(block)
    reasons = {one.place: one.reason for one in batch.refused}
    return [(row, reasons.get(place, "")) for place, row in enumerate(batch.frame.rows())]


@pytest.mark.parametrize(("kind", "known"), [("csv", CSV_LINES), ("german", GERMAN_LINES), ("jsonl", JSON_LINES)])
@given(data=st.data())
def test_neighbours_do_not_change_a_row(kind, known, data):
    lines = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=6))
    assert read(lines, kind) == [read([line], kind)[0] for line in lines]


def test_what_is_no_row_of_csv_is_refused_and_the_rest_is_read():
    found = read(CSV_LINES, "csv")
    assert [row for row, reason in found if not reason] == [
        (1, "", True, 9.0),
        (2, None, None, None),
        (3, 'a, "b"\nc', False, 1.5),
        (4, 'it"s', True, float("inf")),
        (5, " x ", True, 7.0),
        (6, "ab", True, 1.0),
        (None, "a", None, None),
    ]
    assert [reason for _, reason in found if reason] == [
        "the row has 2 values, and the header 4",
        "the row has 5 values, and the header 4",
        "column 'id' is \"9.5\", not a whole number",
        "column 'ok' is \"maybe\", not a boolean",
        "column 'hour' is \"nine\", not a number",
        "column 'id' is \"12345678901234567890\", not a whole number",
    ]


def test_between_semicolons_a_comma_is_before_decimals_and_a_point_is_refused():
    found = read(GERMAN_LINES, "german")
    assert [(row[1], row[3]) for row, reason in found if not reason] == [
        ("", 9.5), (None, None), ('a; "b"\nc', 1.5), (" x, y ", -7.25), ("ab", 1000.0)
    ]  # fmt: skip
    wanted = "not a number with a decimal comma, as the file has others"
    assert [reason for _, reason in found if reason] == [
        f"column 'hour' is \"1.234\", {wanted}",
        "the row has 2 values, and the header 4",
        "the row has 5 values, and the header 4",
        "column 'id' is \"9,5\", not a whole number",
        f"column 'hour' is \"1.234,5\", {wanted}",
        f"column 'hour' is \"1,234,5\", {wanted}",
    ]


def test_what_is_no_row_of_json_lines_is_refused_with_the_values_that_fit():
    found = dict(zip(JSON_LINES, read(JSON_LINES, "jsonl"), strict=True))
    assert found['{"note":5}'][1] == "column 'note' is 5, not a text"
    assert found['{"hour":true}'] == ((None, None, None, 1.0), "")
    assert found['{"hour":123456789012345678901}'] == ((None, None, None, 123456789012345678901.0), "")
    assert found['{"id":123456789012345678901}'][1].endswith("not a whole number of 64 bits")
    assert found['{"hour":"nine","id":4}'] == ((4, None, None, None), "column 'hour' is \"nine\", not a number")
    assert found["[1]"][1] == "the line is no JSON object"


def test_short_rows_at_a_block_s_end_are_refused_in_a_whole_file(batch):
    (batch.folder / "t.csv").write_text('distance,hour,name,id\n1,2,"a, b",\n3,4,c\n')
    done = batch.run(batch.folder / "t.csv", batch.folder / "out", skip=True)
    assert (done.rows, done.skipped) == (1, 1)
    refused = json.loads((batch.folder / "out.noria/refused/part-00000.jsonl").read_text())
    assert (refused["row"], refused["reason"]) == (1, "the row has 3 values, and the header 4")


def test_a_stray_quote_is_a_character_like_others(batch):
    lines = [f'{n},{n}.5,12,{n}" of "rain' if n % 3 else f'{n},{n}.5,12,"it, ""s"""' for n in range(50)]
    lines[7] = '7,7.5,12,it"s'
    (batch.folder / "t.csv").write_text("\n".join(["id,distance,hour,name", *lines]))
    done = batch.run(batch.folder / "t.csv", batch.folder / "out", part_rows=20, batch_rows=6)
    found = pl.read_parquet(batch.folder / "out").sort("id")
    assert (done.rows, done.parts) == (50, 3)
    assert found["name"].to_list()[6:8] == ['it, "s"', 'it"s'] and found["name"][8] == '8" of "rain'


def test_ids_wider_than_64_bits_are_texts_in_csv_and_refused_in_json(batch):
    wide = "123456789012345678901"
    (batch.folder / "t.csv").write_text(f"id,distance,hour\n{wide},1,2\n")
    batch.run(batch.folder / "t.csv", batch.folder / "csv")
    assert pl.read_parquet(batch.folder / "csv")["id"].to_list() == [wide]
    rows = [f'{{"id": {one}, "distance": {one}, "hour": 1}}\n' for one in (wide, 5)]
    (batch.folder / "t.jsonl").write_text("".join(rows))
    done = batch.run(batch.folder / "t.jsonl", batch.folder / "json", skip=True)
    assert (done.rows, done.skipped) == (1, 1)
    assert pl.read_parquet(batch.folder / "json")["id"].to_list() == [5]


def test_numbers_are_texts_in_json_lines_where_the_user_says_so(batch):
    lines = ['{"distance": 1, "hour": 2, "zip": "a"}', '{"distance": 1, "hour": 2, "zip": 5}']
    (batch.folder / "t.jsonl").write_text("\n".join(lines))
    with pytest.raises(PartsFailed, match=r"row 1 of .* column 'zip' is 5, not a text"):
        batch.run(batch.folder / "t.jsonl", batch.folder / "failed")
    batch.run(batch.folder / "t.jsonl", batch.folder / "out", texts=("zip",))
    assert pl.read_parquet(batch.folder / "out")["zip"].to_list() == ["a", "5"]


def test_empty_lines_are_no_rows(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n\n3,\n\n")
    source = CsvRows(find_files(str(tmp_path / "t.csv"))[0])
    (batch,) = source.batches(source.parts(10)[0], ["a", "b"], [], 10)
    assert batch.frame.rows() == [(1, 2), (3, None)] and not batch.refused


def test_rows_that_are_not_utf_8_are_refused_and_never_mended(batch):
    (batch.folder / "t.csv").write_bytes("id,distance,hour\nh\xe9,1,2\nh\xe8,1,2\nok,1,2\n".encode("latin-1"))
    (batch.folder / "t.jsonl").write_bytes(
        '{"id":"h\xe9","distance":1,"hour":2}\n{"id":"ok","distance":1,"hour":2}\n'.encode("latin-1")
    )
    for kind, skipped in (("csv", 2), ("jsonl", 1)):
        done = batch.run(batch.folder / f"t.{kind}", batch.folder / kind, skip=True)
        assert (done.rows, done.skipped) == (1, skipped)
        assert pl.read_parquet(batch.folder / kind)["id"].to_list() == ["ok"]
    refused = json.loads((batch.folder / "csv.noria/refused/part-00000.jsonl").read_text().splitlines()[0])
    assert refused["source"] == str(batch.folder / "t.csv") and "the row is not UTF-8" in refused["reason"]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("damage", ["cut", "changed", "none"])
def test_damaged_gzip_is_named(batch, kind, damage):
    table, text = batch.table(5000), batch.folder / f"t.{kind}"
    table.write_csv(text) if kind == "csv" else table.write_ndjson(text)
    whole = gzip.compress(text.read_bytes())
    half = len(whole) // 2
    made = {"cut": whole[:-20], "changed": whole[:half] + b"x" * 99 + whole[half:], "none": text.read_bytes()}[damage]
    (batch.folder / f"t.{kind}.gz").write_bytes(made)
    with pytest.raises((InvalidData, PartsFailed), match=r"t\.\w+\.gz is damaged gzip"):
        batch.run(batch.folder / f"t.{kind}.gz", batch.folder / "out")


@pytest.mark.parametrize(
    ("inner", "is_taken"),
    [
        ('{"a":1,"b":[1.5]}', True), ('{"a":null}', True), ("{}", True), ("null", True), ('{"b":[1,null]}', True),
        ('{"a":"x"}', False), ('{"a":1.5}', False), ('{"b":["x"]}', False), ('{"b":2}', False), ('{"more":1}', False),
        ('{"none":1}', False), ("[]", False), ('{"empty":[]}', True), ('{"empty":[1]}', False),
        (f'{{"b":[{10**400}]}}', False), ('{"a":9223372036854775808}', False),
    ],
)  # fmt: skip
def test_nested_values_are_kept_whole_or_their_row_is_refused(inner, is_taken):
    kind = pl.Struct({"a": pl.Int64, "b": pl.List(pl.Float64), "none": pl.Null, "empty": pl.List(pl.Null)})
    lines = [f'{{"id":1,"deep":{inner}}}', '{"id":2,"deep":{"a":7}}']
    batch = _Lines({"id": pl.Int64(), "deep": kind}).batch("\n".join(lines).encode())
    assert batch.frame["id"].to_list() == [1, 2]
    assert batch.frame["deep"][1]["a"] == 7
    assert [one.place for one in batch.refused] == ([] if is_taken else [0])
    if not is_taken:
        assert batch.refused[0].given == {"deep": json.loads(inner)}
        assert "column 'deep' is" in batch.refused[0].reason
    elif inner != "null":
        found = {name: value for name, value in batch.frame["deep"][0].items() if value is not None}
        assert found == {name: value for name, value in json.loads(inner).items() if value is not None}


@pytest.mark.parametrize("ending", ["csv", "jsonl", "csv.gz", "jsonl.gz"])
def test_an_empty_first_file_says_nothing_of_the_others(batch, ending):
    (batch.folder / "in").mkdir()
    packed = gzip.compress if ending.endswith(".gz") else bytes
    table, text = batch.table(3), batch.folder / "t"
    table.write_csv(text) if ending.startswith("csv") else table.write_ndjson(text)
    for name, content in (("a", b""), ("b", text.read_bytes()), ("c", b"")):
        (batch.folder / f"in/{name}.{ending}").write_bytes(packed(content))
    (batch.folder / f"in/0.{ending}").touch()
    assert batch.run(batch.folder / "in", batch.folder / "out").rows == 3
    assert pl.read_parquet(batch.folder / "out")["id"].to_list() == [0, 1, 2]


def test_a_refused_value_is_written_down_as_it_was_given(batch):
    (batch.folder / "t.csv").write_text("id,distance,hour\n1,2,nine\n")
    (batch.folder / "t.jsonl").write_text('{"id":1,"distance":2,"hour":"nine"}\n')
    for kind in ("csv", "jsonl"):
        batch.run(batch.folder / f"t.{kind}", batch.folder / kind, skip=True)
        refused = json.loads((batch.folder / f"{kind}.noria/refused/part-00000.jsonl").read_text())
        assert refused["source"] == str(batch.folder / f"t.{kind}")
        assert refused["values"]["hour"] == "nine"


def test_names_end_in_letters_of_any_case(batch):
    batch.table(6).write_csv(batch.folder / "T.CSV")
    (batch.folder / "U.Csv.GZ").write_bytes(gzip.compress((batch.folder / "T.CSV").read_bytes()))
    for name in ("T.CSV", "U.Csv.GZ"):
        assert batch.run(batch.folder / name, batch.folder / f"of-{name}.d").rows == 6


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_quote_that_swallows_the_rows_behind_it_is_told(batch, ending):
    rows = [f"{n},1.0,2.0,{chr(34) * (n == 40)}note\n" for n in range(100)]
    content = ("id,distance,hour,note\n" + "".join(rows)).encode()
    batch.folder.joinpath(f"t.csv{ending}").write_bytes(gzip.compress(content) if ending else content)
    with pytest.raises(InvalidData, match=r"row 40 opens a quote that is never closed"):
        batch.run(batch.folder / f"t.csv{ending}", batch.folder / "out", skip=True, part_rows=10)


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_signs_between_values_are_told_by_the_header(batch, separator):
    table = batch.table(60).with_columns(pl.col("name") + separator, at=pl.lit("1.234"), note=pl.lit("a,b"))
    for file, decimal_comma in (("point", False), ("comma", True)):
        batch.folder.joinpath(f"{file}.csv").write_bytes(
            table.write_csv(separator=separator, line_terminator="\r\n", include_bom=True, decimal_comma=decimal_comma)
            .encode()
        )  # fmt: skip
        batch.run(batch.folder / f"{file}.csv", batch.folder / file, keep="all", part_rows=20)
    point, comma = (pl.read_parquet(batch.folder / one).sort("id") for one in ("point", "comma"))
    assert point["name"].to_list() == table["name"].to_list() and point["note"].to_list() == ["a,b"] * 60
    assert (point["at"].dtype, comma["at"].dtype) == (pl.Float64, pl.String)  # a point among commas is no decimal's
    assert point.drop("at").equals(comma.drop("at"))
    assert comma["distance"].to_list() == table["distance"].to_list()


@pytest.mark.parametrize(
    ("name", "before", "separator", "first"),
    [
        ("t.tsv", "", "\t", "id, of them"),
        ("t.csv", '\ufeff"sep=;"\r\n', ";", "id, of them"),
        ("t.csv", "sep=,\n", ",", "id; of them"),
        ("t.csv", "", ";", "id\nof; them"),
    ],
)
def test_signs_that_the_file_tells_and_lines_within_its_header(batch, name, before, separator, first):
    table = batch.table(60).rename({"id": first})
    text = before + table.write_csv(separator=separator, line_terminator="\r\n", quote_style="non_numeric")
    (batch.folder / name).write_bytes(text.encode())
    done = batch.run(batch.folder / name, batch.folder / "out", part_rows=20)
    found = pl.read_parquet(batch.folder / "out").sort(first)
    assert done.parts == 3 and found.select(first, "name").equals(table.select(first, "name"))
    np.testing.assert_allclose(found["score"].to_numpy(), batch.expected(table))


def test_a_column_that_is_a_text_says_nothing_of_decimals(batch):
    (batch.folder / "t.csv").write_text("tags;distance;hour\n1,2;1.5;2\n")
    with pytest.raises(PartsFailed):
        batch.run(batch.folder / "t.csv", batch.folder / "out", max_retries=0)
    assert batch.run(batch.folder / "t.csv", batch.folder / "texts", texts=("tags",)).rows == 1


@pytest.mark.parametrize("is_array", [False, True])
def test_a_byte_order_mark_is_no_part_of_json(batch, is_array):
    rows = batch.table(6).to_dicts()
    text = json.dumps(rows) if is_array else "".join(json.dumps(row) + "\n" for row in rows)
    (batch.folder / "t.json").write_text(text, encoding="utf-8-sig")
    assert batch.run(batch.folder / "t.json", batch.folder / "out", part_rows=2).rows == 6


def test_a_column_of_several_kinds_keeps_each_value_as_json(batch):
    kinds = [[1], {"a": 1}, "x", 5, None, 1.5, [[]], {"b": [2]}]
    rows = [{"distance": 1.0, "hour": 2.0, "d": one} for one in kinds]
    (batch.folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    batch.run(batch.folder / "t.jsonl", batch.folder / "out")
    kept = pl.read_parquet(batch.folder / "out")["d"].to_list()
    assert kept == ["[1]", '{"a":1}', "x", "5", None, "1.5", "[[]]", '{"b":[2]}']


@pytest.mark.parametrize("depth", [60, 5_000, 100_000])
def test_what_is_nested_too_deep_refuses_its_row_alone(batch, depth):
    row = '{"id": 1, "distance": 1.0, "hour": 2.0'
    deep = f'{row}, "d": {"[" * depth}{"]" * depth}}}\n'
    (batch.folder / "t.jsonl").write_text(f'{row}, "d": {{"a": 1}}}}\n{deep}{row}}}\n')
    done = batch.run(batch.folder / "t.jsonl", batch.folder / "out", skip=True, max_retries=0)
    assert (done.rows, done.skipped) == ((3, 0) if depth == 60 else (2, 1))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id;distance|hour\n1;2;3\n", "between ';' or '|'"),
        ("\nid,distance,hour\n1,2,3\n", "first line is empty"),
        ('id,distance,hour,"a""\n1,2,3,4\n', "its first line opens a quote that is never closed"),
    ],
)
def test_what_is_no_csv_is_told_by_its_first_line(batch, text, says):
    (batch.folder / "t.csv").write_text(text)
    with pytest.raises(InvalidData) as found:
        batch.run(batch.folder / "t.csv", batch.folder / "out")
    assert says in found.value.message
