"""`ratings`: publishers' formats written here, the split by user, factors against numpy, the generated world."""

from __future__ import annotations

import re
import sys
import zipfile

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.support.tasks import check_function_of_the_ref, make
from warploom.errors import DataMissing, InvalidInput, SetupError, WireError
from warploom.spec import JobSpec
from warploom.tasks.configs.ratings import RatingsConfig
from warploom.tasks.rating_files import GENRES, read_jester, read_movielens_1m, read_movielens_100k, read_table
from warploom.tasks.ratings import Ratings, generated, item_factors
from warploom.types import TaskRef

WORLD = {"name": "ratings", "users": 60, "items": 30, "rated": 20, "rank": 2, "factors": 6, "shots": 8, "queries": 5}
WORLD |= {"test_users": 10, "validation_users": 5}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("WARPLOOM_DATA", str(tmp_path))
    return tmp_path


def world(**options):
    return make({**WORLD, **options})


def test_a_task_is_a_function_of_its_ref():
    check_function_of_the_ref(WORLD)
    assert generated(RatingsConfig(world_seed=1)).rating.tolist() != generated(RatingsConfig()).rating.tolist()


def test_shapes_and_sizes():
    family = world()
    assert [family.size(split) for split in ("train", "validation", "test")] == [45, 5, 10]
    tasks = family.sample([TaskRef("test", i, 0) for i in range(3)])
    assert tasks.support_x.shape == (3, 8, 6)
    assert tasks.query_x.shape == (3, 5, 6)
    assert tasks.support_y.shape == (3, 8, 1)
    assert tasks.query_y.shape == (3, 5, 1)
    assert tasks.query_x.dtype == tasks.query_y.dtype == torch.float32
    assert (family.config.input_shape, family.config.outputs) == ((6,), 1)


def test_no_user_is_in_two_splits_and_no_item_on_both_sides_of_one():
    family = world()
    names = [family.users(split) for split in ("train", "validation", "test")]
    assert sorted(int(name) for part in names for name in part) == list(range(60))
    assert world(split_seed=1).users("test") != names[2]
    tasks = family.sample([TaskRef("train", i, 0) for i in range(45)])
    assert sorted(family.identity(ref) for ref in tasks.refs) == list(range(45))
    for x in torch.cat([tasks.support_x, tasks.query_x], 1):
        assert len({tuple(row) for row in x.tolist()}) == 13


def test_ratings_are_standardised_by_the_training_users():
    family = world()
    table = generated(family.config)
    train = np.isin(table.user, [int(name) for name in family.users("train")])
    mean, std = table.rating[train].mean(), table.rating[train].std()
    name = int(family.users("test")[family.identity(TaskRef("test", 0, 0))])
    tasks = family.sample([TaskRef("test", 0, 0)])
    drawn = torch.cat([tasks.support_y, tasks.query_y], 1).flatten().double().numpy() * std + mean
    own = table.rating[table.user == name]
    assert all(np.abs(own - rating).min() < 1e-5 for rating in drawn)


def test_held_out_users_leave_features_and_scale_as_they_are(root):
    """Whatever a test user rates, the items' features and all other users' tasks stay the same to the bit."""
    lines = {}
    chance = np.random.default_rng(0)
    for user in range(30):
        for item in chance.permutation(12)[:9]:
            lines[user, item] = float(chance.normal())
    document = {"name": "ratings", "data": "file", "file": "r.csv", "factors": 4, "shots": 3, "queries": 2}
    document |= {"test_users": 6, "validation_users": 4}

    def family(ratings, name):
        text = "".join(f"{user},{item},{rating}\n" for (user, item), rating in ratings.items())
        (root / name).write_text("user,item,rating\n" + text)
        return make({**document, "file": name})

    first = family(lines, "r.csv")
    strangers = {int(name) for split in ("test", "validation") for name in first.users(split)}
    second = family({key: r + 5 if key[0] in strangers else r for key, r in lines.items()}, "s.csv")
    assert first.users("train") == second.users("train")
    assert torch.equal(first._world.features, second._world.features)
    one, other = (f.sample([TaskRef("train", i, 0) for i in range(20)]) for f in (first, second))
    assert torch.equal(one.query_y, other.query_y)
    shown = {key: r + 5 if key[0] not in strangers else r for key, r in lines.items()}
    shown[next(key for key in lines if key[0] not in strangers)] += 1
    assert not torch.equal(first._world.features, family(shown, "t.csv")._world.features)


