"""Files as shops have them: encodings, delimiters, stray quotes, containers."""

import gzip
import io
import json
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newshelf.catalog.catalog import read_catalog
from newshelf.catalog.read import read_table
from newshelf.catalog.schema import find_table
from newshelf.errors import CatalogError

PLAIN = "id,title,price\n0012,Oak stool,20.5\n0013,Rope lamp,99\n"
ROWS = [("0012", "Oak stool", "20.5"), ("0013", "Rope lamp", "99")]


def read(folder, name, data):
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_table(path, "items")


def rows(table):
    return list(table.frame.itertuples(index=False, name=None))


def feed(items, root="rss", item="item", space="http://base.google.com/ns/1.0"):
    inner = "".join(
        f"<{item}>{''.join(f'<{k}>{v}</{k}>' for k, v in fields)}</{item}>" for fields in items
    )
    return f'<?xml version="1.0"?>\n<{root} xmlns:g="{space}">{inner}</{root}>'


MERCHANT = feed(
    [
        [("title", "Oak stool"), ("g:id", "0012"), ("g:price", "20.5")],
        [("g:price", "99"), ("g:title", "Rope lamp"), ("title", "x"), ("g:id", "0013")],
    ]
)
OBJECTS = [dict(zip(("id", "title", "price"), row, strict=True)) for row in ROWS]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("items.csv", PLAIN.replace(",", ";")),
        ("items.csv", PLAIN.replace(",", "\t")),
        ("items.txt", PLAIN.replace(",", "|")),
        ("items.csv", "sep=;\r\n" + PLAIN.replace(",", ";")),
        ("items.csv", "\ufeff\ufeff" + PLAIN),
        ("items.csv", ("\ufeff" + PLAIN).encode("utf-16-le")),
        ("items.csv", ("\ufeff" + PLAIN).encode("utf-16-be")),
        ("items.csv", PLAIN.encode("utf-16-le")),
        ("items.csv", gzip.compress(PLAIN.encode())),
        ("ITEMS.CSV.GZ", gzip.compress(PLAIN.encode())),
        ("items.csv", PLAIN.replace("\n", ",,\n").replace("\n", "\n", 1)),
        ("items.csv", " ID ,G:Title,Price \n" + PLAIN.partition("\n")[2]),
        ("items.csv", "\n\n" + PLAIN),
        ("items.jsonl", "\n".join(map(json.dumps, OBJECTS))),
        ("items.json", json.dumps(OBJECTS, indent=1)),
        ("items.xml", MERCHANT),
        ("items.xml", MERCHANT.replace("item>", "entry>").replace("rss", "feed")),
    ],
)
def test_one_table_in_many_containers(tmp_path, name, data):
    table = read(tmp_path, name, data)
    assert find_table(tmp_path, "items") == tmp_path / name
    assert rows(table) == ROWS or sorted(table.frame.columns) == ["id", "price", "title"]
    assert table.frame[["id", "title", "price"]].astype(object).values.tolist() == [
        *map(list, ROWS)
    ]
    assert table.problems == ()


@pytest.mark.parametrize(
    ("line", "title"),
    [
        ('2\t"Moon" lamp\t5', '"Moon" lamp'),
        ('2\t"Moon lamp\t5', '"Moon lamp'),
        ('2\t"Moon" and "Sun"\t5', '"Moon" and "Sun"'),
        ('2\t"Moon, 12"" wide"\t5', 'Moon, 12" wide'),
        ('2\tFrame 24"x36"\t5', 'Frame 24"x36"'),
        ('2\t"\t5', '"'),
    ],
)
def test_a_quote_in_a_tsv_is_text_unless_it_closes_its_field(tmp_path, line, title):
    text = f'id\ttitle\tprice\n1\tStool\t3\n{line}\n3\tClock 10"\t7\n4\tVase\t8\n'
    table = read(tmp_path, "items.tsv", text)
    assert rows(table) == [
        ("1", "Stool", "3"), ("2", title, "5"), ("3", 'Clock 10"', "7"), ("4", "Vase", "8"),
    ]  # fmt: skip
    assert table.rows.tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("line", ['2,"Moon "lamp", long",5', '2,"Moon', '"2,Moon,5', "2,Moon"])
@pytest.mark.parametrize("extension", ["csv", "tsv"])
def test_a_broken_row_costs_no_other(tmp_path, line, extension):
    text = f'id,title,price\n1,"Two\nlines",3\n{line}\n3,Clock,7\n4,"A ""B""",8\n'
    if extension == "tsv":
        text = text.replace(",", "\t")
    table = read(tmp_path, f"items.{extension}", text)
    good = [("1", "Two\nlines", "3"), ("3", "Clock", "7"), ("4", 'A "B"', "8")]
    assert [row for row in rows(table) if row[0] in "134"] == good
    assert len(table.frame) + len(table.problems) == table.rows_read == 4
    assert table.rows[table.frame["id"] == "4"].tolist() == [6]


def test_a_cell_may_be_longer_than_the_csv_module_expects(tmp_path):
    table = read(tmp_path, "items.csv", f'id,title\n1,"{"x" * 300_000}"\n2,b\n')
    assert table.frame["title"].str.len().tolist() == [300_000, 1]


def test_a_damaged_byte_in_utf8_costs_its_cell(tmp_path):
    text = "id,title\n" + "".join(f"{n},Gläser für Öl\n" for n in range(9))
    data = text.encode() + b"9,Gl\xe4ser\n10,Vase\n"
    table = read(tmp_path, "items.csv", data)
    assert table.frame["title"].tolist()[-2:] == ["", "Vase"]
    (problem,) = table.problems
    assert (problem.row, problem.field) == (11, "title")


