"""Lines read by Arrow and one by one: the same, and the first wrong line is named."""

import gzip

import pyarrow as pa
import pytest

from kvprefix.files.arrow_lines import Fault, LineReader, read_fast, read_lines_of, read_slowly
from kvprefix.files.paths import InputError


class Numbers(LineReader):
    """Adds the numbers `n` of all lines; one below 0 is wrong."""

    schema, expected, ways = pa.schema({"n": pa.int64()}), 'a line is {"n": number}', ()

    def from_batches(self, batches):
        self.ways += ("fast",)
        numbers = [one for batch in batches for one in batch["n"].to_pylist()]
        return None if None in numbers or min(numbers) < 0 else sum(numbers)

    def from_objects(self, objects):
        self.ways += ("slow",)
        total = 0
        for record in objects:
            if not isinstance(record.get("n"), int) or record["n"] < 0:
                raise Fault("has no n; expected one")
            total += record["n"]
        return total


def read(path, content):
    path.write_bytes(content)
    reader = Numbers()
    return read_lines_of(path, reader), reader.ways


def test_both_ways_give_the_same(tmp_path):
    content = b'{"n": 1}\n\n{"n": 2, "x": [{}]}\n{"n": 40}'
    for packed in (content, gzip.compress(content)):
        assert read(tmp_path / "t", packed) == (43, ("fast",))
        assert read_fast(tmp_path / "t", Numbers()) == read_slowly(tmp_path / "t", Numbers()) == 43
    assert read(tmp_path / "t", content + b'\n{"n": 7, "x": "\\ud800"}') == (50, ("slow",))
    assert read(tmp_path / "t", b'{"n": 0}') == (0, ("fast",))  # a result that is false is one


def test_what_the_reader_refuses_is_read_again(tmp_path):
    class Shy(Numbers):
        def from_batches(self, batches):
            super().from_batches(batches)

    (tmp_path / "t").write_bytes(b'{"n": 5}')
    reader = Shy()
    assert read_lines_of(tmp_path / "t", reader) == 5 and reader.ways == ("fast", "slow")


def test_a_line_that_is_longer_than_what_arrow_takes_is_read(tmp_path):
    content = b'{"n": 1}\n{"n": 2, "x": "%s"}\n' % (b"a" * (10 << 20))
    total, ways = read(tmp_path / "t", content)
    assert total == 3 and ways[-1] == "slow"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"n": 1}\n\n{"n": -1}\n{', "line 3 has no n; expected one"),
        (b'{"n": 1}\n{"m": 1}\n', "line 2 has no n"),
        (b'{"n": 1}\n\n\n{\n', "line 4 is not JSON"),
        (b'{"n": 1}\n[]\n', r"line 2 is no JSON object; a line is \{"),
        (b" \n\n", r"holds no requests; a line is \{"),
        (gzip.compress(b'{"n": 1}\n' * 9, mtime=0)[:-9], "is cut or damaged after line [0-9]"),
    ],
)
def test_the_first_wrong_line_is_named(tmp_path, content, said):
    with pytest.raises(InputError, match=f"{tmp_path}/t: {said}"):
        read(tmp_path / "t", content)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="none: No such file"):
        read_lines_of(tmp_path / "none", Numbers())
