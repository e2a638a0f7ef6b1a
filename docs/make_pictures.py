"""Draw the pictures of docs/images: photographs of scikit-image, segmented by words with the zoo's demonstration model.

    python docs/make_pictures.py [--model NAME] [--weights FILE] [--out FOLDER]
"""
from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from frozenmm.apis import OpenVocabularyInferencer  # noqa: E402
from frozenmm.apis.image_sources import NamedImage  # noqa: E402
from frozenmm.apis.vocabulary_text import parse_vocabulary  # noqa: E402
from frozenmm.compat.files import write_whole  # noqa: E402
from frozenmm.datasets.scenes.photographs import photograph  # noqa: E402

WORDS = {
    'chelsea.png': 'tabby cat|cat, wall',
    'coffee.png': 'coffee cup|cup|espresso, spoon, wooden table|table',
    'astronaut.png': 'space suit|astronaut, space shuttle|rocket, flag',
    'motorcycle_left.png': 'motorcycle|motor scooter, garage door, floor',
    'rocket.jpg': 'rocket launch|missile|rocket, lightning rod|tower, sky',
}
"""Photograph -> free words, synonyms joined by |; no photograph was used in training."""
LARGEST = 150_000


def jpeg(pixels: object) -> bytes:
    """The best JPEG below the size limit."""
    from PIL import Image
    for quality in (90, 85, 80, 70, 60):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, 'JPEG', quality=quality, optimize=True)
        if buffer.tell() <= LARGEST:
            break
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', default='open-vocabulary-mini', help='checkpoint of the zoo, or config')
    parser.add_argument('--weights', help='with a config')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs' / 'images')
    args = parser.parse_args()
    inferencer = OpenVocabularyInferencer(args.model, weights=args.weights, task='panoptic')
    for name, words in WORDS.items():
        inferencer.set_vocabulary(parse_vocabulary(words))
        pixels = photograph(name)[..., ::-1]
        image = NamedImage(Path(name).stem, pixels)
        sample, = inferencer.predict([image])
        write_whole(args.out / f'open_vocabulary_{image.name}.jpg', jpeg(inferencer.draw(image, sample)))
        print(f'{name}: {inferencer.summary(sample)}', flush=True)


if __name__ == '__main__':
    main()
