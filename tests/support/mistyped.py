"""Addresses with a secret in them, each mistyped in another way."""

from __future__ import annotations

SECRET = "S3CR3T"
MISTYPED = [
    f"https:/host/x.tar.gz?X-Amz-Signature={SECRET}",
    f"HTTPS:host/x?X-Amz-Signature={SECRET}",
    f"host.amazonaws.com/x.tar.gz?X-Amz-Signature={SECRET}",
    f"s3:/AKIA:{SECRET}@bucket/k",
    f"s3:bucket/k?X-Amz-Signature={SECRET}",
    f"s3://AKIA:{SECRET}/k",
    f"abfs://c:{SECRET}@account.dfs.core.windows.net/k",
    f"wasbs://c:{SECRET}@host.x/key",
    f"https:/u:{SECRET}@host/k",
    f"u:{SECRET}@host/k",
    f"https://u:{SECRET}@host/k",
    f"https://u:{SECRET}@[::1/k",
    f"https%3A%2F%2Fu%3A{SECRET}%40host%2Fk",
    f"file://u:{SECRET}@host/k",
    f"file:k?sig={SECRET}",
    f"gs://bucket/k#{SECRET}",
    f"ftp://u:{SECRET}@host/k",
    f" https://u:{SECRET}@host/k\n\x1b[2J\u202e",
    f"https:u:{SECRET}@host",
    f"Https:\\\\u:{SECRET}@host",
    f"//u:{SECRET}@host/x",
    f"oci://u:{SECRET}@host/x",
    f"u:{SECRET}@host.example/team/app:1",
    f"host.example/team/app?token={SECRET}",
    f"{SECRET}@host",
]
