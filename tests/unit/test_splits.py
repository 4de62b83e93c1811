"""Split lists: byte by byte the published ones, or said to be one's own; fetched only when asked for."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler

import pytest

from deixis.cli import main
from deixis.data import splits
from deixis.data.splits import SplitList, fetch_list, find_listing, inside, read_split_list, split_lists
from deixis.errors import InputError, UsageError

TEXT = "a/1.png d/1.png 721.5\na/2.png None 721.5\na/3.png d/3.png 721.5\n"
KNOWN = SplitList(
    name="toy.test",
    repository="somebody/Toy",
    commit="c" * 40,
    path="lists/toy_test.txt",
    sha256=hashlib.sha256(TEXT.encode()).hexdigest(),
    lines=3,
    first_line=TEXT.splitlines()[0],
)


@pytest.fixture
def lists(tmp_path, monkeypatch):
    """The folder of lists, empty; one list is known, ``toy.test``."""
    monkeypatch.setattr(splits, "split_lists", lambda: {KNOWN.name: KNOWN})
    monkeypatch.setenv("DEIXIS_DATA_LISTS", str(tmp_path / "lists"))
    (tmp_path / "lists").mkdir()
    return tmp_path / "lists"


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host on this machine, and the file that it publishes as the list."""
    published = tmp_path / "host" / KNOWN.repository / KNOWN.commit / KNOWN.path
    published.parent.mkdir(parents=True)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "host"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(splits, "HOST", f"http://127.0.0.1:{server.server_port}")
    yield published
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def run(capsys):
    def command(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(["data", "lists", *(str(argument) for argument in arguments)])
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return command


def test_the_facts_of_the_published_lists():
    known = split_lists()
    assert {name: one.lines for name, one in known.items()} == {
        "nyuv2.test": 654,
        "nyuv2.train": 795,
        "kitti.eigen_test": 697,
        "kitti.val": 800,
        "eth3d.full": 454,
        "scannet.val": 800,
        "diode.val": 771,
        "hypersim.train": 53885,
        "hypersim.val": 7370,
        "vkitti2.train": 20148,
        "vkitti2.val": 5364,
        "nyuv2.evp_train": 24231,
        "nyuv2.evp_test": 654,
        "kitti.evp_train": 23158,
        "kitti.evp_test": 652,
    }
    for one in known.values():
        assert re.fullmatch(r"[0-9a-f]{64}", one.sha256)
        assert re.fullmatch(r"[0-9a-f]{40}", one.commit)
    assert len({one.sha256 for one in known.values()}) == len(known)


def test_a_published_list_leaves_out_samples_without_depth(lists):
    (lists / "toy.test.txt").write_text(TEXT)
    for listing in (read_split_list("toy.test"), find_listing(["toy.test"], None)):
        assert listing.samples == (("a/1.png", "d/1.png", "721.5"), ("a/3.png", "d/3.png", "721.5"))
        assert listing.published == KNOWN
        assert listing.own is None


@pytest.mark.parametrize("cut", [TEXT.splitlines(keepends=True)[0], TEXT + "a/4.png d/4.png 1\n", TEXT + "\n"])
def test_another_count_is_refused_with_both_numbers(lists, cut):
    (lists / "toy.test.txt").write_text(cut)
    number, digest = len(cut.splitlines()), hashlib.sha256(cut.encode()).hexdigest()
    with pytest.raises(
        InputError, match=rf"{number} lines with sha256 {digest} where 3 lines with sha256 {KNOWN.sha256}"
    ):
        read_split_list("toy.test")


def test_the_right_count_with_another_checksum_is_refused(lists, tmp_path):
    other = tmp_path / "elsewhere"
    other.write_text(TEXT.replace("a/3", "a/4"))
    with pytest.raises(InputError, match=r"elsewhere: is not the published list toy\.test: 3 lines .* where 3 lines"):
        read_split_list("toy.test", other)


def test_a_missing_list_says_where_it_is_published_and_where_it_goes(lists):
    for read in (lambda: read_split_list("toy.test"), lambda: find_listing(["toy.test"], None)):
        with pytest.raises(InputError) as caught:
            read()
        assert "github.com/somebody/Toy, lists/toy_test.txt at ccccccc" in caught.value.remedy
        assert str(lists / "toy.test.txt") in caught.value.remedy
        assert "deixis data lists --fetch toy.test" in caught.value.remedy
    with pytest.raises(UsageError, match=r"list 'toy\.tset': is unknown; use one of toy\.test"):
        read_split_list("toy.tset")


def test_a_list_of_ones_own_says_so(lists, tmp_path):
    own = tmp_path / "mine.txt"
    own.write_text(TEXT.splitlines()[0])
    listing = find_listing(["toy.test"], own)
    assert listing.published is None
    assert listing.own == str(own)
    assert len(listing.samples) == 1


def test_an_own_list_may_begin_with_a_byte_order_mark(lists, tmp_path):
    own = tmp_path / "mine.txt"
    own.write_text("\ufeff" + TEXT, encoding="utf-8")
    assert find_listing(["toy.test"], own).samples[0][0] == "a/1.png"


def test_an_own_list_names_each_sample_once(lists, tmp_path):
    own = tmp_path / "mine.txt"
    own.write_text(TEXT + TEXT.splitlines()[0])
    with pytest.raises(InputError, match=r"mine\.txt: names 'a/1\.png' twice; leave each sample on one line"):
        find_listing(["toy.test"], own)


def test_the_published_list_under_any_name_is_recognised(lists, tmp_path):
    copy = tmp_path / "mine.txt"
    copy.write_text(TEXT)
    assert find_listing(["toy.test"], copy).own is None


@pytest.mark.parametrize("name", ["toy_test.txt", "toy.test.txt"])
def test_what_is_called_like_the_published_list_must_be_it(lists, tmp_path, name):
    (tmp_path / name).write_text(TEXT + "a/4.png d/4.png\n")
    with pytest.raises(InputError, match=r"4 lines .* where 3 lines .*; copy it again; if it is a list of your own"):
        find_listing(["toy.test"], tmp_path / name)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"a/1.png\n", "line 1 names a picture without a depth"), (b"\n", "names no sample"), (b"\xff\xfe", "is no text")],
)
def test_what_is_no_list_is_refused(lists, tmp_path, content, problem):
    (tmp_path / "mine.txt").write_bytes(content)
    with pytest.raises(InputError, match=problem):
        find_listing(["toy.test"], tmp_path / "mine.txt")
    with pytest.raises(InputError, match=r"gone\.txt: is not there"):
        find_listing(["toy.test"], tmp_path / "gone.txt")


