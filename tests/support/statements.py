"""A reader of provenance that is not ours: in-toto's own."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.statement_pb2 import Statement


def read_statement(data: bytes) -> tuple[Any, Any]:
    """The statement and its predicate. Raises an error for a field that in-toto does not have."""
    statement = json_format.Parse(data, Statement())
    assert statement.type == "https://in-toto.io/Statement/v1"
    assert statement.predicate_type == "https://slsa.dev/provenance/v1"
    predicate = json_format.ParseDict(json_format.MessageToDict(statement.predicate), Provenance())
    return statement, predicate


def signed_part(kind: str, payload: bytes) -> bytes:
    """What a signature in a DSSE envelope is of (DSSE 1.0, "PAE")."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
