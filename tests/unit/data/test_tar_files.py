"""Tar files read in place: layouts, the kept index, damage, and shards at a URL."""

from __future__ import annotations

import http.server
import io
import json
import os
import resource
import shutil
import subprocess
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mudit.data import open_dataset
from mudit.errors import DataError, EnvironmentFailure, UsageError

COUNT = 6


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """An empty cache folder for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MUDIT_CACHE", str(folder))
    return folder


def png(number: int) -> bytes:
    """A picture whose red says which."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (40 * number, 0, 9)).save(stream, "PNG")
    return stream.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]], **options) -> Path:
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def samples(count: int = COUNT) -> list[tuple[str, bytes]]:
    pairs = [((f"{n}.png", png(n)), (f"{n}.txt", f"number {n}".encode())) for n in range(count)]
    return [member for pair in pairs for member in pair]


def numbers(splits) -> dict[str, int]:
    """Which picture each caption has."""
    found = {}
    for part in (splits.train, splits.validation):
        images, labels = part.batch(np.arange(part.num_samples))
        for image, label in zip(images, labels.tolist()):
            found[part.class_names[label]] = round((float(image[0, 0, 0]) + 1) * 127.5 / 40)
    return found


EXPECTED = {f"number {n}": n for n in range(COUNT)}


def opened(path: Path, kind: str = "captions", **options):
    return open_dataset(f"{kind}:{path}", size=8, **options)


# --- layouts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["captions", "shards"])
def test_images_need_not_lie_beside_their_texts(tmp_path, kind):
    members = samples()
    apart = members[::2] + members[1::2][::-1]
    assert numbers(opened(write_tar(tmp_path / "a.tar", apart), kind)) == EXPECTED


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar command")
@pytest.mark.parametrize("layout", ["ustar", "gnu", "pax"])
def test_what_the_tar_command_packs_in_sa_1bs_layout(tmp_path, layout):
    folder = tmp_path / "in"
    deep = folder / ("d" * 90) / ("e" * 40)  # longer than the 100 characters of the first tars
    deep.mkdir(parents=True)
    for n in range(COUNT):
        place = deep if n % 2 else folder
        (place / f"sa_{n}.png").write_bytes(png(n))
        facts = {"image": {"image_id": n}, "annotations": [{"x": "0" * 9000}]}
        (place / f"sa_{n}.json").write_text(json.dumps(facts | {"caption": f"number {n}"}))
    path = tmp_path / "sa_000000.tar"
    subprocess.run(["tar", f"--format={layout}", "-cf", path, "-C", folder, "."], check=True)
    assert numbers(opened(path)) == EXPECTED


def test_dots_in_names_are_read_as_each_layout_has_them(tmp_path):
    # WebDataset: one sample with two images, of which .png counts. Files: a sample for each.
    members = []
    for n in range(COUNT):
        members += [(f"{n}.png", png(n)), (f"{n}.txt", f"number {n}".encode())]
        members += [(f"{n}.seg.png", png(0)), (f"{n}.seg.txt", f"mask {n}".encode())]
    path = write_tar(tmp_path / "a.tar", members)
    assert numbers(opened(path, "shards")) == EXPECTED
    assert numbers(opened(path)) == EXPECTED | {f"mask {n}": 0 for n in range(COUNT)}


def test_each_image_whose_name_has_a_dot_too_many_is_counted(tmp_path):
    members = [(f"s.v1.{name}", content) for name, content in samples(40)]
    path = write_tar(tmp_path / "a.tar", [*samples(), *members])
    with pytest.raises(DataError, match=r"40 of the 46 rows .*member s\.v1\.0\.png: read as \.v1"):
        opened(path, "shards", most_skipped=0.8)
    splits = opened(path, "shards", most_skipped=0.9)
    assert splits.skipped.count == 40
    assert numbers(splits) == EXPECTED
    assert opened(path).skipped.count == 0, "captions: reads names as a file system does"


def test_hidden_and_other_members_are_passed_over(tmp_path):
    more = [("._0.png", b"mac"), ("__meta__.json", b"{}"), ("0.cls", b"3"), ("notes.md", b"x")]
    splits = opened(write_tar(tmp_path / "a.tar", samples() + more))
    assert numbers(splits) == EXPECTED
    assert splits.skipped.count == 0


def test_a_text_goes_before_a_json_and_either_may_do(tmp_path):
    other = json.dumps({"caption": "other"}).encode()
    members = [*samples(2), ("0.json", other), ("1.json", b"{broken")]
    members += [
        ("2.png", png(2)),
        ("2.json", other.replace(b"other", b"number 2")),
        ("2.txt", b" "),
    ]
    assert numbers(opened(write_tar(tmp_path / "a.tar", sorted(members)))) == {
        f"number {n}": n for n in range(3)
    }


