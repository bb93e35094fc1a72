"""Measure time and memory over the number of conversations: `python lib/benchmarks/scale.py [--sizes N,N]`.

The data is the bundled part of ShareGPT, repeated: each copy has ids of its own and a mark before each message, so that
no block but those of the template's first tokens is shared between copies. Two steps are measured for each size, each
a process of its own: tokenising (`prepare`, nothing cached), and all that comes after it (`run`, from the tokenised
parts: joining them, both modes, all files and figures). Memory is the peak over the whole process tree, also of
anonymous and of file-backed pages alone; the system takes back the latter when it needs room. Linux only.

The full ShareGPT V3 has 94,145 conversations, the default sizes are a quarter, a half and all of that. Ten times as
many need 60 GB of disk and hours:

    python lib/benchmarks/scale.py --sizes 941450 --folder /path/with/room
"""

import argparse
import json
import shutil
import tempfile
from itertools import count
from pathlib import Path

from run import KVPREFIX, run
from tqdm import tqdm

from kvprefix.conversations.load import locate_data
from kvprefix.conversations.readers import read_records

FULL = 94_145
BUNDLED = 17_395  # usable conversations of the bundled part


def main():
    """Measure every size and print (and write) the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default=f"{FULL // 4},{FULL // 2},{FULL}", help="conversations (%(default)s)")
    parser.add_argument("--folder", type=Path, help="for data and results; removed again (default: a temporary one)")
    parser.add_argument("--output", type=Path, help="also write the table here")
    parser.add_argument("--keep", action="store_true", help="keep data and results")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kvprefix-scale-"))
    lines = []
    for line in measure_sizes([int(size) for size in options.sizes.split(",")], folder, options.keep):
        print(line, flush=True)
        lines.append(line)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text("\n".join(lines) + "\n")


def measure_sizes(sizes, folder, keep):
    """Yield the lines of the table."""
    yield "| conversations | step | wall s | CPU s | CPU ms a conversation | peak MB | anonymous | file-backed |"
    yield "|--:|:--|--:|--:|--:|--:|--:|--:|"
    for n in sizes:
        here = folder / str(n)
        data = write_copies(here / "data.json", n)
        options = ["--data-path", str(data), "--max-conversations", str(n)]
        steps = {
            "tokenise": ["prepare", *options],
            "all after it": ["run", *options, "--output-dir", str(here / "out")],
        }
        for name, arguments in steps.items():
            for joined in here.glob("derived/tokens-*/joined-*"):
                shutil.rmtree(joined)  # joining the parts belongs to what comes after tokenising
            one = run([*KVPREFIX, *arguments], here / "derived")
            yield (
                f"| {n:,} | {name} | {one['wall_s']:.0f} | {one['cpu_s']:.0f} | {1e3 * one['cpu_s'] / n:.2f} | "
                f"{one['peak_mb']:,.0f} | {one['anonymous_mb']:,.0f} | {one['file_mb']:,.0f} |"
            )
        if not keep:
            shutil.rmtree(here)


def write_copies(path, n):
    """Write a JSON array with at least n usable conversations: the bundled records, again and again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written, bar = 0, tqdm(desc="writing data", unit=" records", leave=False, disable=None)
    with open(path, "w", encoding="utf-8") as file, bar:
        for copy in count():
            for _, record in read_records(locate_data("bundled")):
                file.write(("[" if written == 0 else ",\n") + json.dumps(_mark(record, copy), ensure_ascii=False))
                written += 1
                bar.update()
            if (copy + 1) * BUNDLED >= n:
                break
        file.write("]\n")
    return path


def _mark(record, copy):
    """Return a record as a copy of its own: another id, other texts; copy 0 is the record as it was."""
    if not copy:
        return record
    messages = [{**m, "value": f"[{copy}] {m['value']}" if m["value"].strip() else ""} for m in record["conversations"]]
    return {**record, "id": f"{copy}-{record['id']}", "conversations": messages}


if __name__ == "__main__":
    main()