@pytest.mark.parametrize(("users", "items"), [(40, 25), (25, 40)])
@pytest.mark.parametrize("factors", [1, 5, 25])
def test_factors_are_those_of_the_truncated_svd(users, items, factors):
    chance = np.random.default_rng(users)
    R = chance.standard_normal((users, 8)) @ chance.standard_normal((8, items)) + chance.standard_normal((users, items))
    R *= chance.random((users, items)) < 0.5
    R[:, [3, items - 1]] = 0  # never rated, the last one too
    user, item = np.nonzero(R)
    order = chance.permutation(len(user))
    got = item_factors(user[order], item[order], R[user, item][order], items, factors)
    S, Vt = np.linalg.svd(R)[1:]
    expected = Vt[:factors].T * S[:factors]
    expected *= np.where(expected[np.abs(expected).argmax(0), range(factors)] < 0, -1, 1)
    expected /= np.sqrt((expected[R.any(0)] ** 2).mean())
    solid = S[:factors] > 1e-9
    np.testing.assert_allclose(got[:, solid], expected[:, solid], rtol=0, atol=2e-4)
    assert np.abs(got[:, ~solid]).max(initial=0) < 1e-6
    assert not got[[3, items - 1]].any()


def test_too_many_factors_are_refused():
    user, item = np.nonzero(np.ones((4, 6)))
    with pytest.raises(InvalidInput, match="factors must be at most 4: there are 4 training users and 6 items"):
        item_factors(user, item, np.arange(24.0), 6, 5)


def test_in_a_world_without_noise_the_factors_suffice_for_new_users():
    """Ratings have rank `rank` + 2; least squares on the support of a test user then gives their queries exactly."""
    family = world(noise=0.0, rated=30, factors=4, shots=15, queries=15)
    table = generated(family.config)
    matrix = np.zeros((60, 30))
    matrix[table.user, table.item] = table.rating
    assert np.linalg.matrix_rank(matrix) == 4
    tasks = family.sample([TaskRef("test", i, 0) for i in range(10)])
    solution = torch.linalg.lstsq(tasks.support_x.double(), tasks.support_y.double()).solution
    torch.testing.assert_close(tasks.query_x.double() @ solution, tasks.query_y.double(), rtol=0, atol=1e-4)
    assert float(tasks.query_y.std()) > 0.3


def test_nrmse_is_in_units_of_all_ratings():
    y = torch.ones(4, 1)
    found = world().scores(y + 0.5, y)
    assert found == {"loss": 0.25, "nrmse": 0.5}


# The publishers' formats.

RATED = [(1, 3, 4), (1, 7, 5), (2, 3, 1), (2, 12, 2), (10, 7, 3), (10, 12, 3), (10, 3, 5)]


def write_100k(root, rated=RATED, folder="ml-100k"):
    (root / folder).mkdir(exist_ok=True)
    flags = {3: "0|1|" + "0|" * 16 + "0", 7: "1|" + "0|" * 17 + "0", 12: "0|" * 18 + "1"}
    (root / folder / "u.data").write_text("".join(f"{u}\t{i}\t{r}\t881250949\n" for u, i, r in rated))
    (root / folder / "u.item").write_bytes(
        "".join(f"{i}|Amélie {i} (1995)|01-Jan-1995||http://x/?|{flag}\n" for i, flag in flags.items()).encode(
            "latin-1"
        )
    )


def write_1m(root, rated=RATED):
    (root / "ml-1m").mkdir(exist_ok=True)
    genres = {3: "Action", 7: "Children's|Comedy", 12: "Western"}
    (root / "ml-1m" / "ratings.dat").write_text("".join(f"{u}::{i}::{r}::978300760\n" for u, i, r in rated))
    (root / "ml-1m" / "movies.dat").write_bytes(
        "".join(f"{i}::Amélie: {i} (1995)::{g}\n" for i, g in genres.items()).encode("latin-1")
    )


def content(table):
    return sorted((int(table.users[u]), int(table.items[i]), r) for u, i, r in zip(*table[:3], strict=True))


def test_movielens_100k(root):
    write_100k(root)
    table = read_movielens_100k()
    assert content(table) == sorted(RATED)
    rows = {item: table.genres[i] for i, item in enumerate(table.items)}
    assert {item: np.flatnonzero(row).tolist() for item, row in rows.items()} == {"3": [1], "7": [0], "12": [18]}
    assert table.genres.shape == (3, 19)


def test_movielens_1m(root):
    write_1m(root)
    table = read_movielens_1m()
    assert content(table) == sorted(RATED)
    named = {item: [GENRES[g] for g in np.flatnonzero(table.genres[i])] for i, item in enumerate(table.items)}
    assert named == {"3": ["Action"], "7": ["Children's", "Comedy"], "12": ["Western"]}
    assert table.genres.shape == (3, 18)