def test_members_that_are_no_plain_files_are_malformed(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples())
    with tarfile.open(path, "a") as tar:
        for number, kind in enumerate((tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(f"x{number}.png")
            info.type, info.linkname = kind, "0.png"
            tar.addfile(info)
    splits = opened(path, most_skipped=0.5)
    assert numbers(splits) == EXPECTED
    assert splits.skipped.count == 3
    assert all("no plain file" in text for text in splits.skipped.examples)


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (("x.png", b""), "the image x.png is empty"),
        (("x.txt", b" " * (1 << 24) + b"x"), "has more than 16777216 bytes"),
        (("x.json", b"[" * 200_000), r"x.json cannot be read (RecursionError)"),
        (("x.json", b'{"caption": "\\ud800"}'), "the caption is not Unicode"),
    ],
)
def test_what_would_break_a_reader_is_malformed(tmp_path, member, words):
    sample = {"x.png": png(0), "x.txt": b""} | dict([member])
    splits = opened(write_tar(tmp_path / "a.tar", [*samples(), *sample.items()]), most_skipped=0.5)
    assert numbers(splits) == EXPECTED
    (text,) = splits.skipped.examples
    assert words in text


# --- damage ---------------------------------------------------------------------------------------


def test_a_truncated_tar_is_named(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples())
    content = path.read_bytes()
    last = 512 * 2 * (2 * COUNT - 1)  # the header of the last text
    for end in (0, 100, last + 300, last + 512):
        path.write_bytes(content[:end])
        with pytest.raises(DataError, match=r"cannot read the tar file .*a\.tar.*complete"):
            opened(path)


def test_a_damaged_header_does_not_pass_for_the_end(tmp_path):
    # Python's tarfile takes it for the end without a word.
    path = write_tar(tmp_path / "a.tar", samples())
    content = bytearray(path.read_bytes())
    content[512 * 2 * 6 + 150] ^= 1  # the checksum of the seventh member
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar .*at byte 6144"):
        opened(path)


def test_a_tar_without_its_last_zeros_is_read(tmp_path):
    # Some writers leave them out; nothing of the data is lost.
    path = write_tar(tmp_path / "a.tar", samples())
    path.write_bytes(path.read_bytes()[: 512 * 2 * 2 * COUNT])
    assert numbers(opened(path)) == EXPECTED


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_tars_joined_end_to_end_are_all_read(tmp_path, layout):
    # cat a.tar b.tar c.tar > all.tar
    parts = [
        write_tar(tmp_path / f"part{n}", samples()[4 * n : 4 * n + 4], format=layout).read_bytes()
        for n in range(3)
    ]
    (tmp_path / "all.tar").write_bytes(b"".join(parts))
    assert numbers(opened(tmp_path / "all.tar")) == EXPECTED


def test_joined_tars_may_repeat_names(tmp_path):
    parts = [
        write_tar(tmp_path / f"part{n}", [("0.png", png(n)), ("0.txt", f"number {n}".encode())])
        for n in range(COUNT)
    ]
    (tmp_path / "all.tar").write_bytes(b"".join(part.read_bytes() for part in parts))
    assert numbers(opened(tmp_path / "all.tar")) == EXPECTED


def test_what_follows_the_end_and_is_no_tar_is_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples())
    content = path.read_bytes()
    joined = bytearray(2 * content)
    joined[len(content) + 150] ^= 1  # the checksum of the second tar's first header
    cut = content + content[:300]
    zeroed = bytearray(content)
    zeroed[512 * 2 * 6 : 512 * 2 * 6 + 512] = bytes(512)  # a header that looks like an end
    end = len(content)
    for damaged, place in ((joined, end), (cut, end), (content + b"x", end), (zeroed, 6656)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"a\.tar .*at byte {place}"):
            opened(path)


def test_damage_anywhere_is_an_error_of_ours_or_none(tmp_path):
    content = write_tar(tmp_path / "a.tar", samples(), format=tarfile.PAX_FORMAT).read_bytes()
    rng = np.random.default_rng(0)
    refused = []
    for trial in range(150):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[rng.integers(0, len(damaged), 8)] = rng.integers(0, 256, 8)
        path = tmp_path / f"{trial}.tar"
        path.write_bytes(damaged.tobytes())
        try:
            numbers(opened(path, most_skipped=1))
        except DataError as error:
            refused.append(path.name in str(error))
    assert all(refused), "the file is named"
    assert len(refused) > 20, "a check that sees no damage says nothing"


def test_an_image_that_is_damaged_inside_a_tar_is_named_with_its_member(tmp_path):
    members = samples()
    members[4] = ("2.png", png(2)[:50])
    splits = opened(write_tar(tmp_path / "a.tar", members))
    with pytest.raises(DataError, match=r"a\.tar, member 2\.png.*Replace or remove it"):
        numbers(splits)


def test_a_tar_that_has_gone_is_named(tmp_path):
    splits = opened(write_tar(tmp_path / "a.tar", samples()))
    (tmp_path / "a.tar").unlink()
    with pytest.raises(DataError, match=r"cannot read the tar file .*a\.tar.*Restore it"):
        numbers(splits)


# --- the kept index -------------------------------------------------------------------------------


