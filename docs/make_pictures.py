"""Makes the pictures of the documentation: python docs/make_pictures.py [NAME ...]; without names, all of them.

Only photographs inside scikit-image and generated scenes are used. A picture whose checkpoint or browser is not on this
machine is left as it is, and the reason is printed.
"""
from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import skimage.data  # noqa: E402
from PIL import Image  # noqa: E402

from frozenmm.compat.files import write_whole  # noqa: E402

OUT = ROOT / 'docs' / 'pictures'
LARGEST = 150_000
PHOTOGRAPHS = {
    'chelsea.png': 'tabby cat|cat, wall',
    'coffee.png': 'coffee cup|cup|espresso, spoon, wooden table|table',
    'astronaut.png': 'space suit|astronaut, space shuttle|rocket, flag',
    'motorcycle_left.png': 'motorcycle|motor scooter, garage door, floor',
    'rocket.jpg': 'rocket launch|missile|rocket, lightning rod|tower, sky',
}
"""Photograph -> free words, synonyms joined by |; no photograph was used in training."""


def save(name: str, pixels: np.ndarray, *, width: int = 960) -> None:
    """Write a picture as JPEG of at most this width."""
    picture = Image.fromarray(pixels).convert('RGB')
    if picture.width > width:
        picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
    write_whole(OUT / f'{name}.jpg', jpeg(np.asarray(picture)))


def jpeg(pixels: np.ndarray) -> bytes:
    """The best JPEG of at most `LARGEST` bytes."""
    for quality in (90, 85, 80, 70, 60):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, 'JPEG', quality=quality, optimize=True)
        if buffer.tell() <= LARGEST:
            break
    return buffer.getvalue()


def scenes() -> list[np.ndarray]:
    """Four test images of the generated scenes."""
    from frozenmm.demo.scenes import SceneSettings, write_scenes
    with tempfile.TemporaryDirectory() as folder:
        write_scenes(folder, SceneSettings(train=1, val=4))
        return [np.asarray(Image.open(path).convert('RGB')) for path in sorted(Path(folder).glob('images/val/*.jpg'))]


def side_by_side(pictures: list[np.ndarray], *, height: int = 420) -> np.ndarray:
    """Pictures in a row, at one height, with white between them."""
    resized = [np.asarray(Image.fromarray(picture).resize((round(picture.shape[1] * height / picture.shape[0]), height),
                                                          Image.Resampling.LANCZOS)) for picture in pictures]
    gap = np.full((height, 8, 3), 255, np.uint8)
    return np.concatenate([part for picture in resized for part in (picture, gap)][:-1], 1)


def rows_of(pictures: list[np.ndarray], count: int) -> np.ndarray:
    """Pictures in rows of `count`, with white between and after them."""
    rows = [side_by_side(pictures[start:start + count]) for start in range(0, len(pictures), count)]
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 8), (0, width - row.shape[1]), (0, 0)), constant_values=255)
                           for row in rows])


def words() -> None:
    """Segments of free words on photographs."""
    from frozenmm.apis import inferencer
    from frozenmm.apis.vocabulary_text import typed_vocabulary
    from frozenmm.compat.image_sources import NamedImage
    from frozenmm.demo.scenes.photographs import photograph
    chosen = inferencer('open-vocabulary', ['cat'])
    drawn = []
    for file, text in PHOTOGRAPHS.items():
        chosen.set_vocabulary(typed_vocabulary(text))
        image = NamedImage(Path(file).stem, photograph(file)[..., ::-1])
        drawn.append(chosen.draw(image, chosen.predict([image])[0]))
    save('open_vocabulary', rows_of(drawn, 3), width=1500)


def fusioner() -> None:
    """A semantic map for each of four scenes."""
    from frozenmm.apis import inferencer
    from frozenmm.compat.image_sources import NamedImage
    chosen = inferencer('semantic', ['cat', 'shuttle', 'face', 'motorcycle', 'retina', 'coin'])
    images = [NamedImage('a', pixels) for pixels in scenes()]
    save('fusioner', side_by_side([chosen.draw(image, chosen.predict([image])[0]) for image in images]), width=1500)


def detection() -> None:
    """Boxes on four scenes."""
    from frozenmm.apis import inferencer
    from frozenmm.compat.image_sources import NamedImage
    chosen = inferencer('detection')
    images = [NamedImage('a', pixels) for pixels in scenes()]
    save('detection', side_by_side([chosen.draw(image, chosen.predict([image])[0], min_score=0.3) for image in images]))


def enhancer() -> None:
    """The quickstart's rows side by side on two test images, from the last `make train`."""
    from frozenmm.demo.quickstart import ROWS
    sheets = sorted(ROOT.glob('work_dirs/quickstart/*/pictures/val_0000[06].png'), key=os.path.getmtime)[-2:]
    if len(sheets) < 2:
        raise FileNotFoundError(f'no predictions of the {len(ROWS)} rows below work_dirs/quickstart; run `make train`')
    save('enhancer', np.concatenate([np.asarray(Image.open(path).convert('RGB')) for path in sheets]), width=1400)


