"""Uploads that were begun and never ended, and the rule that ends them."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from engine.place.store import Store
from engine.place.uploads import open_uploads
from tests.storing import Store as Server


def said(url: str = "s3://photos/ds") -> str:
    found = open_uploads(Store.at(url))
    assert found is not None and "\n" not in found
    return found


def rule(prefix: str, **more: Any) -> dict[str, Any]:
    return {"ID": "x", "Status": "Enabled", "Filter": {"Prefix": prefix}} | more


@pytest.mark.slow
def test_open_uploads_below_the_dataset_are_counted_and_the_rule_that_ends_them_is_asked_for(bucket: Server) -> None:
    assert said().startswith("none is open; no lifecycle rule")
    client = bucket._client
    for key in ("ds/shards/a.tar", "ds2/b", "ds/shards/c.tar"):
        client.create_multipart_upload(Bucket=bucket.bucket, Key=key)
    assert said().startswith("2 open, the eldest of ds/shards/a.tar since 20")
    assert "AbortIncompleteMultipartUpload" in said()
    ends = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2}}
    for prefix, more, is_enough in (
        ("ds/", ends, True),
        ("other", ends, False),
        ("", {"Expiration": {"Days": 9}}, False),
    ):
        rules = {"Rules": [rule(prefix, **more)]}
        client.put_bucket_lifecycle_configuration(Bucket=bucket.bucket, LifecycleConfiguration=rules)
        assert said().endswith("a lifecycle rule ends them") == is_enough
    client.delete_bucket_lifecycle(Bucket=bucket.bucket)


def test_what_cannot_be_asked_is_not_checked(bucket: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_uploads(Store.at("az://container/ds")) is None
    assert said("s3://no-such-bucket/ds") == "not checked: NoSuchBucket"
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    assert said() == "not checked: botocore is not installed"