@pytest.mark.parametrize("place", ["ml-100k.zip", "ml-100k/ml-100k.zip"])
def test_movielens_is_read_out_of_the_publishers_archive(root, tmp_path_factory, place):
    elsewhere = tmp_path_factory.mktemp("unpacked")
    write_100k(elsewhere)
    (root / place).parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(root / place, "w") as archive:
        for name in ("u.data", "u.item"):
            archive.write(elsewhere / "ml-100k" / name, f"ml-100k/{name}")
    assert content(read_movielens_100k()) == sorted(RATED)
    (root / place).write_bytes(b"PK cut")
    with pytest.raises(WireError, match=r"cannot be read .*fetch it anew from https://files\.grouplens\.org"):
        read_movielens_100k()


@pytest.mark.parametrize(
    ("name", "read", "md5"),
    [
        ("ml-100k", read_movielens_100k, "0e33842e24a9c977be4e0107933c0723"),
        ("ml-1m", read_movielens_1m, "c4d9eecfca2ab87c1945afe126590906"),
    ],
)
def test_missing_movielens_names_address_and_checksum(root, name, read, md5):
    url = re.escape(f"https://files.grouplens.org/datasets/movielens/{name}.zip")
    with pytest.raises(DataMissing, match=rf"warploom data fetch {name}.*{url} \(MD5 {md5}\)"):
        read()


@pytest.mark.parametrize("line", ["1\t2\t3", "1\t2\tx\t4", "1::2::3::4"])
def test_a_bad_line_of_movielens_is_named(root, line):
    write_100k(root)
    path = root / "ml-100k" / "u.data"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(WireError, match=r"u\.data, line 8: expected user, item, rating and time"):
        read_movielens_100k()


def test_bad_items_of_movielens_are_named(root):
    write_1m(root, [*RATED, (2, 99, 1)])
    with pytest.raises(WireError, match=r"ratings\.dat rates item 99, which movies\.dat does not list"):
        read_movielens_1m()
    path = root / "ml-1m" / "movies.dat"
    path.write_bytes(path.read_bytes() + b"99::Nameless (1999)::Opera\n")
    with pytest.raises(WireError, match=r"movies\.dat, line 4: expected an item's number.*Opera"):
        read_movielens_1m()
    write_100k(root)
    path = root / "ml-100k" / "u.item"
    path.write_bytes(path.read_bytes().replace(b"0|1|0", b"0|2|0", 1))
    with pytest.raises(WireError, match=r"u\.item, line 1"):
        read_movielens_100k()


def test_an_item_rated_twice_is_refused(root):
    write_100k(root, [*RATED, (2, 3, 5)])
    with pytest.raises(InvalidInput, match=r"user 2 rates item 3 more than once \(first in row 3\)"):
        read_movielens_100k()


def write_jester(root, rows):
    (root / "jester").mkdir(exist_ok=True)
    (root / "jester" / "jester-data-1.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in rows))


def test_jester(root):
    row = [99.0] * 100
    first, second = row.copy(), row.copy()
    first[0], first[99], second[4] = -7.82, 10, 0.0
    write_jester(root, [[2, *first], [1, *second]])
    table = read_jester()
    assert content(table) == [(1, 1, -7.82), (1, 100, 10.0), (2, 5, 0.0)]
    write_jester(root, [[2, *first], [2, *second]])
    with pytest.raises(WireError, match=r"jester-data-1\.csv, line 2: expected 2 ratings from -10 to 10, and 99"):
        read_jester()
    write_jester(root, [[1, *first[:50]]])
    with pytest.raises(WireError, match=r"line 1: expected the number of jokes rated, then 100 ratings"):
        read_jester()


def test_jesters_spreadsheet_is_refused_with_what_to_do(root):
    words = r"download https://eigentaste\.berkeley\.edu/dataset/jester_dataset_1_1\.zip.*save it as jester-data-1\.csv"
    with pytest.raises(DataMissing, match="(?i)" + words):
        read_jester()
    (root / "jester").mkdir()
    (root / "jester" / "jester-data-1.xls").write_bytes(b"\xd0\xcf\x11\xe0")
    with pytest.raises(DataMissing, match=r"jester-data-1\.xls is there, but .*cannot be read"):
        read_jester()


def test_any_csv_and_parquet(root):
    text = "when,who,what,stars\n" + "".join(f"x,user {u},{i},{r}.5\n" for u, i, r in RATED)
    (root / "sub").mkdir()
    (root / "sub" / "own.csv").write_text(text, encoding="utf-8-sig")
    table = read_table("sub/own.csv", "who", "what", "stars")
    assert table.users == ["user 1", "user 10", "user 2"]
    found = sorted((table.users[u], table.items[i], r) for u, i, r in zip(*table[:3], strict=True))
    assert found == sorted((f"user {u}", str(i), r + 0.5) for u, i, r in RATED)
    arrow, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    named = zip(("who", "what", "stars"), zip(*RATED, strict=True), strict=True)
    pq.write_table(arrow.table({name: list(values) for name, values in named}), root / "own.parquet")
    assert content(read_table("own.parquet", "who", "what", "stars")) == sorted(RATED)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("user,item\n1,2\n", r"own\.csv, column 'rating': is not there; the file has: 'user', 'item'"),
        ("user,item,rating\n1,2,3\n1,3\n", r"own\.csv, row 2: has 2 fields, the header 3"),
        ("user,item,rating\n1,2,3\n1,3,\n", r"own\.csv, column 'rating', row 2: is empty"),
        ("user,item,rating\n1,2,good\n", r"own\.csv, column 'rating', row 1: must be a number, got 'good'"),
        ("user,item,rating\n1,2,nan\n", r"own\.csv, column 'rating', row 1: must be finite"),
        ("user,item,rating\n1,2,3\n1,2,4\n", r"own\.csv: user 1 rates item 2 more than once \(first in row 1\)"),
        ("user,item,rating\n", r"own\.csv: has no rows"),
        ("", r"the file has: nothing"),
    ],
)
def test_refusals_of_a_table_name_column_and_row(root, text, words):
    (root / "own.csv").write_text(text)
    with pytest.raises(InvalidInput, match=words):
        read_table("own.csv", "user", "item", "rating")


