"""The full-text index of the products that are in the store."""

import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from newshelf.errors import Unavailable
from newshelf.shelf.words import WordIndex, keep_words
from newshelf.store.items import ItemColumns, ItemWrite
from newshelf.store.store import EventStore

PRODUCTS = {
    "ring": {"title": "Blue sapphire rings", "product_type": "Jewellery > Rings"},
    "band": {"title": "Silver band", "description": "a ring for every day"},
    "desk": {"title": "Walnut desk", "brand": "Alder & Finch", "attributes": {"room": "study"}},
    "chain": {"title": "红色珍珠项链", "material": "珍珠"},
}


@pytest.fixture
def store(store_url: str) -> Iterator[EventStore]:
    with EventStore.open(store_url) as opened:
        put(opened, **PRODUCTS)
        yield opened


@pytest.fixture
def words(tmp_path: Path, store: EventStore) -> WordIndex:
    index = WordIndex(tmp_path / "words")
    index.follow(store.items)
    return index


def product(item_id: str, fields: object) -> ItemWrite:
    assert isinstance(fields, dict)
    return ItemWrite(ItemColumns.model_validate({"id": item_id, **fields}))


def put(store: EventStore, **products: object) -> None:
    store.items.put([product(item_id, fields) for item_id, fields in products.items()])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ring", ["ring", "band"]),
        ("RINGS of sapphire", ["ring", "band"]),
        ("study", ["desk"]),
        ("finch", ["desk"]),
        ("saphire", ["ring"]),
        ("sapph", ["ring"]),
        ("wallnut desk", ["desk"]),
        ("项链", ["chain"]),
        ("红色 项链", ["chain"]),
        ("珍", ["chain"]),
        ("xyz", []),
        ("链项", ["chain"]),
        ("", []),
        ("… !", []),
        ('title:"desk" AND (', ["desk"]),
    ],
)
def test_products_are_found_by_their_words(words: WordIndex, text: str, found: list[str]) -> None:
    assert words.search(text) == found


def test_the_title_counts_more_than_the_description(words: WordIndex, store: EventStore) -> None:
    put(store, note={"title": "Card", "description": "walnut desk desk desk"})
    words.follow(store.items)
    assert words.search("walnut desk") == ["desk", "note"]
    assert words.search("walnut desk", limit=1) == ["desk"]


def test_changes_and_deletions_are_followed(words: WordIndex, store: EventStore) -> None:
    reader = WordIndex(words.folder)
    assert reader.search("walnut") == ["desk"]
    put(store, desk={"title": "Oak table"})
    store.items.delete("chain")
    assert words.follow(store.items) == store.items.last_seq()
    assert reader.search("walnut") == reader.search("项链") == []
    assert reader.search("oak") == ["desk"]
    put(store, chain={"title": "项链"})
    words.follow(store.items)
    assert reader.search("项链") == ["chain"]


def test_seeded_products_are_indexed_and_later_ones_too(tmp_path: Path, store: EventStore) -> None:
    store.items.seed([product("lamp", {"title": "Brass lamp"})])
    words = WordIndex(tmp_path / "words")
    words.follow(store.items)
    assert words.search("brass") == ["lamp"]
    del words
    store.items.seed([product("mug", {"title": "Brass mug"})])
    again = WordIndex(tmp_path / "words")
    again.follow(store.items)
    assert again.search("brass") == ["lamp", "mug"]


def test_nothing_is_found_without_an_index(tmp_path: Path) -> None:
    assert WordIndex(tmp_path / "none").search("ring") == []


def test_a_damaged_index_is_built_again(tmp_path: Path, store: EventStore) -> None:
    WordIndex(tmp_path / "words").follow(store.items)
    (tmp_path / "words" / "meta.json").write_text("{")
    words = WordIndex(tmp_path / "words")
    assert words.search("ring") == []
    words.follow(store.items)
    assert words.search("walnut") == ["desk"]


def test_the_index_of_another_store_is_built_again(tmp_path: Path, words: WordIndex) -> None:
    folder = shutil.copytree(words.folder, tmp_path / "copy")
    with EventStore.open(f"sqlite:///{tmp_path}/other.db") as other:
        put(other, sofa={"title": "Sofa"})
        moved = WordIndex(folder)
        moved.follow(other.items)
    assert moved.search("sofa") == ["sofa"]
    assert moved.search("walnut") == []


_FOLLOWER = """
import sys
from pathlib import Path
from newshelf.shelf.words import WordIndex
from newshelf.store.store import EventStore

with EventStore.open(sys.argv[1]) as store:
    words = WordIndex(Path(sys.argv[2]))
    while True:
        print(words.follow(store.items), flush=True)
"""


def test_a_killed_follower_loses_no_change(tmp_path: Path, store: EventStore) -> None:
    folder = tmp_path / "words"
    url = f"sqlite:///{tmp_path}/events.db"
    for number in range(4):
        command = [sys.executable, "-c", _FOLLOWER, url, str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as follower:
            assert follower.stdout is not None
            follower.stdout.readline()
            # Some of them are being committed when it is killed.
            put(store, **{f"p{number}-{at}": {"title": f"cup {number}"} for at in range(20)})
            store.items.delete(f"p{number}-0")
            follower.send_signal(signal.SIGKILL)
    words = WordIndex(folder)
    assert words.follow(store.items) == store.items.last_seq()
    found = words.search("cup", limit=1_000)
    assert sorted(found) == sorted(f"p{n}-{at}" for n in range(4) for at in range(1, 20))


def test_a_thread_follows_until_it_is_ended(tmp_path: Path, store: EventStore) -> None:
    ended, words = threading.Event(), WordIndex(tmp_path / "words")
    thread = threading.Thread(target=keep_words, args=(words.folder, store.items, ended, 0.01))
    thread.start()
    try:
        put(store, vase={"title": "Vase"})
        while words.search("vase") != ["vase"]:
            assert thread.is_alive()
            ended.wait(0.01)
    finally:
        ended.set()
        thread.join(30)
    assert not thread.is_alive()


def test_a_store_that_is_away_is_followed_later(tmp_path: Path, store: EventStore) -> None:
    class Away:
        calls = 0

        def last_seq(self) -> int:
            Away.calls += 1
            if Away.calls == 1:
                raise Unavailable("away")
            return store.items.last_seq()

        def __getattr__(self, name: str) -> object:
            return getattr(store.items, name)

    ended, words = threading.Event(), WordIndex(tmp_path / "words")
    followed = (words.folder, Away(), ended, 0.01, 0.01)
    thread = threading.Thread(target=keep_words, args=followed)
    thread.start()
    try:
        while words.search("walnut") != ["desk"]:
            assert thread.is_alive()
            ended.wait(0.01)
    finally:
        ended.set()
        thread.join(30)
