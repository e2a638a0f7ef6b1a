"""The page itself, in gradio."""
from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from frozenmm.apis.base import Inferencer
from frozenmm.compat import require
from frozenmm.demo.limits import MAX_BYTES, Refused
from frozenmm.demo.offers import Offers

_INTRODUCTION = ('# frozenmm\n\nFrozen foundation models with small trained parts. The models here are small and for '
                 'demonstration; pictures stay on this machine.')
_FONTS = ['system-ui', 'sans-serif']  # gradio's own would be fetched from a font server


def build_page(offers: Offers) -> Any:
    """A gradio page with a tab per offer."""
    gradio = require('gradio', 'the web demo')
    with gradio.Blocks(title='frozenmm', analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gradio.Markdown(_INTRODUCTION)
        with gradio.Tabs():
            for number, title in enumerate(offers.inferencers):
                with gradio.Tab(title, elem_id=f'tab-{number}'):
                    _tab(gradio, offers, title, number)
    return page


def _tab(gradio: Any, offers: Offers, title: str, number: int) -> None:
    takes_words = offers.takes_words(title)

    def respond(path: str | None, words: str, min_score: float) -> tuple[np.ndarray | None, str, list[str] | None]:
        try:
            outcome = offers.run(title, path, words, min_score)
        except Refused as error:
            return None, f'**{error}**', None
        return outcome.picture, outcome.text, outcome.files

    with gradio.Row():
        with gradio.Column(scale=1):
            file = gradio.File(label='Picture (JPEG, PNG, WebP)', type='filepath', elem_id=f'file-{number}', height=120)
            words = gradio.Textbox(label='Words: commas between classes, | between synonyms', lines=2,
                                   placeholder='cat|kitten, red mug|mug, keyboard', visible=takes_words,
                                   elem_id=f'words-{number}')
            score = gradio.Slider(0, 1, value=0.3 if not takes_words else 0.0, step=0.05, label='Smallest score drawn',
                                  elem_id=f'score-{number}')
            button = gradio.Button('Run', variant='primary', elem_id=f'run-{number}')
        with gradio.Column(scale=2):
            picture = gradio.Image(label='Result', interactive=False, elem_id=f'picture-{number}', format='png')
            message = gradio.Markdown(elem_id=f'message-{number}')
            files = gradio.File(label='Download', file_count='multiple', interactive=False,
                                elem_id=f'downloads-{number}')
    button.click(respond, [file, words, score], [picture, message, files], concurrency_limit=1,
                 api_visibility='private')


def serve(inferencers: Mapping[str, Inferencer], *, host: str = '127.0.0.1', port: int | None = None,
          block: bool = True) -> tuple[Any, str]:
    """Serve the page.

    Uploads, results and gradio's own cache lie in one temporary folder, which is removed when serving ends.

    Args:
        inferencers: by title.
        host: address to listen on; only this machine can reach the default.
        port: number; the first free one from 7860 on by default.
        block: until interrupted.

    Returns:
        The page (`close()` ends it) and its address.

    Raises:
        OSError: the port is taken.
    """
    folder = Path(tempfile.mkdtemp(prefix='frozenmm-demo-'))
    os.environ['GRADIO_TEMP_DIR'] = str(folder / 'uploads')
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
    gradio = require('gradio', 'the web demo')
    page = build_page(Offers(inferencers, folder))
    try:
        _, address, _ = page.launch(
            server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True,
            max_file_size=MAX_BYTES, footer_links=[], ssr_mode=False, enable_monitoring=False,
            theme=gradio.themes.Default(font=_FONTS, font_mono=['monospace']))
        if block:
            print(f'the demo is at {address} (Ctrl-C ends it)', flush=True)
            page.block_thread()
    finally:
        if block or not page.is_running:
            shutil.rmtree(folder, ignore_errors=True)
    return page, address