def test_a_tar_is_read_from_end_to_end_once(tmp_path, cache):
    path = write_tar(tmp_path / "a.tar", [*samples(), ("x.png", png(0)), ("../y.png", png(0))])
    first = opened(path, most_skipped=0.5)
    (index,) = (cache / "indices").iterdir()
    facts = path.stat()
    content = path.read_bytes()
    path.write_bytes(b"\xff" * len(content))  # no tar file any more, of the same size and time
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    second = opened(path, most_skipped=0.5)
    assert second.fingerprint == first.fingerprint
    assert second.skipped == first.skipped
    assert second.skipped.count == 2
    os.utime(path)  # changed: the index is not believed
    with pytest.raises(DataError, match="cannot read the tar file"):
        opened(path)
    assert index.exists()


def test_the_two_layouts_have_indices_of_their_own(tmp_path, cache):
    path = write_tar(tmp_path / "a.tar", samples())
    opened(path)
    opened(path, "shards")
    assert len(list((cache / "indices").iterdir())) == 2


def test_nothing_half_read_is_kept(tmp_path, cache):
    path = write_tar(tmp_path / "a.tar", samples())
    path.write_bytes(path.read_bytes()[:3000])
    for _ in range(2):
        with pytest.raises(DataError, match="cannot read the tar file"):
            opened(path)
    assert not list((cache / "indices").iterdir())


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MUDIT_CACHE", str(tmp_path / "file"))
    assert numbers(opened(write_tar(tmp_path / "a.tar", samples()))) == EXPECTED


def test_a_disk_that_is_full_is_done_without(tmp_path, cache):
    path = write_tar(tmp_path / "a.tar", samples())
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    try:
        splits = opened(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert numbers(splits) == EXPECTED
    assert not list((cache / "indices").iterdir())


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [],
        lambda lines: lines[:-1],  # no end
        lambda lines: lines[:3],
        lambda lines: [*lines[:2], lines[2][:5]],
        lambda lines: lines[:2] + lines[3:],  # a row is lost
        lambda lines: lines[-1:],
        lambda lines: [lines[0].replace("number 0", "number 7"), *lines[1:]],
    ],
)
def test_an_index_that_is_not_whole_is_made_again(tmp_path, cache, damage):
    path = write_tar(tmp_path / "a.tar", samples())
    opened(path)
    (index,) = (cache / "indices").iterdir()
    whole = index.read_text()
    assert len(whole.splitlines()) == COUNT + 1
    index.write_text("".join(damage(whole.splitlines(keepends=True))))
    assert numbers(opened(path)) == EXPECTED
    assert index.read_text() == whole


# --- patterns and URLs ----------------------------------------------------------------------------


def test_a_pattern_names_tars_in_order_and_a_missing_one_is_told(tmp_path):
    for n in range(3):
        write_tar(tmp_path / f"part-{n:02}.tar", samples()[4 * n : 4 * n + 4])
    splits = opened(tmp_path / "part-{00..02}.tar", "shards")
    assert list(splits.train.class_names) == [f"number {n}" for n in range(COUNT)]
    assert numbers(opened(tmp_path / "part-??.tar", "shards")) == EXPECTED
    with pytest.raises(DataError, match=r"no file matches .*part-03\.tar"):
        opened(tmp_path / "part-{00..03}.tar", "shards")
    with pytest.raises(DataError, match="braces that cannot be read"):
        opened(tmp_path / "{a,b", "shards")


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder; `asked` is what has been, `limit` cuts answers short."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        self.limit: int | None = None
        outer = self

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                place = folder / Path(self.path.partition("?")[0]).name
                if not place.exists():
                    self.send_error(404)
                    return
                content = place.read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: outer.limit])

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Answer)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    with Server(folder) as server:
        write_tar(folder / "a-0.tar", samples()[:6])
        write_tar(folder / "a-1.tar", samples()[6:])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_shards_at_a_url_are_fetched_once(server):
    spec = f"shards:{server.url}/x/a-{{0..1}}.tar"
    assert numbers(open_dataset(spec, size=8)) == EXPECTED
    assert numbers(open_dataset(spec, size=8)) == EXPECTED
    assert server.asked == ["/x/a-0.tar", "/x/a-1.tar"]


def test_nothing_is_fetched_before_options_are_right(server):
    with pytest.raises(UsageError, match="no size was given"):
        open_dataset(f"shards:{server.url}/a-0.tar")
    assert not server.asked


def test_a_connection_that_breaks_off_leaves_nothing(server, cache):
    server.limit = 2000
    with pytest.raises(EnvironmentFailure, match="broke off after 2000 of"):
        open_dataset(f"shards:{server.url}/a-0.tar", size=8)
    assert not [path for path in cache.rglob("*") if path.is_file()]
    server.limit = None
    assert numbers(open_dataset(f"shards:{server.url}/a-0.tar", size=8))


@pytest.mark.parametrize("url", ["{}/none.tar?key=secret", "s3://me:secret@bucket/a.tar"])
def test_a_url_that_does_not_answer_is_explained_without_its_secrets(server, url):
    with pytest.raises(EnvironmentFailure, match=r"cannot fetch .*local path") as caught:
        open_dataset(f"shards:{url.format(server.url)}", size=8)
    assert "secret" not in str(caught.value)
