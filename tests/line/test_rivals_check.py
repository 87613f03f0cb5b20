"""What a contest of methods finds out before its first search: the teacher and the logs that it will be judged by."""

import shutil
from dataclasses import replace

import pytest
from samples_fixture import made_up_latency, random_teacher

from prerank.core.errors import InputError
from prerank.models.options import Distill
from prerank.search.options import Search
from workflows import rivals
from workflows.rivals import Rivals


class Started(Exception):
    pass


@pytest.fixture
def config(logs, samples, taught, tmp_path, monkeypatch):
    def started():
        raise Started

    monkeypatch.setattr(rivals, "start_ray", started)
    teacher = random_teacher(samples, tmp_path / "teacher")
    table = made_up_latency(tmp_path / "latency.json", taught, candidates=1000)
    search = Search(widths="8,4,0", layers=1)
    return Rivals(
        logs, taught, teacher, table, tmp_path / "run", budgets="1", widths="4", k=12, search=search, distill=Distill()
    )


def test_what_is_right_goes_on(config):
    with pytest.raises(Started):
        rivals.main(replace(config, distill=Distill(score=1.0)))


def test_a_teacher_that_is_not_there_or_is_of_other_days(config, tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no manifest\.json"):
        rivals.main(replace(config, teacher=tmp_path / "nowhere"))
    manifest = config.teacher / "manifest.json"
    manifest.write_text(manifest.read_text().replace("2024-03-04", "2024-03-03"))
    with pytest.raises(InputError, match=r"teacher: kept from the test days since 2024-03-03.*name the teacher"):
        rivals.main(config)


def test_logs_without_its_features_and_with_another_truth(config, logs, tmp_path):
    shutil.copytree(logs, tmp_path / "logs")
    (tmp_path / "logs/truth").mkdir()
    with pytest.raises(InputError, match=r"truth: no \*\.parquet files"):
        rivals.main(replace(config, logs=tmp_path / "logs"))
    schema = tmp_path / "logs/schema.json"
    schema.write_text(schema.read_text().replace('"size": 4', '"size": 5'))
    with pytest.raises(InputError, match=r"item_vector"):
        rivals.main(replace(config, logs=tmp_path / "logs"))
