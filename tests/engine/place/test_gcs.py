"""Google's way of writing on a condition, which names generations in place of etags."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from commands.front_door import app
from engine.place import lease
from engine.place import store as stores
from engine.place.store import Store
from tests import gcs
from tests.building import build, recipe, write_pictures
from tests.storing import objects_come_back, race_for_lease
from tests.trees import content


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[gcs.Bucket]:
    """A server, and the environment of who uses it."""
    made = stores._made

    def over_http(bucket: str, client_options: Any, **more: Any) -> Any:
        return made(bucket, client_options={**client_options, "allow_http": True}, **more)

    with gcs.serving() as server:
        account = {"gcs_base_url": server.url, "disable_oauth": True} | dict.fromkeys(
            ("client_email", "private_key", "private_key_id"), ""
        )
        (tmp_path / "account.json").write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
        monkeypatch.setenv("SIGMA_SCRATCH", str(tmp_path / "scratch"))
        monkeypatch.setattr(stores, "_made", over_http)
        monkeypatch.setattr(lease, "BEAT_S", 0.1)
        monkeypatch.setattr(lease, "STILL_S", 0.5)
        stores._client.cache_clear()
        yield server
        stores._client.cache_clear()


def test_objects_come_back_and_conditions_hold(google: gcs.Bucket, tmp_path: Path) -> None:
    objects_come_back(Store.at("gs://photos/ds"), tmp_path)


def test_of_eight_that_start_at_once_one_holds_the_lease(google: gcs.Bucket) -> None:
    got, refused = race_for_lease(Store.at("gs://photos/ds"), held_s=0.8)
    assert {*got} == {1} and len(got) + len(refused) == 8 and refused
    assert google.objects == {}


@pytest.mark.slow
def test_a_build_writes_the_bytes_of_a_local_one_and_may_be_purged(google: gcs.Bucket, tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", [(96, 64)] * 3 + [(96, 96)])
    local, _ = build(recipe(tmp_path / "pictures", tmp_path / "local"))
    made = recipe(tmp_path / "pictures", Path("x")).model_copy(update={"out": "gs://photos/deep er/ds"})
    build(made)
    found = {key.removeprefix("deep er/ds/"): of.data for key, of in google.objects.items()}
    assert {key: data for key, data in found.items() if key.startswith(("tables/", "shards/"))} == {
        key: (local.root / key).read_bytes() for key in content(local.root)
    }
    gone = local.read_table("images")["image_id"][0].as_py()
    done = CliRunner().invoke(app, ["purge", made.out, "--image-id", gone, "--why", "asked"])
    assert done.exit_code == 0 and "1 input taken out" in done.output, done.output
    assert not any(gone.encode() in of.data for key, of in google.objects.items() if key.endswith(".tar"))


def test_a_bucket_refuses_a_takedown_only_where_it_keeps_versions(google: gcs.Bucket) -> None:
    store = Store.at("gs://photos/ds")
    store.refuse_versions()
    google.keeps_versions = True
    with pytest.raises(ValueError, match="gs://photos keeps old versions of its objects"):
        store.refuse_versions()