def proposals() -> None:
    """Automatic masks of the stand-in for SAM on two photographs, the largest ones behind the smaller ones."""
    from frozenmm.apis.sam_mask_preparation import DEMO_OPTIONS, build_prompter
    from frozenmm.demo.scenes.photographs import photograph
    from frozenmm.segmentation.frozen_seg.automatic_masks import AutomaticMasks
    from frozenmm.visualization.detections import spread_palette
    from frozenmm.visualization.segments import Region, draw_segments
    generate = AutomaticMasks(build_prompter('demo'), **DEMO_OPTIONS)
    drawn = []
    for file in ('coffee.png', 'motorcycle_left.png'):
        image = photograph(file)[..., ::-1]
        masks = (generate(image).largest().full() > 0).numpy()
        ids = np.zeros(image.shape[:2], np.int64)
        for number, mask in enumerate(masks, 1):
            ids[mask] = number
        palette = [spread_palette(len(masks))[(7 * number) % len(masks)] for number in range(len(masks))]
        drawn.append(draw_segments(image, ids, [Region(number + 1, number) for number in range(len(masks))],
                                   [str(number + 1) for number in range(len(masks))], palette=palette, legend=False))
    save('proposals', side_by_side(drawn), width=1400)


def reconstruction() -> None:
    """The report of a generated room whose depth was distorted as a frozen network would."""
    from frozenmm.demo.rooms.clip import RoomSettings, distort_depth, render_room
    from frozenmm.reconstruction.command import reconstruct_from
    room = render_room(RoomSettings(frames=10, size=(180, 240), seed=1))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / 'frames').mkdir()
        for index, image in enumerate(room.images):
            Image.fromarray(image).save(folder / 'frames' / f'{index:03d}.png')
        np.savez(folder / 'depth.npz', depth=distort_depth(room.depth))
        os.chdir(folder)  # the title of the report is the source as it was given
        reconstruct_from('frames', 'out', depth='depth.npz', options=dict(mesh=False))
        save('reconstruction', np.asarray(Image.open('out/report.png').convert('RGB')), width=1200)
        os.chdir(ROOT)


def data() -> None:
    """Four training images of the quickstart, as its pipeline gives them."""
    from frozenmm.engine.browsing import browse
    from frozenmm.engine.launch import load_config
    with tempfile.TemporaryDirectory() as name:
        cfg = load_config(ROOT / 'configs/quickstart/dino_scratch_scenes.py')
        cfg.train_dataloader.dataset.data_root = f'{name}/scenes'
        paths = list(browse(cfg, Path(name, 'out'), count=4))
        save('data', side_by_side([np.asarray(Image.open(path)) for path in paths]))


def demo() -> None:
    """A screenshot of the web demo after a picture was worked on."""
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    from frozenmm.demo.offers import load_inferencers
    from frozenmm.demo.page import serve
    page, address = serve(load_inferencers(), block=False)
    options = webdriver.ChromeOptions()
    for argument in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--window-size=1200,1350'):
        options.add_argument(argument)
    options.binary_location = shutil.which('chromium') or ''
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which('chromedriver')))
    try:
        with tempfile.TemporaryDirectory() as folder:
            scene = Path(folder, 'scene.png')
            Image.fromarray(skimage.data.astronaut()).save(scene)
            browser.get(address)
            wait = WebDriverWait(browser, 180)
            wait.until(lambda b: b.find_elements('css selector', '#file-0 input[type=file]'))[0].send_keys(str(scene))
            wait.until(lambda b: 'scene' in b.find_element('css selector', '#file-0').text)
            for box in browser.find_elements('css selector', '#words-0 textarea'):
                box.send_keys(PHOTOGRAPHS['astronaut.png'])
            browser.execute_script('document.querySelector("#run-0").click()')
            wait.until(lambda b: b.find_elements('css selector', '#picture-0 img'))
            time.sleep(2)  # let the picture be painted
            browser.save_screenshot(str(Path(folder, 'shot.png')))
            write_whole(OUT / 'demo.png', Path(folder, 'shot.png').read_bytes())
    finally:
        browser.quit()
        page.close()


def depth() -> None:
    """A photograph and a frame of a generated room beside their depth."""
    from frozenmm.apis import inferencer
    from frozenmm.compat.image_sources import NamedImage
    from frozenmm.demo.rooms.clip import RoomSettings, render_room
    chosen = inferencer('depth')
    room = render_room(RoomSettings(frames=2, size=(240, 320), seed=4)).images[0]
    drawn = []
    for pixels in (room, skimage.data.coffee()):
        image = NamedImage('a', pixels)
        drawn.append(chosen.draw(image, chosen.predict([image])[0]))
    save('depth', side_by_side(drawn, height=300), width=1400)


PICTURES = {
    'enhancer': enhancer, 'detection': detection, 'proposals': proposals, 'data': data,
    'reconstruction': reconstruction, 'depth': depth, 'demo': demo,
    'open_vocabulary': words, 'fusioner': fusioner,
}


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('names', nargs='*', choices=[*PICTURES, []], default=[])
    for name in parser.parse_args().names or PICTURES:
        try:
            PICTURES[name]()
        except (FileNotFoundError, ImportError) as error:
            print(f'{name}: left as it is: {error}')
        else:
            print(f'{name}: made')


if __name__ == '__main__':
    main()