def test_paths_stay_inside_the_root():
    assert inside("/bathroom/rgb_00045.jpg") == "bathroom/rgb_00045.jpg"
    assert inside("./bathroom//rgb_00045.jpg") == "bathroom/rgb_00045.jpg"  # as a tar's members are called
    with pytest.raises(UsageError, match="leads out"):
        inside("a/../../secret.png")


def test_a_list_is_fetched_when_asked_for(lists, host, run):
    host.write_text(TEXT)
    code, out, _ = run("--fetch", "toy.test")
    assert (code, out) == (0, f"{lists / 'toy.test.txt'}\n")
    assert (lists / "toy.test.txt").read_text() == TEXT
    code, out, _ = run("--fetch", "toy.test", "--out", lists / "new", "--json")
    assert code == 0
    assert json.loads(out)["file"] == str(lists / "new" / "toy.test.txt")
    assert (lists / "new" / "toy.test.txt").read_text() == TEXT


def test_what_is_not_the_list_is_not_kept(lists, host, run):
    host.write_text("<html>moved</html>")
    code, _, err = run("--fetch", "toy.test")
    assert code == 2
    assert "is not the published list toy.test: 1 lines" in err
    host.unlink()
    code, _, err = run("--fetch", "toy.test")
    assert code == 2
    assert "cannot be fetched (HTTP Error 404: File not found)" in err
    assert list(lists.iterdir()) == []


def test_nothing_is_fetched_unasked(lists, host):
    host.write_text(TEXT)
    with pytest.raises(InputError, match="is not in"):
        find_listing(["toy.test"], None)


def test_an_unreachable_host_is_told(lists, monkeypatch):
    monkeypatch.setattr(splits, "HOST", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"cannot be fetched .*; connect to the internet, or copy it by hand to"):
        fetch_list("toy.test", lists)


def test_the_command_tells_which_lists_are_here(lists, run):
    code, out, err = run()
    assert code == 0
    assert out == f"toy.test\t3\t{KNOWN.sha256}\t{KNOWN.source}\tnot here\n"
    assert str(lists) in err
    (lists / "toy.test.txt").write_text(TEXT)
    code, out, _ = run("--json")
    assert code == 0
    assert [one["file"] for one in json.loads(out)] == [str(lists / "toy.test.txt")]
    code, _, err = run("--out", lists)
    assert code == 2
    assert "--out: goes with --fetch" in err
