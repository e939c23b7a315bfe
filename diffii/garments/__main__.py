"""`python -m diffii.garments FOLDER --shots 5`: the embedded data set as a folder of labelled PNG files."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffii.garments.data import export_pool


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m diffii.garments", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the class folders go")
    parser.add_argument("--shots", type=int, default=5, help="images per class, 1 to 100")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other photos and contexts")
    options = parser.parse_args(arguments)
    try:
        count = export_pool(options.folder, options.shots, options.seed)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{count} images in {options.folder}")


if __name__ == "__main__":
    main()