@pytest.mark.parametrize(
    ("encoding", "titles"),
    [
        ("windows-1252", ["Théière émaillée", "Lampe à poser", "Chaîne dorée"]),
        ("windows-1251", ["Кольцо золотое", "Платье льняное", "Ваза мраморная"]),
        ("gb18030", ["黄金戒指", "亚麻长裙", "橡木床和床垫"]),
        ("cp932", ["指輪ゴールド", "リネンのワンピース", "花瓶"]),
    ],
)
def test_an_encoding_that_can_be_told_is_read_and_named(tmp_path, encoding, titles):
    text = "id,title\n" + "".join(f"{n},{title}\n" for n, title in enumerate(titles))
    table = read(tmp_path, "items.csv", text.encode(encoding))
    assert table.frame["title"].tolist() == titles
    assert encoding in table.notes[0].lower()


def test_an_encoding_that_cannot_be_told_is_refused_with_the_candidates(tmp_path):
    with pytest.raises(CatalogError, match=r"line 3.*not UTF-8.*Windows-1252"):
        read(tmp_path, "items.csv", "id,title\n1,Mug\n2,Prsten žlutý\n".encode("cp1250"))


def packed(name):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "<x/>")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (packed("xl/workbook.xml"), "an Excel workbook"),
        (packed("content.xml"), "OpenDocument"),
        (packed("shop/items.csv"), "zip archive"),
        (packed("a")[:40], "broken"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook"),
        (b"<!DOCTYPE html><p>Log in", "an HTML page"),
        (b"%PDF-1.7", "a PDF"),
        (gzip.compress(PLAIN.encode())[:-9], "cut short"),
        (gzip.compress(gzip.compress(b"id")), "compressed twice"),
        (gzip.compress(bytes(2**29)), "unpacks to more than"),
        (b"<rss><channel/></rss>", "XML without <item>"),
        (b"<rss><item></rss>", "XML that is broken"),
        (b'{"id": 1\n}', "write one object a line"),
        (b"[" * 100_000, "write one object a line"),
        (b"ab\0,c\n1,2\n", "no text"),
        (b"id,Title,TITLE\n1,a,b\n", "'Title' and 'TITLE'"),
    ],
)
def test_what_cannot_be_read_is_named_for_what_it_is(tmp_path, data, says):
    with pytest.raises(CatalogError, match=says):
        read(tmp_path, "items.csv", data)


@pytest.mark.parametrize("comment", ["", "<!-- <rss> -->\n"])
def test_entities_are_never_expanded(tmp_path, comment):
    bomb = '<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b SYSTEM "file:///etc/hostname">]>'
    item = "<item><id>1</id><title>&b;&a;</title></item>"
    text = f'<?xml version="1.0"?>{comment}{bomb}<rss>{item}</rss>'
    with pytest.raises(CatalogError, match="document type"):
        read(tmp_path, "items.xml", text)


def test_a_folder_of_parts_and_a_spreadsheet_are_named(tmp_path):
    (tmp_path / "items").mkdir()
    (tmp_path / "items" / "part-0.parquet").touch()
    with pytest.raises(CatalogError, match="folder of parts"):
        find_table(tmp_path, "items")
    (tmp_path / "Events.xlsx").write_bytes(packed("xl/workbook.xml"))
    with pytest.raises(CatalogError, match="an Excel workbook"):
        read_table(find_table(tmp_path, "events"), "events")


def test_json_keeps_numbers_as_they_are_written(tmp_path):
    lines = [
        '{"id": 1745998123456789013, "title": ["Oak", "stool"], "color": ["oak", "black"]}',
        '{"id": 007}',
        '{"id": 2, "product_type": ["Home", "Beds"], "price": 1.10, "image": {"path": "a.jpg"}}',
        '{"id": 3, "on_sale": true, "stock": {"a": 1}, "title": null}',
    ]
    table = read(tmp_path, "items.jsonl", "\n".join(lines))
    assert table.rows.tolist() == [1, 3, 4]
    cells = table.frame.fillna("").to_dict("list")
    assert cells["id"] == ["1745998123456789013", "2", "3"]
    assert cells["title"] == ["Oak stool", "", ""]
    assert cells["color"] == ["oak,black", "", ""]
    assert cells["product_type"] == ["", "Home > Beds", ""]
    assert cells["price"] == ["", "1.10", ""]
    assert cells["image_link"] == ["", "a.jpg", ""]
    assert cells["on_sale"] == ["", "", "true"]
    assert [(problem.row, problem.field) for problem in table.problems] == [
        (2, None),
        (None, "stock"),
    ]


@settings(max_examples=150, deadline=None)
@given(
    data=st.binary(max_size=200)
    | st.text(st.sampled_from('id,title;\t|"\n\r1{}[]<>&:\0\ufeffé'), max_size=80).map(str.encode)
    | st.text(max_size=60).map(lambda text: f"id,title\n{text}".encode("utf-8", "replace")),
    name=st.sampled_from(["items.csv", "items.tsv", "events.json", "items.parquet", "items.xml"]),
    packed=st.booleans(),
)
def test_any_bytes_are_read_or_refused(tmp_path_factory, data, name, packed):
    path = tmp_path_factory.mktemp("any") / name
    path.write_bytes(gzip.compress(data) if packed else data)
    try:
        table = read_table(path, "items")
    except CatalogError:
        return
    assert len(table.frame) == len(table.rows) <= table.rows_read


def test_a_catalogue_reports_what_was_assumed(tmp_path):
    (tmp_path / "items.csv").write_bytes(("\ufeff" + PLAIN).encode("utf-16-le"))
    report = read_catalog(tmp_path, strict=True).report
    assert "utf-16" in report.notes[0]