def test_tables_that_cannot_be_opened(root, monkeypatch):
    with pytest.raises(DataMissing, match=r"own\.csv is not under the data folder"):
        read_table("own.csv", "user", "item", "rating")
    (root / "own.csv").write_bytes(b"user,item,rating\n1,\xff,3\n")
    with pytest.raises(WireError, match=r"own\.csv is not a CSV file in UTF-8"):
        read_table("own.csv", "user", "item", "rating")
    (root / "own.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SetupError, match=r"pip install 'warploom\[parquet\]'"):
        read_table("own.parquet", "user", "item", "rating")


SMALL_FILE = {"name": "ratings", "shots": 1, "queries": 1, "test_users": 1, "validation_users": 0, "factors": 2}


@pytest.mark.parametrize(("data", "write", "width"), [("ml-100k", write_100k, 19), ("ml-1m", write_1m, 18)])
def test_families_of_movielens(root, data, write, width):
    write(root)
    factors = make({**SMALL_FILE, "data": data})
    assert factors.sample([TaskRef("test", 0, 0)]).support_x.shape == (1, 1, 2)
    genres = make({**SMALL_FILE, "data": data, "features": "genres"})
    assert genres.config.input_shape == (width,)
    x = genres.sample([TaskRef("train", 0, 0)]).support_x
    assert x.shape == (1, 1, width)
    assert set(x.flatten().tolist()) == {0.0, 1.0}


def test_a_family_of_jester(root):
    chance = np.random.default_rng(0)
    write_jester(root, [[100, *chance.uniform(-10, 10, 100).round(2)] for _ in range(4)])
    tasks = make({**SMALL_FILE, "data": "jester", "shots": 20, "queries": 30}).sample([TaskRef("test", 0, 0)])
    assert tasks.query_x.shape == (1, 30, 2)


def test_users_with_too_few_ratings_are_left_out(root):
    write_100k(root)
    family = make({**SMALL_FILE, "data": "ml-100k", "factors": 1})
    assert sorted(family.users("train") + family.users("test")) == ["1", "10", "2"]
    with pytest.raises(InvalidInput, match=r"1 of 3 users have the 3 ratings of shots . queries; .* none is left"):
        make({**SMALL_FILE, "data": "ml-100k", "shots": 2})
    with pytest.raises(InvalidInput, match="no user is left for validation; raise validation_users"):
        family.sample([TaskRef("validation", 0, 0)])


def test_configs_refuse_what_cannot_be():
    for options, words in (
        ({"data": "file"}, "data 'file' goes with a file"),
        ({"file": "x.csv"}, "data 'file' goes with a file"),
        ({"data": "file", "file": "../x.csv"}, "must be a path under the data folder"),
        ({"data": "file", "file": "x.xls"}, "must end in .csv or .parquet"),
        ({"data": "jester", "features": "genres"}, "genres are known for ml-100k and ml-1m only"),
        ({"user_column": "item"}, "must differ"),
        ({"factors": 121}, "factors must be at most items .120. and training users .250."),
        ({"users": 150, "factors": 1}, "users must exceed"),
        ({"rated": 20}, "rated must be at least shots . queries"),
    ):
        with pytest.raises(ValidationError, match=words):
            RatingsConfig(**options)


def test_a_job_can_be_built_from_the_name_alone():
    spec = JobSpec.parse({"algorithm": "maml", "task": "ratings", "model": "mlp"})
    assert spec.task.input_shape == (20,)
    assert isinstance(make({"name": "ratings"}), Ratings)
