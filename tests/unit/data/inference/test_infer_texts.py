"""What inference makes of texts: bags, parts, categories and numbers with a unit."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.batch import OUT_OF_VOCABULARY
from dynens.data.datasets.presets import dataset_from_files
from dynens.data.encoding.fields import numbers_of
from dynens.data.inference.infer import infer_schema
from dynens.data.prepare import prepare
from dynens.data.reading.lists import DOTTED, PIECES, split_lists, split_text

ROWS = 3000


def test_addresses_are_their_parts(tmp_path):
    rng = np.random.default_rng(0)
    shops = rng.choice(["shop.example", "news.example", "play.example"], ROWS)
    table = {
        "url": [
            f"https://{shop}/{c}/{i:x}"
            for i, (shop, c) in enumerate(zip(shops, rng.integers(0, 9, ROWS), strict=True))
        ],
        "mail": [f"{i:x}@{shop}" for i, shop in enumerate(shops)],
        "token": [f"{i:x}/{i * 7919:x}" for i in range(ROWS)],
        "kind": rng.choice(["food/tea", "food/rice", "toys/cars"], ROWS),
        "click": rng.integers(0, 2, ROWS),
    }
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    found = infer_schema(tmp_path / "t.parquet", "click")
    kinds = {f.name: (f.kind, f.separator) for f in found.dataset.features.fields}
    assert kinds["url"] == ("multi_valued", "/")
    assert kinds["mail"] == ("multi_valued", "@")
    assert kinds["kind"][0] == "categorical"
    assert "token" in found.excluded


def test_domains_of_which_few_come_back_tell(tmp_path):
    rng = np.random.default_rng(0)
    private = rng.random(ROWS) < 0.3
    label = rng.random(ROWS) < np.where(private, 0.1, 0.4)
    firms = [f"firm{k}.example" for k in rng.integers(0, ROWS, ROWS)]
    mails = [
        f"{i:x}@{'home.example' if p else f}"
        for i, (p, f) in enumerate(zip(private, firms, strict=True))
    ]
    table = {
        "mail": mails,
        "other": [f"{i:x}@{f}" for i, f in enumerate(firms)],
        "y": label.astype(int),
    }
    pq.write_table(pa.table(table | {"x": rng.integers(0, 9, ROWS)}), tmp_path / "t.parquet")
    found = infer_schema(tmp_path / "t.parquet", "y")
    assert {f.name: f.separator for f in found.dataset.features.fields}["mail"] == "@"
    assert "other" in found.excluded


def test_ids_with_thousands_separators_are_no_lists(tmp_path):
    rng = np.random.default_rng(0)
    table = {
        "order": [f"#{k:,}" for k in rng.permutation(ROWS) + 100_000],
        "x": rng.integers(0, 9, ROWS),
        "y": rng.integers(0, 2, ROWS),
    }
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    assert "order" in infer_schema(tmp_path / "t.parquet", "y").excluded


def test_codes_whose_ends_tell_the_label_are_their_parts(tmp_path):
    rng = np.random.default_rng(0)
    net, label = rng.integers(0, 40, ROWS), rng.integers(0, 2, ROWS)
    net = np.where(label == 1, net, net % 20)  # upper nets click
    rest = rng.integers(0, 1000, (ROWS, 2))
    columns = {
        "ip": [f"10.{a}.{b}.{c}" for a, (b, c) in zip(net, rest, strict=True)],
        "seat": [f"{b}x{c}-S{a}" for a, (b, c) in zip(net, rest, strict=True)],
        "first": [f"n{a}_{b}_{c}" for a, (b, c) in zip(net, rest, strict=True)],
        "phone": [f"{a % 7}-{b % 90}-{i}" for i, (a, b) in enumerate(rest)],
    }
    pq.write_table(pa.table(columns | {"y": label}), tmp_path / "t.parquet")
    found = infer_schema(tmp_path / "t.parquet", "y")
    assert {f.name: f.separator for f in found.dataset.features.fields} == {
        "ip": DOTTED,
        "seat": "-",
        "first": "_",
    }
    assert set(found.excluded) == {"phone"}


def test_a_text_that_comes_back_is_a_category_and_its_words(tmp_path):
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(40)])
    titles = [" ".join(rng.choice(words, 4)) for _ in range(250)]
    letters = [" ".join(rng.choice(words, n)) for n in rng.integers(4, 57, ROWS)]
    long = [" ".join(rng.choice(words, 90)) for _ in range(ROWS)]
    longer = [" ".join(rng.choice(words, 200)) for _ in range(ROWS)]
    table = pa.table(
        {
            "title": [titles[i] for i in rng.integers(0, 250, ROWS)],
            "letter": letters,
            "book": long,
            "books": longer,
            "y": rng.integers(0, 2, ROWS),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    features = infer_schema(tmp_path / "t.parquet", "y").dataset.features
    assert [(f.name, f.source, f.kind) for f in features.fields] == [
        ("title", "title", "categorical"),
        ("title.words", "title", "multi_valued"),
        ("letter", "letter", "multi_valued"),
        ("book", "book", "multi_valued"),
        ("books", "books", "multi_valued"),
    ]
    # Twice the mean of 30 and of 90 words, at most 256; of 4 the length of nearly all.
    assert [features.fields[i].max_len for i in (1, 3, 4)] == [None, 180, 256]
    assert features.fields[4].why.endswith("a bag of words, the first 256 of each")
    assert features.fields[2].max_len == pytest.approx(60, abs=2)


def test_a_text_without_spaces_is_a_bag_of_characters(tmp_path):
    rng = np.random.default_rng(0)
    said = ["".join(rng.choice(list("好吃难贵香新鲜快慢热甜"), 9)) + "。" for _ in range(ROWS)]
    table = pa.table({"评论": said, "城市": rng.choice(["东京", "大阪"], ROWS), "y": [0, 1] * 1500})
    pq.write_table(table, tmp_path / "t.parquet")
    text, town = infer_schema(tmp_path / "t.parquet", "y").dataset.features.fields
    assert (text.name, text.kind, text.separator, text.max_len) == ("评论", "multi_valued", "", 20)
    assert "free text, 10 characters" in (text.why or "")
    assert (town.name, town.kind) == ("城市", "categorical")


def test_numbers_with_one_unit_are_numbers(tmp_path):
    rng = np.random.default_rng(0)
    size = rng.integers(1, 900_000, ROWS)
    unit = np.where(rng.random(ROWS) < 0.5, "ml", "cups")
    table = pa.table(
        {
            "driven": [f"{s:,} km" for s in size.tolist()],
            "opens": [f"{s % 12 or 12}:{s % 60:02d} {'AP'[s % 2]}M" for s in size.tolist()],
            "pack": [f"{s % 900} {u}" for s, u in zip(size.tolist(), unit, strict=True)],
            "y": rng.integers(0, 2, ROWS),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    features = infer_schema(tmp_path / "t.parquet", "y").dataset.features
    kinds = {f.name: f.kind for f in features.fields if f.name == f.source}
    assert (kinds["driven"], kinds["pack"]) == ("numeric", "categorical")
    assert "numeric" in [f.kind for f in features.fields if f.source == "opens"]


def test_few_texts_of_words_that_others_have_too_are_looked_at_by_word(tmp_path):
    rng = np.random.default_rng(0)
    subjects = [
        f"{a} {b}" for a in ("Big", "New", "Last") for b in ["sale", "gift", "pick", "deal"]
    ]
    subjects += [f"{s} today" for s in subjects]
    towns = [f"Town {i}" for i in range(24)]
    kinds = ["jeans", "boots", "coats", "socks"]
    queries = [
        *kinds,
        *(f"{a} {b}" for a in ("red", "blue", "warm", "slim", "wide") for b in kinds),
    ]
    table = {
        "subject": rng.choice(subjects, ROWS),
        "query": rng.choice(queries, ROWS),
        "town": rng.choice(towns, ROWS),
        "y": rng.integers(0, 2, ROWS),
    }
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    fields = infer_schema(tmp_path / "t.parquet", "y").dataset.features.fields
    assert [(f.name, f.kind) for f in fields] == [
        ("subject", "categorical"),
        ("subject.words", "multi_valued"),
        ("query", "categorical"),
        ("query.words", "multi_valued"),
        ("town", "categorical"),
    ]


def test_texts_that_mostly_are_numbers_or_ranges_keep_their_size_beside_the_category(tmp_path):
    rng = np.random.default_rng(0)
    size = rng.integers(0, 300, ROWS)
    table = pa.table(
        {
            "since": np.where(rng.random(ROWS) < 0.4, "never", size.astype(str)),
            "salary": [f"{s}k-{s + 20}k" for s in size.tolist()],
            "grade": np.where(size < 150, "<150", ">150"),
            "part": [f"{'ABCDEFGHIJK'[s % 11]}{s}" for s in size.tolist()],
            "shelf_code": np.where(rng.random(ROWS) < 0.05, "never", size.astype(str)),
            "dose": np.where(size < 30, "n.d.", rng.random(ROWS).astype(str)),
            "clicked": rng.random(ROWS) < size / 300,
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    path = tmp_path / "t.parquet"
    fields = infer_schema(path, "clicked").dataset.features.fields
    sizes = [f.source for f in fields if f.kind == "numeric"]
    assert sizes == ["since", "salary", "dose"]
    assert next(f for f in fields if f.name == "dose").vocabulary.min_count == 5
    assert {"since", "salary", "grade"} <= {f.name for f in fields if f.kind == "categorical"}
    encoder = prepare(dataset_from_files(path, label="clicked"), tmp_path / "o", seed=0).encoder
    texts = {"since": ["never", "12", "of old"], "salary": ["40k-60k", "50k", None]}
    columns = encoder.encode_columns(texts)
    at = [columns.dense[:, encoder.layout.dense.index(f"{name}.size")] for name in texts]
    assert at[0][0] == at[0][2] != at[0][1]
    assert at[1][0] == at[1][1]


def test_ranges_are_neither_lists_nor_vectors(tmp_path):
    rng = np.random.default_rng(0)
    low, more = 5 * rng.integers(2, 30, ROWS), 10 * rng.integers(1, 5, ROWS)
    pairs = [f"{a / 10}-{1 + b / 10}" for a, b in rng.integers(1, 9, (ROWS, 2))]
    table = {
        "salary": [f"{s},000-{s + m},000" for s, m in zip(low, more, strict=True)],
        "bands": [f"{a}|{b}" for a, b in zip(pairs, pairs[::-1], strict=True)],
        "y": rng.integers(0, 2, ROWS),
    }
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    fields = infer_schema(tmp_path / "t.parquet", "y").dataset.features.fields
    assert [(f.name, f.kind) for f in fields] == [
        ("salary", "categorical"),
        ("salary.size", "numeric"),
        ("bands", "multi_valued"),
    ]


def test_clocks_of_minutes_are_told_from_those_of_hours(tmp_path):
    rng = np.random.default_rng(0)
    length = rng.integers(30, 9000, ROWS)
    texts = [
        f"{s // 3600}:{s // 60 % 60:02d}:{s % 60:02d}" if s >= 3600 else f"{s // 60}:{s % 60:02d}"
        for s in length.tolist()
    ]
    table = {"length": texts, "y": rng.random(ROWS) < length / 9000}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    spec = infer_schema(tmp_path / "t.parquet", "y").dataset.features.field("length")
    assert (spec.kind, spec.unit) == ("numeric", "m:ss")
    np.testing.assert_array_equal(numbers_of(pa.array(texts), spec), length)


def test_texts_that_are_not_utf8_are_told(tmp_path):
    rng = np.random.default_rng(0)
    towns = rng.choice(["Nîmes", "Köln", "Lyon"], 300)
    lines = [
        f"{town};{int(label)}" for town, label in zip(towns, rng.random(300) < 0.4, strict=True)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["town;y", *lines]), encoding="windows-1252")
    inferred = infer_schema(tmp_path / "t.csv", "y")
    assert any("not UTF-8" in warning for warning in inferred.warnings)
    assert [f.name for f in inferred.dataset.features.fields] == ["town"]


def fields_of(tmp_path, texts, seed=1):
    rng = np.random.default_rng(seed)
    table = {"link": texts, "x": rng.normal(size=len(texts)), "y": rng.random(len(texts)) < 0.3}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    fields = infer_schema(tmp_path / "t.parquet", "y").dataset.features.fields
    return [f for f in fields if f.source == "link"]


def test_what_an_address_asks_for_is_a_part(tmp_path):
    rng = np.random.default_rng(0)
    links = [
        f"https://a.example/p/{rng.integers(40)}?source=s{rng.integers(5)}&click={i:x}#top"
        for i in range(ROWS)
    ]
    (parts,) = fields_of(tmp_path, links)
    values, lengths = split_lists(pa.array(links[:1]), parts.separator)
    assert values.to_pylist() == split_text(links[0], parts.separator)
    assert [v.split("=")[0] for v in values.to_pylist()[-3:]] == ["source", "click", "top"]
    assert lengths.tolist() == [8]


def test_addresses_that_repeat_are_categories_and_parts(tmp_path):
    rng = np.random.default_rng(0)
    links = [f"shop/{i % 30}/{i}" for i in rng.integers(0, ROWS // 2, ROWS)]
    whole, parts = fields_of(tmp_path, links)
    assert (whole.name, whole.kind) == ("link", "categorical")
    assert (parts.name, parts.kind, parts.separator) == ("link.parts", "multi_valued", "/")


def test_networks_are_what_addresses_begin_with(tmp_path):
    rng = np.random.default_rng(0)
    net = rng.integers(1, 200, (50, 2))
    which, rest = rng.integers(0, 50, ROWS), rng.integers(0, 250, (ROWS, 2))
    ips = [f"{net[i][0]}.{net[i][1]}.{a}.{b}" for i, (a, b) in zip(which, rest, strict=True)]
    table = {"ip": ips, "y": rng.random(ROWS) < np.where(which % 2, 0.6, 0.2)}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    dataset = dataset_from_files(tmp_path / "t.parquet", label="y")
    data = prepare(dataset, tmp_path / "out", seed=0)
    first, second = net[0]
    ips = [f"{first}.{second}.0.0", f"{second}.{first}.0.0"]  # another network
    ids = data.encoder.encode_columns({"ip": ips}).ids
    assert (ids[0, :2] > OUT_OF_VOCABULARY).all()
    assert ids[0, 3] == OUT_OF_VOCABULARY
    assert ids[0, 1] not in ids[1]


def test_versions_have_parts_though_they_repeat(tmp_path):
    rng = np.random.default_rng(0)
    major, minor, patch = rng.integers(0, [4, 20, 9], (ROWS, 3)).T
    versions = [f"{a}.{b}.{c}" for a, b, c in zip(major, minor, patch, strict=True)]
    table = {"version": versions, "y": rng.random(ROWS) < 0.1 + 0.2 * major}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    whole, parts = infer_schema(tmp_path / "t.parquet", "y").dataset.features.fields
    assert (whole.name, whole.kind) == ("version", "categorical")
    assert (parts.name, parts.separator) == ("version.parts", DOTTED)


def test_words_with_parts_are_taken_apart(tmp_path):
    rng = np.random.default_rng(0)
    browsers = rng.choice(["Chrome", "Firefox", "Edg"], ROWS)
    agents = [
        f"Mozilla/5.0 ({rng.choice(['X11', 'Win64'])}) {browser}/{rng.integers(99)}.0.{i}.1"
        for i, browser in enumerate(browsers)
    ]
    (bag,) = fields_of(tmp_path, agents)
    assert (bag.separator, bag.fold_words) == (PIECES, True)
    (bag,) = fields_of(tmp_path, [f"hello world no {i}" for i in range(ROWS)])
    assert bag.separator is None


def test_links_among_words_are_taken_apart(tmp_path):
    texts = [f"hello world no {i}" for i in range(ROWS)]
    linked = [f"{text} http://t.co/{i:x}" if i % 9 == 0 else text for i, text in enumerate(texts)]
    (bag,) = fields_of(tmp_path, linked)
    assert (bag.separator, bag.fold_words) == (PIECES, True)
    assert split_text(linked[0], bag.separator, fold=True) == [
        *("hello", "world", "no", "0", "http", "t", "co", "0")
    ]


@pytest.mark.parametrize("mark", ["|", ";", ",", "^", "#", "~"])
def test_lists_are_split_at_what_stands_in_no_value(tmp_path, mark):
    rng = np.random.default_rng(0)
    lists = [mark.join(f"{1000 + i}" for i in rng.choice(40, 3)) for _ in range(ROWS)]
    table = pa.table({"apps": lists, "y": rng.integers(0, 2, ROWS)})
    pq.write_table(table, tmp_path / "t.parquet")
    (apps,) = infer_schema(tmp_path / "t.parquet", "y").dataset.features.fields
    assert (apps.kind, apps.keep) == ("multi_valued", "last")
    assert split_text(lists[0], apps.separator) == lists[0].split(mark)
    assert split_lists(table["apps"], apps.separator)[0].to_pylist()[:3] == lists[0].split(mark)


def test_a_number_sign_within_texts_cuts_no_list(tmp_path):
    rng = np.random.default_rng(0)
    streets = [f"{rng.integers(1, 9)} Main St #{rng.integers(1, 30)}" for _ in range(2000)]
    table = pa.table({"address": streets, "click": rng.integers(0, 2, 2000)})
    pq.write_table(table, tmp_path / "t.parquet")
    fields = infer_schema(tmp_path / "t.parquet", "click").dataset.features.fields
    assert fields
    assert "#" not in {f.separator for f in fields}
