"""The metafiles: complete, true, and refused where they are not."""
from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from frozenmm.version import PROJECT_URL
from frozenmm.zoo import config_files, data_folder, fetch, model, read_index, read_models, tower_files
from frozenmm.zoo.models import read_models as read_from
from frozenmm_command import main


def zoo(*arguments):
    """Exit code of a command line."""
    with pytest.raises(SystemExit) as end:
        main('zoo', list(arguments))
    return end.value.code


def test_every_config_is_a_model_and_every_model_a_config(repo_root):
    listed = {repo_root / entry.config for entry in read_models().values()}
    assert listed == set(config_files().values())
    assert all(Path(entry.config).stem == name for name, entry in read_models().items())


def test_every_collection_states_licences_and_data(repo_root):
    for entry in read_models().values():
        assert entry.code_license and entry.data_terms, entry.name
        if entry.official is not None:
            assert all(vars(entry.official).values()), entry.name
            assert entry.official.commercial in ('yes', 'no', 'unclear')


def test_measured_results_have_their_evidence_and_published_ones_their_source(repo_root):
    rows = [row for entry in read_models().values() for row in entry.results]
    assert any(row.published for row in rows) and any(not row.published for row in rows)
    for row in rows:
        assert row.published or (repo_root / row.origin).is_file(), row


def test_published_numbers_of_a_readme_are_those_of_the_metafile(repo_root):
    """The first table of numbers in each README; a number that is in one place only is a mistake in the other."""
    for system in ('fc_clip', 'frozen_seg', 'frozen_detr'):
        text = (repo_root / f'configs/{system}/README.md').read_text()
        for name, entry in read_models().items():
            if entry.config.startswith(f'configs/{system}/') and any(row.published for row in entry.results):
                line = next(line for line in text.splitlines() if f'`{name}.py`' in line)
                numbers = {float(word) for word in re.findall(r'\d+\.\d', line)}
                stated = {value for row in entry.results if row.published for value in row.metrics.values()}
                assert numbers & stated == numbers, (name, numbers - stated)


def test_names_are_found_and_unknown_ones_answered():
    assert model('fc_clip_rn50_8xb2-369k_coco-panoptic.py').collection == 'FC-CLIP'
    with pytest.raises(ValueError, match='unknown model of the zoo .* did you mean one of'):
        model('fc_clip_rn51')


@pytest.mark.parametrize(('text', 'error', 'message'), [
    ('Import: [gone.yml]', FileNotFoundError, 'there is no .*gone.yml'),
    ('Import: [a.yml]', ValueError, 'in the collection .*which the file does not describe'),
    ('Import: [b.yml]', ValueError, 'must say Source: published or measured'),
    ('Import: [c.yml]', ValueError, 'c.yml cannot be read as a description of models'),
    ('Import: [d.yml]', ValueError, "lacks .'Config'"),
    ('- a', ValueError, 'must hold a mapping'),
])
def test_a_wrong_metafile_is_refused(tmp_path, text, error, message):
    (tmp_path / 'model-index.yml').write_text(text)
    (tmp_path / 'a.yml').write_text('Models: [{Name: x, In Collection: y, Config: z}]')
    (tmp_path / 'b.yml').write_text('Collections: [{Name: y}]\nModels: [{Name: x, In Collection: y, Config: z, '
                                    'Results: [{Task: t, Dataset: d, Metrics: {AP: 1}}]}]')
    (tmp_path / 'c.yml').write_text('a: [')
    (tmp_path / 'd.yml').write_text('Collections: [{Name: y}]\nModels: [{Name: x, In Collection: y}]')
    with pytest.raises(error, match=message):
        read_from(tmp_path)


def test_show_says_whose_numbers_these_are(capsys):
    assert zoo('show', 'fc_clip_convnext-l_8xb2-369k_coco-panoptic') == 0
    said = capsys.readouterr().out
    assert 'PQ 26.8' in said and 'published' in said and 'tools/convert.py fc_clip' in said


def test_towers_are_fetched_by_name_and_offline_the_answer_is_complete(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('FROZENMM_HOME', str(tmp_path))
    monkeypatch.setenv('FROZENMM_OFFLINE', '1')
    assert {'clip:ViT-L/14@336px', 'dinov2:dinov2_vitl14_reg', 'sam:vit_b', 'mobile_sam:vit_t'} <= set(tower_files())
    assert zoo('fetch', 'sam:vit_b') == 2
    said = capsys.readouterr().err
    assert '375 MB' in said and 'Apache-2.0' in said and str(tmp_path / 'weights' / 'sam_vit_b_01ec64.pth') in said
    (tmp_path / 'weights').mkdir(exist_ok=True)
    (tmp_path / 'weights' / 'sam_vit_b_01ec64.pth').write_bytes(b'x')
    assert fetch('SAM:vit-b').name == 'sam_vit_b_01ec64.pth'
    with pytest.raises(ValueError, match='unknown network'):
        fetch('yolo')


def test_configs_and_index_are_found(repo_root):
    assert data_folder() == repo_root
    assert 'dino_frozen_scenes' in config_files()


def test_mim_finds_the_weights_of_every_checkpoint_of_a_config():
    """`mim download` takes the address of `Weights`."""
    wanted = {entry.config: f'{PROJECT_URL}/raw/main/frozenmm/zoo/weights/{entry.file}'
              for entry in read_index().values() if entry.config and entry.file}
    found = {entry['Config']: entry['Weights'] for path in (data_folder() / 'configs').glob('*/metafile.yml')
             for entry in yaml.safe_load(path.read_text(encoding='utf-8'))['Models'] if 'Weights' in entry}
    assert wanted and found == wanted
