"""Looks for uploads in pieces that a kill left open: they cost money, and no listing shows them."""

from __future__ import annotations

from typing import Any

from engine.place.store import Store


def open_uploads(store: Store) -> str | None:
    """What there is to say about them, in one line; None for a store that ends them by itself, or has no such thing.
    The client of stores cannot ask for them, botocore can."""
    if not store.bucket.startswith(("s3://", "s3a://")):
        return None
    try:
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.session import get_session
    except ImportError:
        return "not checked: botocore is not installed"
    session, bucket = get_session(), store.bucket.partition("://")[2]
    try:
        region = session.get_config_variable("region") or "us-east-1"
        patience = Config(connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 2})
        client = session.create_client("s3", region_name=region, config=patience)
        prefix = f"{store.prefix}/" if store.prefix else ""
        found = client.list_multipart_uploads(Bucket=bucket, Prefix=prefix).get("Uploads", [])
        has_rule = any(_ends_them(rule, prefix) for rule in _rules(client, bucket))
    except (BotoCoreError, ClientError) as error:
        code = getattr(error, "response", {}).get("Error", {}).get("Code", type(error).__name__)
        return f"not checked: {code}"
    said = "none is open"
    if found:
        eldest = min(found, key=lambda upload: upload["Initiated"])
        said = f"{len(found):,} open, the eldest of {eldest['Key']} since {eldest['Initiated']:%Y-%m-%d %H:%M} UTC"
    if has_rule:
        return f"{said}; a lifecycle rule ends them"
    return (
        f"{said}; no lifecycle rule of the bucket ends what a kill leaves open, which costs money and shows nowhere: "
        "add one with AbortIncompleteMultipartUpload, of some days"
    )


def _rules(client: Any, bucket: str) -> list[dict[str, Any]]:
    try:
        rules: list[dict[str, Any]] = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
        return rules
    except client.exceptions.ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchLifecycleConfiguration":
            return []
        raise


def _ends_them(rule: dict[str, Any], prefix: str) -> bool:
    below = rule.get("Filter", {}).get("Prefix", rule.get("Prefix", ""))
    return rule["Status"] == "Enabled" and "AbortIncompleteMultipartUpload" in rule and prefix.startswith(below)
