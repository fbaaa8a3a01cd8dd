"""What a page of ``mga ui`` keeps in folders: names of files, and how folders go."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mga.page.visits import Visit, file_name


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("photo.jpg", "photo.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\photo.jpg", "photo.jpg"),
        ("", "image"),
        ("..", "image"),
        ("a\nb\x00?.png", "a_nb_x00_.png"),
        ("-o.png", "-o.png"),
        ("ñ" * 200 + ".png", "ñ" * 73 + ".png"),
        ("\ud800.png", "_.png"),
    ],
)
def test_names_of_files(given, name):
    assert file_name(given) == name


def test_folders_are_removed_by_one_thread_at_a_time(tmp_path, monkeypatch):
    at_work, most = [], []

    def slow(folder, ignore_errors):
        at_work.append(folder)
        most.append(len(at_work))
        time.sleep(0.05)
        at_work.remove(folder)

    monkeypatch.setattr("mga.page.visits.shutil.rmtree", slow)
    visit = Visit("a", tmp_path)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(visit.remove)
    assert most == [1] * 4
