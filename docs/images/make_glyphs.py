"""Draw docs/images/glyphs_alphabet.png: one alphabet of `warploom.tasks.glyphs`, rows = characters, columns = hands.

Run from the root of the repository: `python docs/images/make_glyphs.py`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from warploom.tasks.glyphs import LETTERS, draw, make_alphabet

CHARACTERS, HANDS, SIZE, SEED = 12, 10, 84, 4


def main() -> None:
    alphabet = make_alphabet(SEED, LETTERS, HANDS)
    chance = torch.Generator().manual_seed(SEED)
    ink_CDHW = draw(alphabet, torch.arange(CHARACTERS), torch.arange(HANDS), chance, SIZE)
    page = 1.0 - ink_CDHW.permute(0, 2, 1, 3).reshape(CHARACTERS * SIZE, HANDS * SIZE)
    target = Path(__file__).with_name("glyphs_alphabet.png")
    Image.fromarray((page * 255).round().to(torch.uint8).numpy()).save(target, optimize=True)


if __name__ == "__main__":
    main()
